"""What regularises alpha in a run, and how strongly in an epoch?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jaxdarts.errors import InputError

if TYPE_CHECKING:
    from jaxdarts.runs.search.config import SearchConfig

ALPHALESS_METHODS = ("random", "random-ws")  # those that draw architectures
TEMPERATURE_FORMS = ("softmax", "update")


class BetaSchedule(NamedTuple):
    """Beta-Decay's weight in epoch e of E, counted from 0: `weight * (start + (end - start) * e / E)`."""

    start: float
    end: float
    weight: float | None = None  # None: as the configuration or the method says


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
BETA_DARTS_WEIGHT = 50.0

TEMPERATURE_SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "exponential": lambda start, end, part: start ** (1 - part) * end**part,
    "linear": lambda start, end, part: start + (end - start) * part,
    "constant": lambda start, end, part: start,
}
"""(temperature in the first epoch, in the last, part of the way between them) -> temperature"""


def greatest_beta_weight(config: SearchConfig) -> float | None:
    """Beta-Decay's greatest weight; None: there is no Beta-Decay."""
    given = BETA_SCHEDULES[config.beta_schedule].weight
    given = config.beta_weight if given is None else given
    return BETA_DARTS_WEIGHT if given is None and config.method == "beta-darts" else given


def beta_weight(config: SearchConfig, epoch: int) -> float | None:
    """Beta-Decay's weight in an epoch, counted from 0; None: there is no Beta-Decay."""
    greatest, schedule = greatest_beta_weight(config), BETA_SCHEDULES[config.beta_schedule]
    if greatest is None:
        return None
    return greatest * (schedule.start + (schedule.end - schedule.start) * epoch / config.epochs)


def temperature(config: SearchConfig, epoch: int) -> float | None:
    """The temperature in an epoch, counted from 0: the end's in the last one. None: it is 1 all the time."""
    start = config.temperature_start
    end = start if config.temperature_end is None else config.temperature_end
    if start == end == 1:
        return None
    return TEMPERATURE_SCHEDULES[config.temperature_schedule](start, end, epoch / max(config.epochs - 1, 1))


def describe_regularisers(config: SearchConfig) -> dict[str, str]:
    """What is on of Beta-Decay and temperature, by name."""
    found = {}
    weight = greatest_beta_weight(config)
    if weight is not None:
        found["Beta-Decay"] = f"{config.beta_variant}, {config.beta_schedule}, weight up to {weight:g}"
    if temperature(config, 0) is not None:
        first, last = (temperature(config, epoch) or 1.0 for epoch in (0, config.epochs - 1))
        found["Temperature"] = f"{config.temperature_schedule}, {first:g} to {last:g}, of {config.temperature_form}"
    return found


def check_regularisers(config: SearchConfig) -> None:
    """Refuses settings that would have no effect, or contradict each other.

    Raises:
      InputError: naming the setting.
    """
    defaults = {
        "alpha_weight_decay": 0.0,
        "beta_weight": None,
        "beta_schedule": "linear",
        "beta_variant": "edge",
        "temperature_start": 1.0,
        "temperature_end": None,
        "temperature_schedule": "exponential",
        "temperature_form": "softmax",
    }
    changed = [name for name, value in defaults.items() if getattr(config, name) != value]
    if changed and config.method in ALPHALESS_METHODS:
        raise InputError(
            f"{changed[0]} {getattr(config, changed[0])!r} cannot be used by method {config.method!r}, which learns no "
            "alpha; choose another method, such as beta-darts or darts"
        )
    named = BETA_SCHEDULES[config.beta_schedule].weight
    if named is not None and config.beta_weight not in (None, named):
        raise InputError(
            f"beta_weight must be {named:g} or not given with beta_schedule {config.beta_schedule!r}; "
            f"got {config.beta_weight}; other weights: beta_schedule linear, constant or decreasing"
        )
    if greatest_beta_weight(config) is None:
        _check_unchanged(config, changed, ("beta_schedule", "beta_variant"), "needs beta_weight or method beta-darts")
    _check_temperature(config, changed)


def _check_temperature(config: SearchConfig, changed: list[str]) -> None:
    ends = [config.temperature_start, config.temperature_end or config.temperature_start]
    if config.temperature_schedule == "constant" and ends[0] != ends[1]:
        raise InputError(
            f"temperature_end must be temperature_start ({ends[0]}) or None with temperature_schedule 'constant'; "
            f"got {ends[1]}"
        )
    if config.temperature_form == "update" and min(ends) < 1:
        name = "temperature_start" if ends[0] < 1 else "temperature_end"
        raise InputError(
            f"{name} must be at least 1 with temperature_form 'update', which divides alpha in every step; "
            f"got {getattr(config, name)}"
        )
    if temperature(config, 0) is None:
        _check_unchanged(
            config,
            changed,
            ("temperature_schedule", "temperature_form"),
            "needs a temperature_start or temperature_end other than 1",
        )


def _check_unchanged(config: SearchConfig, changed: list[str], names: tuple[str, ...], needs: str) -> None:
    for name in names:
        if name in changed:
            raise InputError(f"{name} {getattr(config, name)!r} {needs}")
