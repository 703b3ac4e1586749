"""What do the files of a run hold, as forms that readers check?"""

from __future__ import annotations

from typing import Any

from jaxdarts import forms
from jaxdarts.forms import NUMBER, Null
from jaxdarts.methods import METHODS, STOPPING_RULES
from jaxdarts.methods.schedules import BETA_SCHEDULES, TEMPERATURE_SCHEDULES
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.settings import Settings
from jaxdarts.spaces.benchmark import DATA_SETS

FACTS: dict[str, Any] = {
    "command?": ("search", "evaluate", "tabulate"),
    "versions?": Null({str: str}),
    "device?": Null(str),
    "search_space?": Null(forms.space),
    "architecture?": Null(forms.genotype),
    "parameters?": Null(int),
    "multiply_adds?": Null(int),
    "members?": [{str: forms.scalar}, ...],
    "stage?": str,
    "stages?": [forms.file_name, ...],
}


def settings_form(kind: type[Settings], **given: Any) -> dict[str, Any]:
    """All settings of a command, whatever the method; `given` are forms in the place of those of the annotations."""
    values = [{"method": name} for name in METHODS] if kind is SearchConfig else [{}]
    found: dict[str, Any] = {}
    for group in {group for value in values for group in kind.group_types(value)}:
        found |= forms.fields_of(group, **given)
    return found


CONFIGS: dict[str, dict[str, Any]] = {
    "search": settings_form(
        SearchConfig,
        es_rule=tuple(STOPPING_RULES),
        beta_schedule=tuple(BETA_SCHEDULES),
        temperature_schedule=tuple(TEMPERATURE_SCHEDULES),
    ),
    "evaluate": settings_form(EvaluateConfig),
    "tabulate": settings_form(TabulateConfig),
}
EDGE_NAMES = sorted({kind.mixing.edges for entry in METHODS.values() for kind in (entry, *entry.stages.values())})
_MEASURED = (
    "train_loss", "train_accuracy", "alpha_loss", "valid_loss", "valid_accuracy", "test_loss", "test_accuracy",
    "auxiliary_loss", "dominant_eigenvalue", "local_average", "largest_magnitude_eigenvalue", "smallest_eigenvalue",
    "hypergradient_norm", "gradient_norm", "learning_rate", "l2", "drop_path", "beta_weight", "temperature", "seconds",
)  # fmt: skip
EPOCH = {
    "epoch": int,
    **{f"{name}?": NUMBER for name in _MEASURED},
    **{f"{name}?": NUMBER for entry in METHODS.values() for name in entry.draws},
    "alpha?": Null({str: [[NUMBER]]}),
    **{f"alpha_{name}?": {str: [NUMBER]} for name in EDGE_NAMES},
    "genotype?": Null(forms.genotype),
    "selected?": Null(forms.genotype),
    "skip_connections?": Null({str: int}),
    "benchmark?": Null({f"{name}?": Null({str: NUMBER}) for name in DATA_SETS}),
    "projection?": [
        {
            "cell": str,
            "edge?": int,
            "node?": int,
            "candidates?": [str],
            "sources?": [int],
            "chosen?": str,
            "kept?": [int],
            **{f"{name}?": [NUMBER] for name in ("weights", "accuracy", "loss")},
        }
    ],
}
ROUND = {"epoch": int, "seconds?": NUMBER}  # of a population: the other fields hold an entry a member
_SCORES = {"accuracy": NUMBER, "loss": NUMBER}
_COUNTS = {str: int}
_CANDIDATE = {"genotype": forms.genotype, "accuracy": NUMBER}
DIAGNOSTICS = {
    "epoch": int,
    "operations": {"skip_connect": _COUNTS, "parameter_free": _COUNTS, "all": _COUNTS},
    "discretisation": Null({"relaxed": _SCORES, "one_hot": _SCORES, "accuracy_change": NUMBER}),
    "eigenvalues": Null({"values": [NUMBER, ...], "residuals": [NUMBER, ...], "of": int}),
    "candidates?": Null([_CANDIDATE, ...]),
    "selections?": {str: {**_CANDIDATE, "loss": NUMBER}},
}
CHOICE = {
    **DIAGNOSTICS,
    "member": int,
    "chosen_by": ("retraining", "supernet"),
    "candidates": [{**_CANDIDATE, "member": int, "loss": NUMBER}, ...],
}
