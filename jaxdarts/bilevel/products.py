"""The heavy functions of a bi-level step: gradients, products with second derivatives, and optimiser updates.

Plain functions, to be differentiated, jitted and vmapped; under `Parts` each is a program of its own.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.parts import part
from jaxdarts.bilevel.problem import Alpha, Batch, LossFn, Params
from jaxdarts.errors import InputError


@part(1)
def value_and_gradients(
    loss: LossFn, params: Params, alpha: Alpha, batch: Batch
) -> tuple[tuple[jax.Array, Any], tuple[Params, Alpha]]:
    """`((loss, aux), (gradient in the weights, gradient in alpha))`.

    Both gradients, even where one is wanted: jvp of a gradient in alpha alone meets a custom_vjp layer that alpha does
    not reach (stem, first cell) undifferentiated, and fails on it. In one program XLA removes what is not used.
    """
    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, alpha, batch)


@part(1)
def value_and_alpha_gradient(
    loss: LossFn, params: Params, alpha: Alpha, batch: Batch
) -> tuple[tuple[jax.Array, Any], Alpha]:
    """`((loss, aux), gradient in alpha)`, without the work that only the gradient in the weights needs."""
    return jax.value_and_grad(loss, argnums=1, has_aux=True)(params, alpha, batch)


@part(1)
def apply_update(
    optimiser: optax.GradientTransformation, gradient: Params, state: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """The parameters after one step of an optimiser, and its new state.

    Raises:
      InputError: the optimiser wants to be told more than the gradient, such as the loss.
    """
    # Optax' Adam raises a float to the power of a counter, which JAX' guard against promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        try:
            updates, new_state = optimiser.update(gradient, state, params)
        except TypeError as error:
            _, missing, names = str(error).partition("required keyword-only argument")
            if not missing:
                raise
            # Line searches and Polyak's step: the loss takes part in their update, and derivatives would lack that.
            raise InputError(
                f"the optimiser needs {names.lstrip('s: ')} beside the gradient, which is not given here; choose one "
                "that follows the gradient alone, such as optax.sgd or optax.adam"
            ) from None
        return optax.apply_updates(params, updates), new_state


updated = inspect.unwrap(apply_update)
"""`apply_update` as it is, no piece of a step: what is differentiated."""


def products(loss: LossFn, params: Params, alpha: Alpha, batch: Batch, direction: Params) -> tuple[Params, Alpha]:
    """The Hessian's blocks (w, w) and (alpha, w) of a loss, each times `direction`.

    `direction` has the structure, shapes and dtypes of `params`. Cost: one gradient and its forward derivative,
    about two gradients; memory twice a gradient's.
    """
    # jvp, not linearize: in a network without scan XLA makes the same program of both, linearize compiling 1.8 times
    # as long; in a scanned one linearize took 6 % less time and a third more memory.
    return jax.jvp(lambda w: value_and_gradients(loss, w, alpha, batch)[1], (params,), (direction,))[1]


@part(1, drops_results=True)
def alpha_product(
    loss: LossFn, params: Params, alpha: Alpha, batch: Batch, params_direction: Params, alpha_direction: Alpha
) -> Alpha:
    """The Hessian's rows of alpha times a direction in both: `d2 loss/(d alpha d w) . u + d2 loss/(d alpha)2 . v`.

    With one direction zero it is the mixed product or the product with the alpha-Hessian, in the same program. Each
    direction has the structure, shapes and dtypes of what it moves.

    Cost: one gradient and its forward derivative, about two gradients.
    """
    gradient = lambda w, a: value_and_gradients(loss, w, a, batch)[1][1]  # noqa: E731
    return jax.jvp(gradient, (params, alpha), (params_direction, alpha_direction))[1]


def mixed_product(loss: LossFn, params: Params, alpha: Alpha, batch: Batch, direction: Params) -> Alpha:
    """The mixed second derivative of a loss, d/d alpha (d loss/d w . direction), exactly.

    What the DARTS paper approximates by a central difference (Liu et al. 2019, eq. 8); here forward over reverse.

    Args:
      loss: (params, alpha, batch) -> (scalar, aux).
      params, alpha: where; any pytrees of floats.
      batch: passed on to `loss`.
      direction: the structure, shapes and dtypes of `params`.

    Returns:
      The structure, shapes and dtypes of `alpha`.

    Cost: one gradient and its forward derivative, about two gradients.
    """
    return alpha_product(loss, params, alpha, batch, direction, jax.tree.map(jnp.zeros_like, alpha))


def add_scaled(tree: Params, scale: jax.typing.ArrayLike, other: Params) -> Params:
    """`tree + scale * other`, leaf by leaf, in the dtypes of `tree`."""
    # Weights may be of several precisions, which one of JAX' guards lets nobody mix without a word.
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda a, b: a + (jnp.asarray(scale) * b).astype(a.dtype), tree, other)
