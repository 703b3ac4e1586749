"""Does the early-stopping rule decide as RobustDARTS did in its logged searches? Used by check.py for FILE.json."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdarts.errors import InputError
from jaxdarts.methods import EarlyStop, StoppingRule, find_stop, local_average, make_rule

TOLERANCE = 1e-9  # of an average, relative


class Run(NamedTuple):
    """One logged search."""

    name: str
    epochs: list[int]  # measured, ascending
    eigenvalues: list[float | None]  # the dominant one in each
    averages: list[float | None] | None  # the reference tracker's; None: not in the file
    early_stop: EarlyStop | None | str  # its decision; NOT_GIVEN: not in the file
    last_epoch: int | None  # of the search; None: the log ends before the search did


class RunRow(NamedTuple):
    """One line of the table."""

    name: str
    measurements: int
    average_error: float | None  # largest relative error; None: nothing to compare with
    ours: EarlyStop | None
    reference: EarlyStop | None | str

    @property
    def agrees(self) -> bool:
        """Whether everything that the file holds is reproduced."""
        stops_agree = self.reference == NOT_GIVEN or self.ours == self.reference
        return stops_agree and (self.average_error is None or self.average_error <= TOLERANCE)


NOT_GIVEN = "not given"


def read_runs(path: str | Path) -> list[Run]:
    """The runs of a file. Raises InputError where it can't be read."""
    try:
        entries = json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # UnicodeDecodeError among them
        raise InputError(f"cannot be read: {error}") from error
    entries = [entries] if isinstance(entries, dict) else entries
    if not isinstance(entries, list) or not entries:
        raise InputError("holds no list of runs")
    return [_read_run(number, entry) for number, entry in enumerate(entries)]


def check_run(run: Run) -> RunRow:
    """The rule `code` of RobustDARTS, at the run's own frequency, beside what the file says."""
    rule = make_rule("code", _frequency(run.epochs))
    error = None if run.averages is None else _average_error(run, rule)
    ours = find_stop(rule, run.epochs, run.eigenvalues, run.last_epoch)
    return RunRow(run.name, len(run.epochs), error, ours, run.early_stop)


def table(rows: Sequence[RunRow]) -> Iterator[str]:
    """The rows as text, a line each."""
    width = max(len(row.name) for row in rows)
    yield f"  {'run':<{width}}  measured  averages' error  stops (reference)       stops (ours)"
    for row in rows:
        error = "not given" if row.average_error is None else f"{row.average_error:.2e}"
        verdict = "" if row.agrees else "  disagrees"
        yield (
            f"  {row.name:<{width}}  {row.measurements:>8}  {error:>15}  {_text(row.reference):<22}  "
            f"{_text(row.ours)}{verdict}"
        )
    agreeing = sum(row.agrees for row in rows)
    yield f"  {agreeing} of {len(rows)} runs agree"


def _read_run(number: int, entry: Any) -> Run:
    if not isinstance(entry, dict):
        raise InputError(f"run {number} is not an object")
    parts = (entry.get(field) for field in ("space", "dataset", "weight_decay", "drop_path", "seed"))
    name = " ".join(str(part) for part in parts if part is not None) or f"run {number}"
    epochs, eigenvalues = entry.get("epochs"), entry.get("lambda_max")
    if not _is_list(epochs, int) or None in epochs:
        raise InputError(f"run {number} ({name}): epochs must be a list of whole numbers")
    if not _is_list(eigenvalues, int | float) or len(eigenvalues) != len(epochs):
        raise InputError(f"run {number} ({name}): lambda_max must be a list of {len(epochs)} numbers, as epochs")
    if epochs != sorted(set(epochs)):
        raise InputError(f"run {number} ({name}): epochs must ascend")
    averages = entry.get("local_average")
    if averages is not None and not (_is_list(averages, int | float) and len(averages) <= len(epochs)):
        raise InputError(f"run {number} ({name}): local_average must be a list of at most {len(epochs)} numbers")
    measured = sum(value is not None for value in eigenvalues)
    # In its last epoch the reference averages what is left and decides nothing; a shorter log had not come to that.
    ended = averages is None or len(averages) >= measured
    last_epoch = epochs[-1] if ended and epochs else None
    return Run(name, epochs, eigenvalues, averages, _early_stop(number, name, entry), last_epoch)


def _early_stop(number: int, name: str, entry: dict[str, Any]) -> EarlyStop | None | str:
    stop = entry.get("early_stop", NOT_GIVEN)
    if stop is None or stop == NOT_GIVEN:
        return stop
    fields = ("decided_at", "returns")
    if not isinstance(stop, dict) or not all(isinstance(stop.get(field), int) for field in fields):
        raise InputError(f"run {number} ({name}): early_stop must be null or have decided_at and returns")
    return EarlyStop(stop["decided_at"], stop["returns"])


def _frequency(epochs: list[int]) -> int:
    """Epochs between measurements: the most frequent distance, since the last epoch is always measured."""
    distances = Counter(b - a for a, b in zip(epochs, epochs[1:], strict=False))
    return distances.most_common(1)[0][0] if distances else 1


def _average_error(run: Run, rule: StoppingRule) -> float:
    """Of the averages that the file has: a log that ends early lacks the newest."""
    ours = [value for value in local_average(run.eigenvalues, rule.reach) if value is not None]
    reference = [value for value in run.averages or [] if value is not None]
    if not len(ours) - rule.reach <= len(reference) <= len(ours):
        return math.inf
    errors = [abs(a - b) / max(abs(b), 1e-300) for a, b in zip(ours, reference, strict=False)]
    return max((error if math.isfinite(error) else math.inf for error in errors), default=0.0)


def _is_list(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(
        entry is None or (isinstance(entry, kind) and not isinstance(entry, bool)) for entry in value
    )


def _text(stop: EarlyStop | None | str) -> str:
    if isinstance(stop, str):
        return stop
    return "runs to the end" if stop is None else f"at {stop.decided_at}, returns {stop.returns}"
