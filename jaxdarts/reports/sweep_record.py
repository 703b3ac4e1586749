"""What did the runs of a sweep find?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jaxdarts import forms
from jaxdarts.errors import InputError
from jaxdarts.nasbench201.benchmark import TITLES
from jaxdarts.paths import is_file
from jaxdarts.reports.counts import activation_counts, activations, is_recurrent
from jaxdarts.reports.evaluation_record import RESULT, RESULT_FILE
from jaxdarts.reports.measure import Measure, measure_of
from jaxdarts.reports.run_record import (
    RunRecord,
    Values,
    read_epochs,
    read_run,
    result_folder,
    returned_value,
    values_of,
)
from jaxdarts.runs.sweep.states import EVALUATE_FOLDER, RUN, SWEEP_FILE
from jaxdarts.spaces import CellSpace
from jaxdarts.spaces.benchmark import DATA_SETS


class Quantity(NamedTuple):
    """A number of a finished run, and how tables show it."""

    title: str
    percent: bool = False  # of a part of one
    digits: int = 4

    @property
    def heading(self) -> str:
        """Of a column."""
        return self.title + (", %" if self.percent else "")


# Of image networks; a quantity that was not measured is None.
_IMAGE_COUNTS = {
    "skip_normal": Quantity("Skips, normal", digits=1),
    "skip_reduce": Quantity("Skips, reduction", digits=1),
    "skip_cell": Quantity("Skips", digits=1),
    "noise_normal": Quantity("Noise, normal", digits=1),
    "noise_reduce": Quantity("Noise, reduction", digits=1),
}
BENCHMARK = {f"benchmark/{name}/accuracy": Quantity(f"Benchmark, {TITLES[name]}", True, 2) for name in DATA_SETS}
# What is drawn over the epochs.
CURVES = ("dominant_eigenvalue", "benchmark/cifar10/accuracy")


def quantities_of(space: CellSpace) -> dict[str, Quantity]:
    """What is known of a finished search in a space, and of the training of what it found."""
    measure = measure_of(space)
    objective, percent, digits = measure.objective, measure.percent, measure.digits
    recurrent = is_recurrent(space)
    counts = {f"activation_{name}": Quantity(f"Activations, {name}", digits=1) for name in activations(space)}
    return {
        f"valid_{objective}": Quantity(f"Validation {objective}", percent, digits),
        "dominant_eigenvalue": Quantity("Dominant eigenvalue"),
        measure.worsening: Quantity(f"Discretisation {measure.way}", percent, digits),
        **(counts if recurrent else _IMAGE_COUNTS),
        f"test_{measure.result}": Quantity(f"Test {measure.result}", percent, digits),
        **({} if recurrent else BENCHMARK),
    }


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
    result: Mapping[str, float | None] | None  # `quantities` and `held_out_...`; None: it has not finished
    epochs: tuple[int, ...] = ()
    curves: Mapping[str, Values] = field(default_factory=dict)  # CURVES, one value an epoch
    measure: Measure | None = None  # None: it has not finished
    quantities: Mapping[str, Quantity] = field(default_factory=dict)  # none where it has not finished

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

    @cached_property
    def measures(self) -> tuple[Measure, ...]:
        """By what the runs' architectures are compared: one a task."""
        return tuple(dict.fromkeys(run.measure for run in self.finished if run.measure is not None))

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """Those of all runs."""
        return {name: quantity for run in self.finished for name, quantity in run.quantities.items()}


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
    """The quantities of a finished search (see `quantities_of`) and, if there is one, its evaluation.

    `valid_accuracy` and `dominant_eigenvalue` are of the epoch whose genotype is returned, the eigenvalue of the newest
    epoch up to it in which it was measured; where a method chooses by scoring architectures, `valid_accuracy` is the
    chosen one's score. Of a population they are those of the member whose genotype is returned. `accuracy_drop` is what
    discretisation takes from the accuracy, without retraining. `held_out_accuracy`, on the images that the evaluation
    held out after its last epoch, is there beside them. Other tasks have their own objective in the accuracy's place,
    and their own result in that of `test_error`.

    Raises:
      InputError: a file cannot be read.
    """
    return _result(folder, read_run(result_folder(folder)))


def _result(folder: Path, run: RunRecord) -> dict[str, float | None]:
    measure = run.measure
    objective = measure.objective
    diagnostics = run.diagnostics or {}
    returned = diagnostics.get("epoch", run.epochs[-1])
    until = [entry for entry in run.metrics if entry["epoch"] <= returned]
    eigenvalues = [entry.get("dominant_eigenvalue") for entry in until]
    candidates = diagnostics.get("candidates")
    change = (diagnostics.get("discretisation") or {}).get(f"{objective}_change")
    valid, held_out, test = f"valid_{objective}", f"held_out_{objective}", f"test_{measure.result}"
    result: dict[str, float | None] = {
        valid: candidates[0].get(objective) if candidates else until[-1].get(valid),
        "dominant_eigenvalue": next((value for value in reversed(eigenvalues) if value is not None), None),
        measure.worsening: change if change is None or not measure.more else -change,
        **_counts(run),
        test: None,
        held_out: None,
    }
    if not is_recurrent(run.space):
        result |= {key: returned_value(run, key) for key in BENCHMARK}
    if is_file(folder / EVALUATE_FOLDER / RESULT_FILE):
        result[test] = forms.read_json(folder / EVALUATE_FOLDER / RESULT_FILE, RESULT).get(test)
        result[held_out] = read_epochs(folder / EVALUATE_FOLDER)[-1].get(valid)
    return result


def _counts(run: RunRecord) -> dict[str, float | None]:
    if is_recurrent(run.space):
        counts = activation_counts(run.genotype)
        return {f"activation_{name}": counts[name] for name in activations(run.space)}
    skips = run.genotype.count("skip_connect")
    noises = run.genotype.count("noise") if "noise" in run.space.operation_names else {}
    return {
        **{f"skip_{cell}": skips.get(cell) for cell in ("normal", "reduce", "cell")},
        **{f"noise_{cell}": noises.get(cell) for cell in ("normal", "reduce")},
    }


def _read_run(folder: Path, entry: Mapping[str, Any]) -> SweepRun:
    path = folder / entry["name"]
    found = SweepRun(entry["name"], entry["values"], entry["state"], entry.get("error"), None)
    if entry["state"] != "done":
        return found
    run = read_run(result_folder(path))
    return replace(
        found,
        result=_result(path, run),
        epochs=run.epochs,
        curves={key: values_of(run.metrics, key) for key in CURVES},
        measure=run.measure,
        quantities=quantities_of(run.space),
    )


def told(folder: Path) -> list[str]:
    """What is worth telling of a run that has finished."""
    try:
        run = read_run(result_folder(folder))
        result = _result(folder, run)
    except InputError as error:
        return [f"done, but {error}"]
    measure = run.measure
    names = {f"valid_{measure.objective}": f"valid {measure.objective}"}
    names |= {f"test_{measure.result}": f"test {measure.result}"}
    return [f"{text} {measure.text(result[name])}" for name, text in names.items() if result.get(name) is not None]
