"""What do the files of a run say?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.methods import StoppingRule, local_average
from jaxdarts.runs.checks import field_names
from jaxdarts.runs.folder import CONFIG_FILE
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.search.config import SearchConfig, stopping_rule
from jaxdarts.runs.search.diagnostics_form import check_diagnostics
from jaxdarts.runs.search.events import Event, read_events
from jaxdarts.spaces import (
    Architecture,
    CellSpace,
    genotype_from_json,
    load_genotype,
    load_space,
    space_from_json,
)
from jaxdarts.spaces.files import GENOTYPE_FILE

METRICS_FILE, DIAGNOSTICS_FILE, REPORT_FILE = "metrics.jsonl", "diagnostics.json", "report.html"

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

    @property
    def settings(self) -> SearchConfig:
        """The configuration; what an older version did not record has its default."""
        return SearchConfig(**{name: self.config[name] for name in field_names(SearchConfig) if name in self.config})

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

        `spread_normal` and so on are the mean over edges of the standard deviation of an edge's operation strengths.

        `local_average` is centred on the epoch, unlike the one in metrics.jsonl, which is the newest that was known.
        """
        if key == "local_average":
            return local_average(self.values("dominant_eigenvalue"), self.rule.reach)
        if key.startswith("spread_"):
            spreads = [
                np.mean([np.std(edge) for edge in edges]) for edges in self.strengths(key.removeprefix("spread_"))
            ]
            return [float(spread) if np.isfinite(spread) else None for spread in spreads]
        return values_of(self.metrics, key)

    def strengths(self, cell_type: str) -> list[list[np.ndarray]]:
        """The softmax of alpha, divided by the epoch's temperature: for every epoch and edge, float64[candidates].

        NaN where alpha is missing.

        Raises:
          InputError: what was recorded does not fit the space.
        """
        counts = [len(operations) for operations in self.space.operations(cell_type)]
        try:
            return [
                operation_strengths(
                    (entry.get("alpha") or {}).get(cell_type),
                    counts,
                    (entry.get("temperature") or 1.0) if self.is_tempered else 1.0,
                )
                for entry in self.metrics
            ]
        except (ValueError, IndexError, TypeError) as error:
            message = f"metrics: alpha[{cell_type!r}] does not fit space {self.space.name!r}: {error}"
            raise InputError(message) from error

    def genotype_epochs(self) -> list[int]:
        """The epochs after which alpha stood for `genotype`, up to the order of a node's edges."""
        wanted = self.genotype.canonical()
        found = {entry["epoch"]: entry.get("genotype") for entry in self.metrics}
        return [epoch for epoch, value in found.items() if value and genotype_from_json(value).canonical() == wanted]


def values_of(metrics: Sequence[Mapping[str, Any]], key: str) -> Values:
    """A quantity of every epoch in metrics.jsonl: one there, or `skip_CELL`, or `benchmark/DATASET/QUANTITY`."""
    if key.startswith("skip_"):
        return [entry.get("skip_connections", {}).get(key.removeprefix("skip_")) for entry in metrics]
    if key.startswith("benchmark/"):
        _, data_set, quantity = key.split("/")
        return [((entry.get("benchmark") or {}).get(data_set) or {}).get(quantity) for entry in metrics]
    return [entry.get(key) for entry in metrics]


def operation_strengths(
    alpha: Sequence[Sequence[float | None]] | None, candidates: Sequence[int], temperature: float = 1.0
) -> list[np.ndarray]:
    """The softmax of alpha / temperature on every edge: float64[number of candidates]; NaN where alpha is missing.

    Args:
      alpha: [edges, operations], rows padded to the longest list of candidates.
      candidates: how many entries of each row belong to a candidate; the others are left out of the softmax.
      temperature: positive.
    """
    strengths = []
    for edge, count in enumerate(candidates):
        row = np.array(alpha[edge][:count] if alpha else [math.nan] * count, dtype=np.float64) / temperature
        exponentials = np.exp(row - row.max())
        strengths.append(exponentials / exponentials.sum())
    return strengths


def read_run(folder: Path) -> RunRecord:
    """Reads config.json, metrics.jsonl and, if the run has ended, genotype.json.

    Raises:
      InputError: not the folder of a run, no epoch has ended yet, or a file cannot be read; naming the file.
    """
    config = read_config(folder)
    metrics = read_epochs(folder)
    finished = (folder / GENOTYPE_FILE).exists()
    return RunRecord(
        name=folder.resolve().name,
        config=config,
        space=_space(config),
        epochs=tuple(entry["epoch"] for entry in metrics),
        metrics=tuple(metrics),
        genotype=load_genotype(folder / GENOTYPE_FILE)
        if finished
        else genotype_from_json(metrics[-1].get("genotype") or {}),
        finished=finished,
        events=tuple(read_events(folder)),
        diagnostics=read_diagnostics(folder) if finished else None,
    )


def member_folder(folder: Path, member: int) -> Path:
    """Where a member of the population in `folder` has its files."""
    return folder / f"member_{member}"


def is_population(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of several searches in one run."""
    return "members" in config


def result_folder(folder: Path) -> Path:
    """Of a search its own folder; of a population that of the member whose genotype is returned, or the first's."""
    if not is_population(read_config(folder)):
        return folder
    return member_folder(folder, (read_diagnostics(folder) or {}).get("member", 0))


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.json as it is.

    Raises:
      InputError: not the folder of a run, or the file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"run_dir: there is no folder {str(folder)!r}; name the folder that a run wrote")
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"run_dir: {str(folder)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"run_dir: cannot read {str(folder / CONFIG_FILE)!r}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"run_dir: {str(folder / CONFIG_FILE)!r} does not hold a configuration")
    return config


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl: at least one, each with its epoch.

    Raises:
      InputError: no epoch has ended yet, or the file cannot be read.
    """
    metrics = read_metrics(folder / METRICS_FILE)
    if not metrics:
        raise InputError(f"run_dir: {str(folder)!r} has no finished epoch yet; a report needs one")
    for number, entry in enumerate(metrics, start=1):
        if not isinstance(entry.get("epoch"), int):
            raise InputError(f"metrics: line {number} of {str(folder / METRICS_FILE)!r} names no epoch")
    return metrics


def read_diagnostics(folder: Path) -> Mapping[str, Any] | None:
    """None for a run of an older version, which has none. Fields may be missing."""
    path = folder / DIAGNOSTICS_FILE
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"run_dir: cannot read {str(path)!r}: {error}") from error
    return check_diagnostics(value, path)


def _space(config: Mapping[str, Any]) -> CellSpace:
    """As recorded in the run, since a space's file may be gone or changed; else by its name."""
    recorded = config.get("search_space")
    if recorded is None:
        return load_space(str(config.get("space")))
    try:
        return space_from_json(recorded)
    except (InputError, TypeError) as error:
        raise InputError(f"run_dir: search_space in {CONFIG_FILE} is not a search space: {error}") from error
