"""How does the published code differentiate the outer objective of recurrent cells?"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.hyperparameters import check_between, get_hyperparameters
from jaxdarts.bilevel.problem import Alpha, Batch, Bilevel, HypergradientFn, HypergradientInfo, InnerStep, Params
from jaxdarts.bilevel.products import add_scaled, value_and_alpha_gradient, value_and_gradients


def published_difference(
    radius: float = 1e-2, clip_norm: float = 0.25, unmoved: Collection[str] = ("embedding",)
) -> HypergradientFn:
    """DARTS' estimate for recurrent cells (`rnn/architect.py`), as it is: for comparisons with published numbers.

    With the train gradient g, c = clip_norm / (|g| + 1e-6) and the step of SGD w' = w - lr (min(1, c) g + l2 w), it is
    the outer gradient in alpha at w', less lr c times a central difference of the train gradient in alpha around w,
    along the outer gradient v at w', itself clipped to `clip_norm`. So c multiplies also where it is above 1, and v is
    not the gradient of anything: the estimate is no hypergradient. `unrolled()` of an optimiser that clips is exact.

    Args:
      radius: length of the displacement of the weights, positive.
      clip_norm: largest global norm of either gradient, positive.
      unmoved: keys of the weights that stay what they were in w': the published code forgets the matrix that embeds
        and decodes. Empty: all move.

    Raises:
      InputError: a number is not positive.

    Cost: four gradients.
    """
    check_between("radius", radius, 0, inf, "be a positive number")
    check_between("clip_norm", clip_norm, 0, inf, "be a positive number")

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        rates = get_hyperparameters(inner.state)
        rate, l2 = rates["learning_rate"], rates["l2"]
        _, (gradient, _) = value_and_gradients(problem.train_loss, params, alpha, train_batch)
        coefficient = clip_coefficient(gradient, clip_norm)
        moved = add_scaled(params, -rate * jnp.minimum(coefficient, 1), gradient)
        moved = {
            name: params[name] if name in unmoved else add_scaled(value, -rate * l2, params[name])
            for name, value in moved.items()
        }
        outer, (direction, direct) = value_and_gradients(problem.valid_loss, moved, alpha, valid_batch)
        direction = jax.tree.map(lambda v: jnp.minimum(clip_coefficient(direction, clip_norm), 1) * v, direction)
        norm = optax.tree.norm(direction)
        scale = radius / jnp.where(norm > 0, norm, 1)  # a zero direction moves nothing: the difference is zero
        sides = [add_scaled(params, sign * scale, direction) for sign in (1, -1)]
        above, below = (value_and_alpha_gradient(problem.train_loss, w, alpha, train_batch)[1] for w in sides)
        product = jax.tree.map(lambda one, other: (one - other) / (2 * scale), above, below)
        return add_scaled(direct, -rate * coefficient, product), HypergradientInfo(*outer)

    return hypergradient


def clip_coefficient(gradient: Params, clip_norm: float) -> jax.Array:
    """What clipping multiplies by, where it is not above 1: by PyTorch's rule, 1e-6 added to the norm."""
    return clip_norm / (optax.tree.norm(gradient) + 1e-6)
