"""What do the files of an evaluation say?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.forms import NUMBER, Null
from jaxdarts.plans.evaluate import RESULT_FILE
from jaxdarts.reports.run_record import Values, read_config, read_epochs
from jaxdarts.runs.store import CONFIG_FILE
from jaxdarts.spaces import Architecture, genotype_from_json

RESULT = {"test_error?": NUMBER, "best_test_error?": NUMBER, "best_epoch?": Null(int)}


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation as its folder tells it, finished or not."""

    name: str
    config: Mapping[str, Any]
    genotype: Architecture
    epochs: tuple[int, ...]  # at least one
    metrics: tuple[Mapping[str, Any], ...]  # one an epoch
    finished: bool

    def values(self, key: str) -> Values:
        """A quantity of every epoch; `train_error`, `valid_error` and `test_error` are what the accuracies leave."""
        if key.endswith("_error"):
            accuracies = self.values(key.removesuffix("error") + "accuracy")
            return [None if value is None else 1 - value for value in accuracies]
        return [entry.get(key) for entry in self.metrics]


def read_evaluation(folder: Path) -> EvaluationRecord:
    """Reads config.json and metrics.jsonl.

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
    )


def recorded_genotype(folder: Path) -> Architecture:
    """The genotype that an evaluation began with, whatever has become of the file that it was read from."""
    recorded = read_config(folder).get("architecture")
    if recorded is None:
        raise InputError(f"run_dir: {str(folder / CONFIG_FILE)!r} holds no architecture, so no evaluation wrote it")
    return genotype_from_json(recorded)


def best_epoch(metrics: Sequence[Mapping[str, Any]]) -> int | None:
    """The epoch with the best validation accuracy, the first of equals; None if nothing was held out."""
    accuracies = [(entry["epoch"], entry.get("valid_accuracy")) for entry in metrics]
    known = [(accuracy, -epoch) for epoch, accuracy in accuracies if accuracy is not None]
    return -max(known)[1] if known else None
