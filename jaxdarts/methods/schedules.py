"""What changes from epoch to epoch, and how? Schedules are functions of the epoch, counted from 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxdarts.methods.base import Schedule


def cosine(start: float, end: float, epochs: int) -> Schedule:
    """From `start` in the first epoch towards `end`: end + (start - end) (1 + cos(pi e / E)) / 2."""
    return lambda epoch: end + (start - end) * ((1 + math.cos(math.pi * epoch / epochs)) / 2)


def ramp(most: float, last: int) -> Schedule:
    """From 0 in the first epoch to `most` in epoch `last`, and on with that slope: most e / last."""
    return lambda epoch: most * epoch / last


class BetaSchedule(NamedTuple):
    """Beta-Decay's weight in epoch e of E, counted from 0: `weight * (start + (end - start) * e / E)`."""

    start: float
    end: float
    weight: float | None = None  # None: as the settings or the method say


# The named ones are those that Ye et al. 2022 compare. Their code has e / 100 and 100 epochs.
BETA_SCHEDULES: dict[str, BetaSchedule] = {
    "linear": BetaSchedule(0, 1),
    "constant": BetaSchedule(1, 1),
    "decreasing": BetaSchedule(1, 0),
    "0-15": BetaSchedule(0, 1, 15.0),
    "0-25": BetaSchedule(0, 1, 25.0),
    "0-50": BetaSchedule(0, 1, 50.0),
    "0-100": BetaSchedule(0, 1, 100.0),
    "constant-15": BetaSchedule(1, 1, 15.0),
    "50-0": BetaSchedule(1, 0, 50.0),
}

TEMPERATURE_SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "exponential": lambda start, end, part: start ** (1 - part) * end**part,
    "linear": lambda start, end, part: start + (end - start) * part,
    "constant": lambda start, end, part: start,
}
"""(temperature in the first epoch, in the last, part of the way between them) -> temperature"""
