"""A 3x3 pool and batch normalisation, by one kernel each way."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from jaxdarts.networks.kernels.calls import call
from jaxdarts.networks.layers import Normalised, Statistics


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def pool_norm(x: jax.Array, stride: int, largest: bool) -> Normalised:
    """`standardise` of `max_pool_3x3` (`largest`) or `avg_pool_3x3`, in their shapes but for a leading axis of one.

    Its own rules are reverse mode and forward over reverse. Where `usable` says no, use these functions of
    `networks/layers.py` instead.

    Args:
      x: float[1, C, H, W, B].
      stride: 1 or 2.
      largest: the maximum instead of the mean.

    Returns:
      float[1, C, ceil(H / stride), ceil(W / stride), B], and its mean and biased variance before it was normalised,
      float[1, C], through which no derivative flows.
    """
    y, mean, variance = _forward(x, stride, largest)
    return Normalised(y, Statistics(mean, variance))


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _forward(x, stride, largest):  # type: ignore[no-untyped-def]
    height, width = (-(-size // stride) for size in x.shape[2:4])
    y = jax.ShapeDtypeStruct((*x.shape[:2], height, width, x.shape[4]), x.dtype)
    each = jax.ShapeDtypeStruct(x.shape[:2], x.dtype)
    return call("PoolForward", (y, each, each), (x,), stride=stride, largest=largest)


@_forward.defjvp
def _forward_tangent(stride, largest, primals, tangents):  # type: ignore[no-untyped-def]
    found = _forward(*primals, stride, largest)
    y, _, variance = found
    arguments = (*primals, y, variance, *tangents)
    return found, call("PoolForwardTangent", found, arguments, stride=stride, largest=largest)


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _backward(x, y, variance, dy, stride, largest):  # type: ignore[no-untyped-def]
    return call("PoolBackward", (x,), (x, y, variance, dy), stride=stride, largest=largest)


@_backward.defjvp
def _backward_tangent(stride, largest, primals, tangents):  # type: ignore[no-untyped-def]
    found = _backward(*primals, stride, largest)
    return found, call("PoolBackwardTangent", found, (*primals, *tangents), stride=stride, largest=largest)


def _kept(x: jax.Array, stride: int, largest: bool) -> Any:
    y, mean, variance = _forward(x, stride, largest)
    return Normalised(y, Statistics(mean, variance)), (x, y, variance)


def _pulled_back(stride: int, largest: bool, kept: Any, cotangents: Any) -> Any:
    return _backward(*kept, cotangents.y, stride, largest)


pool_norm.defvjp(_kept, _pulled_back)
