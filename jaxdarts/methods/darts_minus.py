"""DARTS- (Chu et al. 2021): an auxiliary skip connection on every edge, which fades over the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxdarts.checks import at_least
from jaxdarts.methods.base import CLASSIFICATION_ONLY, Ingredients, Method, MethodEntry
from jaxdarts.methods.parts import gradient_method
from jaxdarts.settings import Group

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda part: 1 - part,
    "cosine": lambda part: (1 + math.cos(math.pi * part)) / 2,
    "slow_cosine": lambda part: math.cos(math.pi * part / 2),
    "constant": lambda part: 1.0,
}
"""(epoch e of E, counted from 0, as e / E) -> part of the coefficient at the start"""


@dataclass(frozen=True)
class DartsMinusSettings(Group):
    """DARTS-"""

    auxiliary_skip_start: float = 1.0
    """Coefficient of the auxiliary skip connections in the first epoch."""
    auxiliary_skip_schedule: str = "linear"
    """How it goes towards 0, which it would reach after the last epoch: linear, cosine, slow_cosine (which falls late),
    or constant."""

    checks: ClassVar = at_least(0, "auxiliary_skip_start")

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The schedules."""
        return {"auxiliary_skip_schedule": SCHEDULES}


def build_darts_minus(ingredients: Ingredients) -> Method:
    """DARTS in a network with auxiliary skip connections; their coefficient is the value "auxiliary_skip".

    It is the same in the steps on alpha and w, where the validation part is measured and in the curvature. A genotype
    has none of them.
    """
    # Differs from the authors' code, whose steps on alpha go through their images without replacement: here these are
    # drawn as in every other method.
    settings = ingredients.settings
    start, form = settings.auxiliary_skip_start, SCHEDULES[settings.auxiliary_skip_schedule]
    return gradient_method(
        ingredients,
        values=("auxiliary_skip",),
        schedules={"auxiliary_skip": lambda epoch: start * form(epoch / settings.epochs)},
    )


DARTS_MINUS = MethodEntry(
    build_darts_minus,
    "the strongest operations of alpha, which learned beside auxiliary skip connections that fade",
    settings=(DartsMinusSettings,),
    defaults={"": {"hypergradient": "first_order"}},
    draws={"auxiliary_skip": "Coefficient of the auxiliary skip connections"},
    network=lambda settings: {"auxiliary_skip": True},
    tasks=CLASSIFICATION_ONLY,
)
