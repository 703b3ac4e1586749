"""What is said where a loss is not finite: in which epoch, of which experiment, and what is there to go on from?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxdarts.errors import RunError
from jaxdarts.plans.base import Built, Experiment, Stage


class NotFinite(RunError):
    """A loss, or what is watched beside it, was not finite."""

    def __init__(self, epoch: int, message: str) -> None:
        super().__init__(message)
        self.epoch = epoch  # counted from 0


def not_finite(stage: Stage, built: Built, totals: Sequence[Any], epoch: int, step: int, kept: str) -> NotFinite:
    """The error for a stage in which something is not finite.

    Args:
      stage: that stopped.
      built: its parts.
      totals: over the epoch so far, of each experiment.
      epoch: counted from 0.
      step: steps done.
      kept: what is there to go on from.
    """
    return NotFinite(
        epoch,
        f"the loss or its {built.watched}{_where(built.experiments, totals)} is not finite "
        f"in epoch {epoch} (counted from 0), step {step}"
        f"{'' if stage.is_kept else f' of {stage.name}'}; "
        f"{kept}; a smaller {built.rates} may help",
    )


def _where(experiments: Sequence[Experiment], totals: Sequence[Any]) -> str:
    """Which of several experiments these totals are not finite in, by the settings in which they differ."""
    if len(experiments) == 1:
        return ""
    every = [experiment.settings for experiment in experiments]
    varied = [name for name in every[0] if len({settings[name] for settings in every}) > 1]
    texts = []
    for index, (settings, own) in enumerate(zip(every, totals, strict=True)):
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(own))):
            own_values = ", ".join(f"{name} {settings[name]}" for name in varied)
            texts.append(f"member {index} ({own_values})")
    return f" in {' and '.join(texts)}" if texts else ""
