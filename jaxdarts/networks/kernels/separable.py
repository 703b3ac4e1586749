"""ReLU, separable or 1x1 convolution and batch normalisation of several layers, by one kernel each way."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.networks.kernels.calls import alike, call_for_wanted
from jaxdarts.networks.layers import Normalised, Statistics


class _Window(NamedTuple):
    stride: int
    dilation: int
    shift: int  # the first output is of the position shift, shift


def separable_norm(x: jax.Array, depthwise: jax.Array, pointwise: jax.Array, stride: int, dilation: int) -> Normalised:
    """`standardise(separable_convs(relu(x), [Kernels(depthwise, pointwise, dilation)], stride))`.

    Its own rules are reverse mode and forward over reverse; derivatives that a program does not need are not computed.
    Where `usable` says no, use these functions of `networks/layers.py` and `networks/separable.py` instead.

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
    return _separable_norm(*alike(x, depthwise, pointwise), _Window(stride, dilation, 0))


def pointwise_norm(x: jax.Array, pointwise: jax.Array, stride: int = 1, shift: int = 0) -> Normalised:
    """`standardise(pointwise_conv(relu(x), pointwise))` of every `stride`th position from `shift` on.

    With stride 2 they are as many as of the even positions: for odd sizes, odd ones have zeros at the bottom and right,
    as `factorized_halves` has. Rules, arguments and results are those of `separable_norm` without depthwise kernels.
    """
    x, pointwise = alike(x, pointwise)
    rows, _, channels = pointwise.shape
    return _separable_norm(x, jnp.ones((rows, channels, 1, 1), x.dtype), pointwise, _Window(stride, 1, shift))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _separable_norm(x, depthwise, pointwise, window):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(x, depthwise, pointwise, window)
    return Normalised(y, Statistics(mean, variance))


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _forward(x, depthwise, pointwise, window):  # type: ignore[no-untyped-def]
    results = [_results(x, pointwise, window.stride)]
    return call_for_wanted("SeparableForward", results, (x, depthwise, pointwise), **window._asdict())


@_forward.defjvp
def _forward_tangent(window, primals, tangents):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(*primals, window)
    found, arguments = (y, mean, variance), (*primals, y, variance, *tangents)
    return found, call_for_wanted("SeparableForwardTangent", [found], arguments, **window._asdict())


@partial(jax.custom_jvp, nondiff_argnums=(6,))
def _backward(x, depthwise, pointwise, y, variance, dy, window):  # type: ignore[no-untyped-def]
    arguments = (x, depthwise, pointwise, y, variance, dy)
    results = [(one,) for one in arguments[:3]]
    return call_for_wanted("SeparableBackward", results, arguments, **window._asdict())


@_backward.defjvp
def _backward_tangent(window, primals, tangents):  # type: ignore[no-untyped-def]
    found = _backward(*primals, window)
    results = [(one,) for one in found]
    return found, call_for_wanted("SeparableBackwardTangent", results, (*primals, *tangents), **window._asdict())


def _kept(x, depthwise, pointwise, window):  # type: ignore[no-untyped-def]
    y, mean, variance = _forward(x, depthwise, pointwise, window)
    return Normalised(y, Statistics(mean, variance)), (x, depthwise, pointwise, y, variance)


def _pulled_back(window, kept, cotangents):  # type: ignore[no-untyped-def]
    return _backward(*kept, cotangents.y, window)


_separable_norm.defvjp(_kept, _pulled_back)


def _results(x: jax.Array, pointwise: jax.Array, stride: int) -> list[jax.ShapeDtypeStruct]:
    rows, features, _ = pointwise.shape
    height, width = (-(-size // stride) for size in x.shape[2:4])
    y = jax.ShapeDtypeStruct((rows, features, height, width, x.shape[4]), x.dtype)
    each = jax.ShapeDtypeStruct((rows, features), x.dtype)
    return [y, each, each]
