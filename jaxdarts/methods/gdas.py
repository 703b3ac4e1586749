"""GDAS (Dong and Yang 2019): every step samples one operation an edge, and alpha learns through the sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from jaxdarts.checks import positive
from jaxdarts.methods.base import Ingredients, Method, MethodEntry
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha, Relaxation, tempered
from jaxdarts.methods.sampling import Draw, drawn_as, one_hot_largest, soft_sample, standard_gumbel
from jaxdarts.methods.schedules import TEMPERATURE_SCHEDULES
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group
from jaxdarts.spaces import CellSpace

TEMPERATURE = "gdas_temperature"  # the scheduled value


@dataclass(frozen=True)
class GdasSettings(Group):
    """GDAS"""

    gdas_temperature_start: float = 10.0
    """Temperature of the samples in the first epoch."""
    gdas_temperature_end: float = 0.1
    """Temperature in the last epoch; it goes there linearly."""
    gdas_gradient: str = "auto"
    """How alpha learns through a sample: published (an operation that is not sampled counts as one whose output is 1),
    selected (only the sampled operation's weight has a gradient), dense (all operations are computed), or auto:
    what the authors' code does in the space, published in NAS-Bench-201 and selected in spaces of DARTS."""

    checks: ClassVar = positive("gdas_temperature_start", "gdas_temperature_end")

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The gradients of a sample."""
        return {"gdas_gradient": ("auto", *GRADIENTS)}


def straight_through(soft: Mapping[str, jax.Array]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The largest entry of an edge as one-hot weights with the gradient of `soft`; and the same without a gradient."""
    samples = one_hot_largest(soft)
    # p - p first: it is exactly 0, where 1 - p + p would be rounded.
    return {cell: samples[cell] + (value - jax.lax.stop_gradient(value)) for cell, value in soft.items()}, samples


def _published(weights: dict[str, jax.Array], samples: dict[str, jax.Array]) -> Weights:
    """The sampled operation times its weight, plus the bare weights of the others, which are 0.

    By that an operation that is not sampled learns like one whose output is 1 at every channel and position.
    """
    others = {cell: (weights[cell] * (1 - samples[cell])).sum(axis=-1) for cell in weights}
    return _selected(weights, samples)._replace(constants=others)


def _selected(weights: dict[str, jax.Array], samples: dict[str, jax.Array]) -> Weights:
    """The sampled operation times its weight."""
    return Weights({cell: weights[cell] * samples[cell] for cell in weights})


GRADIENTS: dict[str, Callable[[dict[str, jax.Array], dict[str, jax.Array]], Weights]] = {
    "published": _published,
    "selected": _selected,
    "dense": lambda weights, samples: Weights(weights),
}
"""(straight-through weights, the sample) -> what the network is given. Losses and gradients in w are the same."""


def gumbel(space: CellSpace, base: Relaxation, gradient: str = "published", draw: Draw | None = None) -> Relaxation:
    """`base` at its start and in the mean; a step has one hard sample, for all cells of a type and the whole batch.

    The value "gdas_temperature" is the sample's; a "temperature" divides alpha beforehand.

    Args:
      space: whose alpha.
      base: DARTS' relaxation.
      gradient: a key of `GRADIENTS`.
      draw: where the noise comes from; None: from the key.

    Cost: that of `base`, as every operation is computed. Differs from AutoDL-Projects, where only the sampled one is.
    """
    form, draw = GRADIENTS[gradient], draw or standard_gumbel(space)

    def sample(alpha: Alpha, values: Mapping[str, jax.Array], key: jax.Array | None) -> Weights:
        noise = drawn_as(draw, alpha, key)
        return form(*straight_through(soft_sample(space, tempered(alpha, values), noise, values[TEMPERATURE])))

    return base._replace(sample=sample, uses_key=True)


def build_gdas(ingredients: Ingredients, draw: Draw | None = None, **options: Any) -> Method:
    """DARTS with one sampled operation an edge, and the step on the weights before that on alpha.

    `draw`: where the noise comes from; None: from the state's key. `options`: of `darts`.
    """
    # Differs from AutoDL-Projects, whose clipping of w's gradient also counts alpha's: that of the same pass, and that
    # left from the step on alpha before. Here the norm is that of w's gradient.
    settings, problem = ingredients.settings, ingredients.problem
    assert problem.space is not None
    gradient = settings.gdas_gradient
    if gradient == "auto":
        gradient = "published" if problem.space.macro == "stages" else "selected"
    start, end, last = settings.gdas_temperature_start, settings.gdas_temperature_end, max(settings.epochs - 1, 1)
    return gradient_method(
        ingredients,
        gumbel(problem.space, problem.relaxation, gradient, draw),
        weights_first=True,
        values=(TEMPERATURE,),
        schedules={TEMPERATURE: lambda epoch: TEMPERATURE_SCHEDULES["linear"](start, end, epoch / last)},
        **options,
    )


# AutoDL-Projects, configs/nas-benchmark/algos/GDAS.config and configs/search-archs/GDAS-NASNet-CIFAR.config.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "": {"hypergradient": "first_order", "nesterov": True, "l2": 5e-4},
    "paper": {"epochs": 250, "batch_size": 256, "cells": 6},
    "paper/nasbench201": {"batch_size": 64, "cells": 5},
}
GDAS = MethodEntry(
    build_gdas,
    "the strongest operations of alpha, which learned from one sampled operation an edge",
    settings=(GdasSettings,),
    defaults=_DEFAULTS,
    draws={TEMPERATURE: "Temperature of the samples"},
)
