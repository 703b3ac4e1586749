"""What do the files of a run say?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxdarts import forms
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.json_files import raw_lines
from jaxdarts.methods import METHODS, MethodEntry, StoppingRule, local_average
from jaxdarts.methods.parts import stopping_rule
from jaxdarts.paths import is_file, is_folder
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.reports.counts import count_of, is_count
from jaxdarts.reports.event_record import read_events
from jaxdarts.reports.layouts import CONFIGS, EPOCH, FACTS, choice_form, diagnostics_form
from jaxdarts.reports.measure import Measure, measure_of
from jaxdarts.reports.strengths import MEASURES, edge_strengths, operation_strengths
from jaxdarts.runs.config_json import CONFIG_FILE, run_command
from jaxdarts.runs.events import Event
from jaxdarts.runs.store import METRICS_FILE
from jaxdarts.spaces import (
    Architecture,
    CellSpace,
    genotype_from_json,
    load_space,
    space_from_json,
)
from jaxdarts.spaces.files import GENOTYPE_FILE

DIAGNOSTICS_FILE, REPORT_FILE = "diagnostics.json", "report.html"

Values = Sequence[float | None]  # one entry an epoch; None where there is none


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder tells it, finished or not."""

    name: str
    config: Mapping[str, Any]
    space: CellSpace
    epochs: tuple[int, ...]  # at least one
    metrics: tuple[Mapping[str, Any], ...]  # one an epoch
    genotype: Architecture  # the one returned, or the newest of a run that has not finished
    finished: bool
    events: tuple[Event, ...] = ()  # what the method decided
    diagnostics: Mapping[str, Any] | None = None  # of an ended search

    @property
    def rule(self) -> StoppingRule:
        """By which eigenvalues were smoothed and, where the method has a rule, judged."""
        return stopping_rule(self.settings)

    @cached_property
    def settings(self) -> SearchConfig:
        """The configuration; what an older version did not record has its default."""
        return SearchConfig.from_recorded(self.config)

    @property
    def method(self) -> MethodEntry:
        """How was searched."""
        name = self.config.get("method", "darts")
        if name not in METHODS:
            raise unknown_choice("method", name, METHODS)
        return METHODS[name].stage(self.config.get("stage"))

    @property
    def measure(self) -> Measure:
        """By what architectures are compared."""
        return measure_of(self.space)

    @property
    def learns_alpha(self) -> bool:
        """Whether the method learns alpha, rather than drawing architectures."""
        return self.metrics[-1].get("alpha") is not None

    @property
    def is_tempered(self) -> bool:
        """Whether alpha is divided by a temperature before it becomes mixing weights."""
        form = self.config.get("temperature_form", "softmax")
        return form == "softmax" and self.metrics[-1].get("temperature") is not None

    def values(self, key: str) -> Values:
        """A quantity of every epoch; `skip_normal`, `skip_reduce` and `skip_cell` count skip connections.

        `activation_tanh` and so on count the nodes of a recurrent cell that have it.

        `spread_normal`, `entropy_normal`, `skip_share_normal` and so on are `MEASURES` of a cell's operation strengths.

        `local_average` is centred on the epoch, unlike the one in metrics.jsonl, which is the newest that was known.
        """
        if key == "local_average":
            return local_average(self.values("dominant_eigenvalue"), self.rule.reach)
        measured, _, cell_type = key.rpartition("_")
        if measured not in MEASURES:
            return values_of(self.metrics, key)
        if cell_type not in self.space.cell_types:
            return [None] * len(self.metrics)
        operations = self.space.operations(cell_type)
        values = [MEASURES[measured](strengths, operations) for strengths in self.strengths(cell_type)]
        return [value if math.isfinite(value) else None for value in values]

    def strengths(self, cell_type: str) -> list[list[np.ndarray]]:
        """The mixing weights that alpha stood for, float64[candidates]: of every epoch and edge.

        With the epoch's temperature, if there was one. NaN where alpha is missing.

        Raises:
          InputError: what was recorded does not fit the space.
        """
        names, weights = self.space.operations(cell_type), self.method.mixing.weights
        return self._weights(
            "alpha", cell_type, lambda alpha, temperature: operation_strengths(alpha, names, temperature, weights)
        )

    def edge_strengths(self, cell_type: str) -> list[np.ndarray]:
        """As `strengths`, of edges: for every epoch float64[edges]."""
        mixing = self.method.mixing
        return self._weights(
            f"alpha_{mixing.edges}",
            cell_type,
            lambda alpha, temperature: edge_strengths(self.space, alpha, temperature, mixing),
        )

    def _weights(self, name: str, cell_type: str, weights: Callable[[Any, float], Any]) -> list[Any]:
        tempered = self.is_tempered
        try:
            return [
                weights((entry.get(name) or {}).get(cell_type), (entry.get("temperature") or 1.0) if tempered else 1.0)
                for entry in self.metrics
            ]
        except (ValueError, IndexError, TypeError) as error:
            message = f"metrics: {name}[{cell_type!r}] does not fit space {self.space.name!r}: {error}"
            raise InputError(message) from error

    def genotype_epochs(self) -> list[int]:
        """The epochs after which alpha stood for `genotype`, up to the order of a node's edges."""
        wanted = self.genotype.canonical()
        found = {entry["epoch"]: entry.get("genotype") for entry in self.metrics}
        return [epoch for epoch, value in found.items() if value and genotype_from_json(value).canonical() == wanted]


def values_of(metrics: Sequence[Mapping[str, Any]], key: str) -> Values:
    """A quantity of every epoch in metrics.jsonl: one there, one of `COUNT_QUANTITIES`, or `benchmark/DATASET/NAME`."""
    if is_count(key):
        return count_of(metrics, key)
    if key.startswith("benchmark/"):
        _, data_set, quantity = key.split("/")
        return [((entry.get("benchmark") or {}).get(data_set) or {}).get(quantity) for entry in metrics]
    return [entry.get(key) for entry in metrics]


def read_run(folder: Path) -> RunRecord:
    """Reads config.json, metrics.jsonl and, if the run has ended, genotype.json.

    Raises:
      InputError: not the folder of a run, no epoch has ended yet, or a file cannot be read; naming the file.
    """
    config = read_config(folder)
    metrics = read_epochs(folder)
    finished = (folder / GENOTYPE_FILE).exists()
    genotype = read_genotype(folder) if finished else genotype_from_json(metrics[-1].get("genotype") or {})
    space = _space(config)
    if genotype.cell_types != space.cell_types:
        raise InputError(f"run_dir: the genotype of {str(folder)!r} is not one of its space {space.name!r}")
    record = RunRecord(
        name=folder.resolve().name,
        config=config,
        space=space,
        epochs=tuple(entry["epoch"] for entry in metrics),
        metrics=tuple(metrics),
        genotype=genotype,
        finished=finished,
        events=tuple(read_events(folder)),
        diagnostics=read_diagnostics(folder, space) if finished else None,
    )
    epoch = (record.diagnostics or {}).get("epoch", record.epochs[-1])
    if epoch not in record.epochs:
        raise InputError(f"run_dir: {str(folder / DIAGNOSTICS_FILE)!r} names epoch {epoch}, which {METRICS_FILE} lacks")
    return record


def read_genotype(folder: Path) -> Architecture:
    """The one that a run has returned. Raises InputError if it cannot be read."""
    return genotype_from_json(forms.read_json(folder / GENOTYPE_FILE, forms.genotype))


def member_folder(folder: Path, member: int) -> Path:
    """Where a member of the population in `folder` has its files."""
    return folder / f"member_{member}"


def is_population(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of several searches in one run."""
    return "members" in config


def is_staged(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a search in stages, and not of one of them."""
    return "stages" in config and "stage" not in config


def result_folder(folder: Path) -> Path:
    """Of a search its own folder.

    Of a population that of the member whose genotype is returned, or the first's; of a search in stages the last one's.
    """
    config = read_config(folder)
    if is_staged(config):
        return folder / config["stages"][-1]
    if not is_population(config):
        return folder
    found = read_choice(folder, config) or {}
    return member_folder(folder, found.get("member", 0))


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json as it is.

    Raises:
      InputError: not the folder of a run, or the file cannot be read.
    """
    if not is_folder(folder):
        raise InputError(f"run_dir: there is no folder {str(folder)!r}; name the folder that a run wrote")
    if not is_file(folder / CONFIG_FILE):
        raise InputError(f"run_dir: {str(folder)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    path = folder / CONFIG_FILE
    command = run_command(forms.read_json(path, FACTS))
    return forms.read_json(path, FACTS | CONFIGS[command])


def read_epochs(folder: Path, form: Mapping[str, Any] = EPOCH) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl: at least one, each with its epoch, in order.

    Raises:
      InputError: no epoch has ended yet, or the file cannot be read.
    """
    path = folder / METRICS_FILE
    lines = raw_lines(path)
    if not lines:
        raise InputError(f"run_dir: {str(folder)!r} has no finished epoch yet; a report needs one")
    entries = [forms.parse_json(line, form, path, where=f"line {number}") for number, line in enumerate(lines, start=1)]
    epochs = [entry["epoch"] for entry in entries]
    for number, (before, epoch) in enumerate(zip([-1, *epochs], epochs, strict=False), start=1):
        if epoch <= before and form is EPOCH:
            raise InputError(f"run_dir: line {number} of {str(path)!r}: epoch {epoch} follows {before}")
    return entries


def read_diagnostics(folder: Path, space: CellSpace) -> Mapping[str, Any] | None:
    """None for a run of an older version, which has none. Fields may be missing."""
    path = folder / DIAGNOSTICS_FILE
    return forms.read_json(path, forms.loose(diagnostics_form(space))) if path.exists() else None


def read_choice(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The diagnostics.json of a population with this config.json: which member was chosen, and by what."""
    path, members = folder / DIAGNOSTICS_FILE, len(config["members"])
    if not path.exists():
        return None
    found = forms.read_json(path, choice_form(_space(config)))
    named = [entry["member"] for entry in found["candidates"]]
    if found["member"] not in named or sorted(named) != list(range(members)):
        raise InputError(f"run_dir: {str(path)!r}: candidates must name each of {members} members once; got {named}")
    return found


def complete_diagnostics(run: RunRecord) -> Mapping[str, Any] | None:
    """What is known about the end of a search, with every field. Raises InputError if one is missing."""
    if not run.diagnostics:
        return None
    form = diagnostics_form(run.space)
    form["operations"] = dict.fromkeys(form["operations"], dict.fromkeys(run.genotype.cell_types, int))
    try:
        return forms.fit(run.diagnostics, form, "")
    except InputError as error:
        path = str(Path(run.name) / DIAGNOSTICS_FILE)
        raise InputError(f"run_dir: {path!r} is not what jaxdarts writes: {error}") from error


def _space(config: Mapping[str, Any]) -> CellSpace:
    """As recorded in the run, since a space's file may be gone or changed; else by its name."""
    recorded = config.get("search_space")
    return load_space(str(config.get("space"))) if recorded is None else space_from_json(recorded)


def returned_value(run: RunRecord, key: str) -> float | None:
    """What a benchmark's table says about the genotype returned; `key` is `benchmark/DATASET/QUANTITY`."""
    at = run.genotype_epochs()
    return run.values(key)[run.epochs.index(at[-1])] if at else None
