"""A node of the relaxed recurrent cell, by one kernel each way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.networks.kernels.calls import call

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
"""What the kernel knows, in its order."""


def gated_activations(
    products: jax.Array, states: jax.Array, shares: jax.Array, activations: Sequence[str]
) -> jax.Array:
    """Over states s and activations f the sum of `p (s + c (f(h) - s))`, where c is the sigmoid of g.

    Its own rules are reverse mode and forward over reverse. Activations are computed again in each.

    Args:
      products: float[R B, 2 H]: g and h, of R states below each other.
      states: float[R B, H].
      shares: float[R, len(activations)]: p.
      activations: names out of `ACTIVATIONS`, each once.

    Returns:
      float[B, H].
    """
    dtype = jnp.result_type(products, states, shares)
    columns = [
        shares[:, activations.index(name)] if name in activations else jnp.zeros_like(shares[:, 0])
        for name in ACTIVATIONS
    ]
    used = sum(1 << place for place, name in enumerate(ACTIVATIONS) if name in activations)
    return _gated(products.astype(dtype), states.astype(dtype), jnp.stack(columns, axis=1).astype(dtype), used)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _gated(products: jax.Array, states: jax.Array, shares: jax.Array, used: int) -> jax.Array:
    return _forward(products, states, shares, used)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _forward(products, states, shares, used):  # type: ignore[no-untyped-def]
    return call("RecurrentForward", [_result(states, shares)], (products, states, shares), used=used)[0]


@_forward.defjvp
def _forward_tangent(used, primals, tangents):  # type: ignore[no-untyped-def]
    (tangent,) = call("RecurrentForwardTangent", [_result(*primals[1:])], (*primals, *tangents), used=used)
    return _forward(*primals, used), tangent


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _backward(products, states, shares, derivatives, used):  # type: ignore[no-untyped-def]
    arguments = (products, states, shares, derivatives)
    return call("RecurrentBackward", arguments[:3], arguments, used=used)


@_backward.defjvp
def _backward_tangent(used, primals, tangents):  # type: ignore[no-untyped-def]
    found = _backward(*primals, used)
    return found, call("RecurrentBackwardTangent", found, (*primals, *tangents), used=used)


def _kept(products: jax.Array, states: jax.Array, shares: jax.Array, used: int) -> Any:
    return _forward(products, states, shares, used), (products, states, shares)


def _pulled_back(used: int, kept: Any, derivatives: jax.Array) -> Any:
    return _backward(*kept, derivatives, used)


_gated.defvjp(_kept, _pulled_back)


def _result(states: jax.Array, shares: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((len(states) // len(shares), states.shape[1]), states.dtype)
