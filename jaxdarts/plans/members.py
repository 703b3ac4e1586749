"""In what do several searches of one run differ?"""

from __future__ import annotations

from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS

MEMBER_FIELDS = ("seed", "l2", "drop_path", "cutout")  # in which members may differ


def member_settings(settings: Any) -> tuple[Any, ...]:
    """The settings of each search, with which it could be run alone; of one search its own.

    Members differ in their seeds and, in an R-DARTS, in the strength of the regularisation. They share the data: what
    is random about it follows from the population's seed.

    Raises:
      InputError: the settings of the members cannot be read.
    """
    members = METHODS[settings.method].members
    if members is None and settings.population in (None, 1):
        return (settings,)
    data_seed = settings.seed if settings.data_seed is None else settings.data_seed
    alone = {"population": None, "data_seed": data_seed, "method": settings.method if members is None else "darts"}
    changes = [{}] * (settings.population or 1) if members is None else members(settings)
    if settings.seed + len(changes) > 2**32:
        raise InputError(
            f"seed must be at most {2**32 - len(changes)} for a population of {len(changes)}; got {settings.seed}"
        )
    kind = type(settings)
    return tuple(
        kind(**kind.used(settings.given, {**alone, "seed": settings.seed + i, **change}))
        for i, change in enumerate(changes)
    )


def check_members(settings: Any) -> None:
    """Checks what only concerns several searches.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    members = member_settings(settings)
    if settings.population not in (None, len(members)):
        raise InputError(f"population must be {len(members)}, one for each of strengths; got {settings.population}")
    if len(members) == 1:
        return
    if METHODS[settings.method].in_stages:
        raise InputError(
            f"population must be 1 for method {settings.method!r}, which searches in stages; got {len(members)}; run "
            "them as a sweep: python -m jaxdarts.sweep"
        )
    if settings.devices > 1:
        raise InputError(
            f"devices must be 1 for a population, whose members share all devices there are; got {settings.devices}"
        )
    if getattr(settings, "early_stopping", "none") == "go-back":
        raise InputError(
            f"population must be 1 where a search may go back ({settings.method}), since members take their steps "
            f"together; got {len(members)}; run them as a sweep: python -m jaxdarts.sweep"
        )


def describe_fields(settings: Any) -> dict[str, float | bool]:
    """The fields in which members may differ, with a member's values; text has fewer."""
    return {name: getattr(settings, name) for name in MEMBER_FIELDS if hasattr(settings, name)}
