"""What do the files of a run hold, as forms that readers check?"""

from __future__ import annotations

from typing import Any

from jaxdarts import forms
from jaxdarts.forms import NUMBER, Null
from jaxdarts.methods import METHODS, STOPPING_RULES
from jaxdarts.methods.schedules import BETA_SCHEDULES, TEMPERATURE_SCHEDULES
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.reports.counts import is_recurrent
from jaxdarts.reports.measure import METRICS, Measure, measure_of
from jaxdarts.settings import Settings
from jaxdarts.spaces import CellSpace
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
    """All settings of a command, whatever the method and the task.

    `given` are forms in the place of those of the annotations.
    """
    found: dict[str, Any] = {}
    for group in {group for value in kind.every() for group in kind.group_types(value)}:
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
    *(f"{part}_{name}" for part in ("train", "valid", "test") for name in METRICS), "alpha_loss", "auxiliary_loss",
    "penalty", "dominant_eigenvalue", "local_average", "largest_magnitude_eigenvalue", "smallest_eigenvalue",
    "hypergradient_norm", "gradient_norm", "learning_rate", "l2", "drop_path", "beta_weight", "temperature", "seconds",
    "averaging",
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
            **{f"{name}?": [NUMBER] for name in ("weights", *METRICS)},
        }
    ],
}
ROUND = {"epoch": int, "seconds?": NUMBER}  # of a population: the other fields hold an entry a member
_COUNTS = {str: int}


def diagnostics_form(space: CellSpace) -> dict[str, Any]:
    """What is known about the end of a search in a space."""
    measure = measure_of(space)
    scores, candidate = {measure.objective: NUMBER, "loss": NUMBER}, _candidate(measure)
    names = (str,) if is_recurrent(space) else ("skip_connect", "parameter_free", "all")
    return {
        "epoch": int,
        "operations": dict.fromkeys(names, _COUNTS),
        "discretisation": Null({"relaxed": scores, "one_hot": scores, f"{measure.objective}_change": NUMBER}),
        "eigenvalues": Null({"values": [NUMBER, ...], "residuals": [NUMBER, ...], "of": int}),
        "candidates?": Null([candidate, ...]),
        "selections?": {str: {**candidate, "loss": NUMBER}},
    }


def choice_form(space: CellSpace) -> dict[str, Any]:
    """What is known about the choice between several searches in a space."""
    return {
        **diagnostics_form(space),
        "member": int,
        "chosen_by": ("retraining", "supernet"),
        "candidates": [{**_candidate(measure_of(space)), "member": int, "loss": NUMBER}, ...],
    }


def _candidate(measure: Measure) -> dict[str, Any]:
    return {"genotype": forms.genotype, measure.objective: NUMBER}
