"""What a bi-level problem is: two losses, the inner optimiser's next step, and the signature of a hypergradient.

The problem is `min_alpha valid_loss(w*(alpha), alpha)` where `w*(alpha)` minimises `train_loss(w, alpha)`
(Liu et al. 2019, eq. 3-4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import optax

Params: TypeAlias = Any  # pytree of float arrays: the weights w
Alpha: TypeAlias = Any  # pytree of float arrays: the architecture parameters
Batch: TypeAlias = Any  # pytree of arrays, or None

LossFn: TypeAlias = Callable[[Params, Alpha, Batch], tuple[jax.Array, Any]]
"""(params, alpha, batch) -> (scalar loss, aux). Batch statistics, keys and drop path are closed over."""


class Bilevel(NamedTuple):
    """A bi-level problem.

    Attributes:
      train_loss: the inner objective, minimised in the weights. L2 that the inner optimiser adds is not part of it.
      valid_loss: the outer objective, minimised in alpha.
    """

    train_loss: LossFn
    valid_loss: LossFn


class InnerStep(NamedTuple):
    """What the inner problem's optimiser would do next.

    Attributes:
      update: the optimiser, such as `virtual_step_optimiser(...)`; differentiated with respect to its gradients.
      state: its present state. Learning rate and L2 are traced values inside (`optax.inject_hyperparams`).
    """

    update: optax.GradientTransformation
    state: optax.OptState


class HypergradientInfo(NamedTuple):
    """The outer objective where it was evaluated: at the present weights, or after the unrolled steps.

    Attributes:
      valid_loss: scalar.
      aux: what `Bilevel.valid_loss` returned beside it. Nothing in it was carried anywhere.
    """

    valid_loss: jax.Array
    aux: Any


HypergradientFn: TypeAlias = Callable[
    [Bilevel, InnerStep, Params, Alpha, Batch, Batch], tuple[Alpha, HypergradientInfo]
]
"""(problem, inner, params, alpha, train batch, valid batch) -> (gradient in alpha, info). Pure: jit and vmap freely."""
