"""How second derivatives of the inner objective are applied to a direction in weight space without being formed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxdarts.bilevel.problem import Alpha, Batch, LossFn, Params


def gradients(loss: LossFn, params: Params, alpha: Alpha, batch: Batch) -> tuple[Params, Alpha]:
    """The gradients of a loss in the weights and in alpha; aux is dropped.

    Both, even where one is wanted: jvp of a gradient in alpha alone meets a custom_vjp layer that alpha does not
    reach (stem, first cell) undifferentiated, and fails on it. XLA removes what is not used, and merges this
    call with the same one inside a product.
    """
    both, _ = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, alpha, batch)
    return both


def products(loss: LossFn, params: Params, alpha: Alpha, batch: Batch, direction: Params) -> tuple[Params, Alpha]:
    """The Hessian's blocks (w, w) and (alpha, w) of a loss, each times `direction`.

    `direction` has the structure, shapes and dtypes of `params`. Cost: one gradient and its forward derivative,
    about two gradients; memory twice a gradient's.
    """
    # jvp, not linearize: in a network without scan XLA makes the same program of both, linearize compiling 1.8 times
    # as long; in a scanned one linearize took 6 % less time and a third more memory.
    _, along = jax.jvp(lambda w: gradients(loss, w, alpha, batch), (params,), (direction,))
    return along


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
    return products(loss, params, alpha, batch, direction)[1]


def add_scaled(tree: Params, scale: jax.typing.ArrayLike, other: Params) -> Params:
    """`tree + scale * other`, leaf by leaf, in the dtypes of `tree`."""
    return jax.tree.map(lambda a, b: a + (jnp.asarray(scale) * b).astype(a.dtype), tree, other)
