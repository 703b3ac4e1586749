"""Which searches does a population consist of?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.validity import check_config

MEMBER_FIELDS = ("seed", "l2", "drop_path", "cutout")  # in which members may differ


def member_configs(config: SearchConfig) -> tuple[SearchConfig, ...]:
    """A configuration for each member, with which it could be searched alone; of one search its own.

    Members differ in their seeds and, in an R-DARTS, in the strength of the regularisation. They share the data: what
    is random about it follows from the population's seed.

    Raises:
      InputError: `strengths` cannot be read.
    """
    from jaxdarts.methods import REGULARISATIONS

    regularisation = REGULARISATIONS.get(config.method)
    if regularisation is None and config.population in (None, 1):
        return (config,)
    alone = dataclasses.replace(
        config,
        population=None,
        strengths=None,
        data_seed=config.seed if config.data_seed is None else config.data_seed,
        method=config.method if regularisation is None else "darts",
    )
    if regularisation is None:
        return tuple(dataclasses.replace(alone, seed=config.seed + i) for i in range(config.population or 1))
    strengths = regularisation.strengths if config.strengths is None else _parse(config.strengths)
    changes: list[dict[str, Any]] = [{regularisation.field: strength} for strength in strengths]
    if regularisation.with_cutout:
        changes = [{**change, "cutout": strength > 0} for change, strength in zip(changes, strengths, strict=True)]
    return tuple(dataclasses.replace(alone, seed=config.seed + i, **change) for i, change in enumerate(changes))


def describe_member(config: SearchConfig, members: tuple[SearchConfig, ...]) -> str:
    """What sets a member apart from the others, for people: `seed 2, l2 0.0027`."""
    varied = [name for name in MEMBER_FIELDS if len({getattr(member, name) for member in members}) > 1]
    return ", ".join(f"{name} {getattr(config, name)}" for name in varied)


def describe_fields(config: SearchConfig) -> dict[str, float | bool]:
    """The fields in which members may differ, with a member's values, for the population's records."""
    return {name: getattr(config, name) for name in MEMBER_FIELDS}


def check_population(config: SearchConfig) -> None:
    """Checks what only concerns populations, and the configuration of every member.

    Raises:
      InputError: naming the field, its value and what is allowed.
    """
    from jaxdarts.methods import REGULARISATIONS

    if config.strengths is not None and config.method not in REGULARISATIONS:
        choices = " and ".join(sorted(REGULARISATIONS))
        raise InputError(f"strengths is for the methods {choices}; got {config.strengths!r} with {config.method}")
    members = member_configs(config)
    if config.population not in (None, len(members)):
        raise InputError(f"population must be {len(members)}, one for each of strengths; got {config.population}")
    if len(members) == 1:
        return
    if config.devices > 1:
        raise InputError(
            f"devices must be 1 for a population, whose members share all devices there are; got {config.devices}"
        )
    if members[-1].seed >= 2**32:
        raise InputError(
            f"seed must be at most {2**32 - len(members)} for a population of {len(members)}; got {config.seed}"
        )
    for member in members:
        try:
            check_config(member)
        except InputError as error:
            message = f"strengths: {error}" if config.method in REGULARISATIONS else str(error)
            raise InputError(message) from None


def _parse(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) < 2 or len(set(found)) < len(found) or not all(math.isfinite(value) for value in found):
        raise InputError(f"strengths must be two or more different numbers with commas between them; got {text!r}")
    return found
