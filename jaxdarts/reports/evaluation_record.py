"""What do the files of an evaluation say?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.forms import NUMBER, Null
from jaxdarts.plans.evaluate import RESULT_FILE
from jaxdarts.reports.event_record import read_events
from jaxdarts.reports.measure import RESULTS, Measure, measure_of
from jaxdarts.reports.run_record import Values, read_config, read_epochs
from jaxdarts.runs.config_json import CONFIG_FILE
from jaxdarts.runs.events import Event
from jaxdarts.spaces import Architecture, genotype_from_json

RESULT = {
    **{f"{prefix}_{name}?": NUMBER for name in RESULTS for prefix in ("test", "best_test")},
    "best_epoch?": Null(int),
}


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation as its folder tells it, finished or not."""

    name: str
    config: Mapping[str, Any]
    genotype: Architecture
    epochs: tuple[int, ...]  # at least one
    metrics: tuple[Mapping[str, Any], ...]  # one an epoch
    finished: bool
    events: tuple[Event, ...] = ()  # what was decided on the way

    @property
    def measure(self) -> Measure:
        """What papers report, and by what epochs are compared."""
        return measure_of(self.genotype)

    def values(self, key: str) -> Values:
        """A quantity of every epoch; `train_error`, `valid_error` and `test_error` are what the accuracies leave."""
        part, _, name = key.partition("_")
        if name == self.measure.result:
            return [self.measure.result_of(entry, part) for entry in self.metrics]
        return [entry.get(key) for entry in self.metrics]

    @property
    def best_epoch(self) -> int | None:
        """The one with the best objective on the held-out part, the first of equals; None: nothing was held out."""
        found = zip(self.epochs, self.values(f"valid_{self.measure.objective}"), strict=True)
        known = {epoch: value for epoch, value in found if value is not None}
        return self.measure.best(known, key=lambda epoch: known[epoch]) if known else None


def read_evaluation(folder: Path) -> EvaluationRecord:
    """Reads config.json, metrics.jsonl and, if there is one, events.json.

    Raises:
      InputError: not the folder of a run, no epoch has ended yet, or a file cannot be read; naming the file.
    """
    config = read_config(folder)
    metrics = read_epochs(folder)
    return EvaluationRecord(
        name=folder.resolve().name,
        config=config,
        genotype=recorded_genotype(folder),
        epochs=tuple(entry["epoch"] for entry in metrics),
        metrics=tuple(metrics),
        finished=(folder / RESULT_FILE).exists(),
        events=tuple(read_events(folder)),
    )


def recorded_genotype(folder: Path) -> Architecture:
    """The genotype that an evaluation began with, whatever has become of the file that it was read from."""
    recorded = read_config(folder).get("architecture")
    if recorded is None:
        raise InputError(f"run_dir: {str(folder / CONFIG_FILE)!r} holds no architecture, so no evaluation wrote it")
    return genotype_from_json(recorded)
