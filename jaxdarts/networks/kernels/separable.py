"""ReLU, separable convolution and batch normalisation of several layers, by one kernel each way."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.networks.kernels.calls import alike, call
from jaxdarts.networks.layers import Normalised, Statistics


def separable_norm(x: jax.Array, depthwise: jax.Array, pointwise: jax.Array, stride: int, dilation: int) -> Normalised:
    """`standardise(separable_convs(relu(x), [Kernels(depthwise, pointwise, dilation)], stride))`.

    Its own rules are reverse mode and forward over reverse. Where `usable` says no, use these functions of
    `networks/layers.py` and `networks/separable.py` instead.

    Args:
      x: float[1, C, H, W, B], read by all layers, or float[R, C, H, W, B].
      depthwise: float[R, C, K, K], K odd and at most 15.
      pointwise: float[R, D, C].
      stride: 1 or 2.
      dilation: of the depthwise kernels.

    Returns:
      float[R, D, ceil(H / stride), ceil(W / stride), B], and its mean and biased variance before it was normalised,
      float[R, D], through which no derivative flows.
    """
    return _separable_norm(*alike(x, depthwise, pointwise), stride, dilation)


def pointwise_norm(x: jax.Array, pointwise: jax.Array, grid: int | None = None) -> Normalised:
    """`standardise(pointwise_conv(relu(x), pointwise))`: a separable convolution whose depthwise part is the identity.

    Args:
      x: float[1, C, H, W, B] or float[R, C, H, W, B].
      pointwise: float[R, D, C].
      grid: 0, 1: on the even or the odd sub-grid, as `factorized_halves` makes them; None: everywhere.
    """
    size = 3 if grid == 1 else 1
    depthwise = np.zeros((*pointwise.shape[::2], size, size))
    depthwise[:, :, -1, -1] = 1  # of three taps the last is a step beyond the even sub-grid
    return separable_norm(x, jnp.asarray(depthwise, x.dtype), pointwise, 1 if grid is None else 2, 1)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _separable_norm(x, depthwise, pointwise, stride, dilation):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(x, depthwise, pointwise, stride, dilation)
    return Normalised(y, Statistics(mean, variance))


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _forward(x, depthwise, pointwise, stride, dilation):  # type: ignore[no-untyped-def]
    return call(
        "SeparableForward", _results(x, pointwise, stride), (x, depthwise, pointwise), stride=stride, dilation=dilation
    )


@_forward.defjvp
def _forward_tangent(stride, dilation, primals, tangents):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(*primals, stride, dilation)
    found, arguments = (y, mean, variance), (*primals, y, variance, *tangents)
    return found, call("SeparableForwardTangent", found, arguments, stride=stride, dilation=dilation)


@partial(jax.custom_jvp, nondiff_argnums=(6, 7))
def _backward(x, depthwise, pointwise, y, variance, dy, stride, dilation):  # type: ignore[no-untyped-def]
    arguments = (x, depthwise, pointwise, y, variance, dy)
    return call("SeparableBackward", arguments[:3], arguments, stride=stride, dilation=dilation)


@_backward.defjvp
def _backward_tangent(stride, dilation, primals, tangents):  # type: ignore[no-untyped-def]
    found = _backward(*primals, stride, dilation)
    return found, call("SeparableBackwardTangent", found, (*primals, *tangents), stride=stride, dilation=dilation)


def _kept(x, depthwise, pointwise, stride, dilation):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(x, depthwise, pointwise, stride, dilation)
    return Normalised(y, Statistics(mean, variance)), (x, depthwise, pointwise, y, variance)


def _pulled_back(stride, dilation, kept, cotangents):  # type: ignore[no-untyped-def]
    return _backward(*kept, cotangents.y, stride, dilation)


_separable_norm.defvjp(_kept, _pulled_back)


def _results(x: jax.Array, pointwise: jax.Array, stride: int) -> list[jax.ShapeDtypeStruct]:
    rows, features, _ = pointwise.shape
    height, width = (-(-size // stride) for size in x.shape[2:4])
    y = jax.ShapeDtypeStruct((rows, features, height, width, x.shape[4]), x.dtype)
    each = jax.ShapeDtypeStruct((rows, features), x.dtype)
    return [y, each, each]
