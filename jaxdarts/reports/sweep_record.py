"""What did the runs of a sweep find?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxdarts import forms
from jaxdarts.errors import InputError
from jaxdarts.nasbench201.benchmark import TITLES
from jaxdarts.paths import is_file
from jaxdarts.reports.evaluation_record import RESULT, RESULT_FILE
from jaxdarts.reports.run_record import (
    METRICS_FILE,
    Values,
    read_epochs,
    read_run,
    result_folder,
    returned_value,
    values_of,
)
from jaxdarts.runs.sweep.states import EVALUATE_FOLDER, RUN, SWEEP_FILE
from jaxdarts.spaces.benchmark import DATA_SETS

# Of a finished run; a quantity that was not measured is None.
QUANTITIES = {
    "valid_accuracy": "Validation accuracy",
    "dominant_eigenvalue": "Dominant eigenvalue",
    "accuracy_drop": "Discretisation drop",
    "skip_normal": "Skips, normal",
    "skip_reduce": "Skips, reduction",
    "skip_cell": "Skips",
    "noise_normal": "Noise, normal",
    "noise_reduce": "Noise, reduction",
    "test_error": "Test error",
    **{f"benchmark/{name}/accuracy": f"Benchmark, {TITLES[name]}" for name in DATA_SETS},
}
# What is drawn over the epochs.
CURVES = ("dominant_eigenvalue", "benchmark/cifar10/accuracy")


_SWEEP = {
    "runs": [{**RUN, "state": RUN["state?"], "values": {str: forms.scalar}}],
    "fields": [str],
    "search?": dict,
    "variants?": {str: dict},
}


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep, finished or not."""

    name: str
    values: Mapping[str, Any]  # of the sweep's fields
    state: str  # pending, running, failed or done
    error: str | None
    result: Mapping[str, float | None] | None  # QUANTITIES and `held_out_accuracy`; None: it has not finished
    epochs: tuple[int, ...] = ()
    curves: Mapping[str, Values] = field(default_factory=dict)  # CURVES, one value an epoch

    def value(self, name: str) -> float | None:
        """A result; None where it was not measured or the run has not finished."""
        return None if self.result is None else self.result.get(name)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as its folder tells it."""

    name: str
    fields: tuple[str, ...]  # of the grid, in SearchConfig's order, and "variant" before them
    search: Mapping[str, Any]  # the fixed fields
    variants: Mapping[str, Mapping[str, Any]]  # what each variant changes of them
    runs: tuple[SweepRun, ...]

    @property
    def finished(self) -> list[SweepRun]:
        """The runs with a result."""
        return [run for run in self.runs if run.result is not None]


def value_text(value: Any) -> str:
    """A setting's value as tables show it."""
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def read_sweep_record(folder: Path) -> SweepRecord:
    """Reads sweep.json and the files of every finished run.

    Raises:
      InputError: it is not the folder of a sweep, or a file cannot be read; naming the file.
    """
    path = folder / SWEEP_FILE
    content = forms.read_json(path, _SWEEP)
    for entry in content["runs"]:
        lacking = [name for name in content["fields"] if name not in entry["values"]]
        if lacking:
            raise InputError(f"run_dir: {str(path)!r}: values of run {entry['name']!r} lack {', '.join(lacking)}")
    runs = [_read_run(folder, entry) for entry in content["runs"]]
    name, fields = folder.resolve().name, tuple(content["fields"])
    return SweepRecord(name, fields, content.get("search", {}), content.get("variants", {}), tuple(runs))


def read_result(folder: Path) -> dict[str, float | None]:
    """The QUANTITIES of a finished search and, if there is one, its evaluation.

    `valid_accuracy` and `dominant_eigenvalue` are of the epoch whose genotype is returned, the eigenvalue of the newest
    epoch up to it in which it was measured; where a method chooses by scoring architectures, `valid_accuracy` is the
    chosen one's score. Of a population they are those of the member whose genotype is returned. `accuracy_drop` is what
    discretisation takes from the accuracy, without retraining. `held_out_accuracy`, on the images that the evaluation
    held out after its last epoch, is there beside them.

    Raises:
      InputError: a file cannot be read.
    """
    run = read_run(result_folder(folder))
    diagnostics = run.diagnostics or {}
    returned = diagnostics.get("epoch", run.epochs[-1])
    until = [entry for entry in run.metrics if entry["epoch"] <= returned]
    eigenvalues = [entry.get("dominant_eigenvalue") for entry in until]
    candidates = diagnostics.get("candidates")
    change = (diagnostics.get("discretisation") or {}).get("accuracy_change")
    skips = run.genotype.count("skip_connect")
    noises = run.genotype.count("noise") if "noise" in run.space.operation_names else {}
    result: dict[str, float | None] = {
        "valid_accuracy": candidates[0].get("accuracy") if candidates else until[-1].get("valid_accuracy"),
        "dominant_eigenvalue": next((value for value in reversed(eigenvalues) if value is not None), None),
        "accuracy_drop": None if change is None else -change,
        **{f"skip_{cell}": skips.get(cell) for cell in ("normal", "reduce", "cell")},
        **{f"noise_{cell}": noises.get(cell) for cell in ("normal", "reduce")},
        "test_error": None,
        "held_out_accuracy": None,
        **{key: returned_value(run, key) for key in QUANTITIES if key.startswith("benchmark/")},
    }
    if is_file(folder / EVALUATE_FOLDER / RESULT_FILE):
        result["test_error"] = forms.read_json(folder / EVALUATE_FOLDER / RESULT_FILE, RESULT).get("test_error")
        result["held_out_accuracy"] = read_epochs(folder / EVALUATE_FOLDER)[-1].get("valid_accuracy")
    return result


def _read_run(folder: Path, entry: Mapping[str, Any]) -> SweepRun:
    path, done = folder / entry["name"], entry["state"] == "done"
    of_result = result_folder(path) if done else path
    metrics = read_epochs(of_result) if done and is_file(of_result / METRICS_FILE) else []
    return SweepRun(
        name=entry["name"],
        values=entry["values"],
        state=entry["state"],
        error=entry.get("error"),
        result=read_result(path) if done else None,
        epochs=tuple(record["epoch"] for record in metrics),
        curves={key: values_of(metrics, key) for key in CURVES},
    )


def told(folder: Path) -> list[str]:
    """What is worth telling of a run that has finished."""
    try:
        result = read_result(folder)
    except InputError as error:
        return [f"done, but {error}"]
    names = {"valid_accuracy": "valid accuracy", "test_error": "test error"}
    return [f"{text} {result[name]:.2%}" for name, text in names.items() if result.get(name) is not None]
