"""What does a table of a space's architectures say?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxdarts import forms
from jaxdarts.errors import InputError
from jaxdarts.forms import NUMBER
from jaxdarts.json_files import raw_lines
from jaxdarts.paths import is_file, is_folder
from jaxdarts.reports.layouts import CONFIGS, FACTS
from jaxdarts.reports.measure import Measure, measure_of
from jaxdarts.runs.store import METRICS_FILE
from jaxdarts.spaces import Architecture, CellSpace, genotype_from_json, space_from_json

TABLE_FILE = "table.json"
_NUMBERS = {"seed": int, "parameters": int, "multiply_adds": int, "train_loss": NUMBER, "seconds": float}
_TABLE = {**FACTS, **CONFIGS["tabulate"], "search_space": forms.space}


def _entry_form(measure: Measure) -> dict[str, Any]:
    """In the order in which a table is written."""
    tested = {f"test_{measure.result}": float, f"valid_{measure.result}?": NUMBER}
    return {"genotype": forms.genotype, **tested, **_NUMBERS}


@dataclass(frozen=True)
class Entry:
    """One training of one architecture."""

    genotype: Architecture  # canonical
    seed: int
    test_error: float  # after the last epoch, between 0 and 1; of another task what papers report, less is better
    valid_error: float | None  # the same on the data held out; None if there are none
    train_loss: float | None  # mean over the last epoch
    parameters: int  # as `network_cost` counts them
    multiply_adds: int
    seconds: float


@dataclass(frozen=True)
class Table:
    """Test errors of the architectures of a space, trained from scratch one by one."""

    name: str
    config: Mapping[str, Any]  # as in config.json
    space: CellSpace
    entries: tuple[Entry, ...]

    @property
    def planned(self) -> int:
        """Entries of the finished table."""
        return self.space.num_genotypes() * int(self.config.get("seeds", 1))

    @property
    def is_finished(self) -> bool:
        """Whether every architecture has been trained with every seed."""
        return len(self.entries) == self.planned

    @property
    def measure(self) -> Measure:
        """What its errors are."""
        return measure_of(self.space)

    @cached_property
    def errors(self) -> dict[Architecture, float]:
        """Test error, or another task's result, by canonical genotype, the mean over seeds; the best first."""
        found: dict[Architecture, list[float]] = {}
        for entry in self.entries:
            found.setdefault(entry.genotype, []).append(entry.test_error)
        means = {genotype: sum(errors) / len(errors) for genotype, errors in found.items()}
        return dict(sorted(means.items(), key=lambda item: item[1]))


def read_table(path: str | Path) -> Table:
    """Reads a table, finished or not, from its file or from the folder that holds it.

    In a folder, trainings that have ended since the file was written are in metrics.jsonl, a line each.

    Raises:
      InputError: there is none, or it cannot be read; naming the file.
    """
    path = Path(path) / TABLE_FILE if is_folder(path) else Path(path)
    if not is_file(path):
        raise InputError(f"table: cannot read {str(path)!r}: No such file; python -m jaxdarts.tabulate makes one")
    space = space_from_json(forms.read_json(path, _TABLE, argument="table")["search_space"])
    measure = measure_of(space)
    form = _entry_form(measure)
    content = forms.read_json(path, {**_TABLE, "entries": [form]}, argument="table")
    lines = raw_lines(path.parent / METRICS_FILE, "table")
    newer = [
        forms.parse_json(line, form, path.parent / METRICS_FILE, "table", f"line {number}")
        for number, line in enumerate(lines, start=1)
    ]
    entries = tuple(_entry(entry, measure.result) for entry in (newer or content["entries"]))
    config = {name: value for name, value in content.items() if name != "entries"}
    return Table(path.resolve().parent.name, config, space, entries)


def _entry(content: Mapping[str, Any], result: str) -> Entry:
    genotype, numbers = genotype_from_json(content["genotype"]).canonical(), {n: content[n] for n in _NUMBERS}
    tested, held_out = content[f"test_{result}"], content.get(f"valid_{result}")
    return Entry(genotype, test_error=tested, valid_error=held_out, **numbers)
