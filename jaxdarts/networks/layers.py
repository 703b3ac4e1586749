"""The primitives that every network here is made of, as pure functions written for XLA's CPU backend.

Axes: E edges (layers of one kind that read one state are computed together), B batch, H height, W width, C channels.
Reductions keep W * C as the last axis for as long as they can: XLA's CPU code is scalar for narrow kept axes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # PyTorch's convention: running = 0.9 * running + 0.1 * batch


class Statistics(NamedTuple):
    """Mean and variance of each channel, float[E, C]."""

    mean: jax.Array
    variance: jax.Array


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with derivative 0 at 0 as in PyTorch."""
    return jnp.where(x > 0, x, jnp.zeros((), x.dtype))


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1x1 convolutions: float[1 or E, B, H, W, C], float[E, C, D] -> float[E, B, H, W, D]."""
    if x.shape[0] == 1 and kernel.shape[0] > 1:
        return jnp.einsum("bhwc,ecd->ebhwd", x[0], kernel)
    shape = x.shape
    y = jnp.einsum("enc,ecd->end", x.reshape(shape[0], -1, shape[-1]), kernel)
    return y.reshape(*shape[:-1], kernel.shape[-1])


def conv(x: jax.Array, kernel: jax.Array, stride: tuple[int, int] = (1, 1)) -> jax.Array:
    """Dense convolutions with "same" zero padding: float[1 or E, B, H, W, C], float[E, K, L, C, D], K and L odd."""
    padding = [(kernel.shape[1] // 2,) * 2, (kernel.shape[2] // 2,) * 2]

    def one(image: jax.Array, weights: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, weights, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # XLA's CPU code for grouped dense convolutions is slower than one convolution after the other.
    return jnp.stack([one(x[min(edge, x.shape[0] - 1)], kernel[edge]) for edge in range(kernel.shape[0])])


@jax.custom_vjp
def standardise(x: jax.Array) -> tuple[jax.Array, Statistics]:
    """(x - mean) / sqrt(variance + 1e-5) over B, H and W, and the mean and biased variance.

    The statistics are for the running averages; no derivative flows through them. The reverse rule is the closed form
    (two channel sums), which is a third of the program that automatic differentiation of the definition makes.
    """
    return _standardise(x)[0]


def _standardise(x: jax.Array) -> tuple[tuple[jax.Array, Statistics], jax.Array]:
    mean = _channel_mean(x)
    centred = x - _spread(mean)
    variance = _channel_mean(centred * centred)
    factor = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return (centred * _spread(factor), Statistics(mean, variance)), factor


def _standardise_forward(x):  # type: ignore[no-untyped-def]
    outputs, factor = _standardise(x)
    return outputs, (outputs[0], factor)


def _standardise_backward(residuals, cotangents):  # type: ignore[no-untyped-def]
    y, factor = residuals
    dy, _ = cotangents
    mean_dy, mean_product = _channel_mean(dy), _channel_mean(dy * y)
    return ((dy - _spread(mean_dy) - y * _spread(mean_product)) * _spread(factor),)


standardise.defvjp(_standardise_forward, _standardise_backward)


def batch_norm(x: jax.Array, statistics: Statistics) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) with given statistics, float[E, C]."""
    return (x - _spread(statistics.mean)) * _spread(lax.rsqrt(statistics.variance + BATCH_NORM_EPSILON))


def scale_and_shift(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """x * scale + bias, both float[E, C]."""
    return x * _spread(scale) + _spread(bias)


def update_running_statistics(running: Statistics, batch: Statistics, count: int) -> Statistics:
    """One step of the moving averages, with the unbiased variance of `count` values a channel as in PyTorch.

    Differs from Flax, which averages the biased variance and calls the complement "momentum".
    """
    unbiased = batch.variance * (count / max(count - 1, 1))
    keep = 1 - BATCH_NORM_MOMENTUM
    return Statistics(
        keep * running.mean + BATCH_NORM_MOMENTUM * batch.mean,
        keep * running.variance + BATCH_NORM_MOMENTUM * unbiased,
    )


def max_pool_3x3(x: jax.Array, stride: int) -> jax.Array:
    """3x3 maximum, padding 1 (never the maximum): float[B, H, W, C] -> float[B, ceil(H/stride), ceil(W/stride), C].

    Of equal values the first in row-major order gets the whole derivative, as in PyTorch.
    """

    def larger(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(a >= b, a, b)

    for axis in (2, 1):
        first, middle, last = _windows(x, axis, stride, -np.inf)
        x = larger(larger(first, middle), last)
    return x


def avg_pool_3x3(x: jax.Array, stride: int) -> jax.Array:
    """3x3 mean over the positions inside the image: as `max_pool_3x3`."""
    for axis in (2, 1):
        size = x.shape[axis]
        first, middle, last = _windows(x, axis, stride, 0.0)
        inside = np.convolve(np.ones(size), np.ones(3))[1:-1:stride]
        shape = [1, 1, 1, 1]
        shape[axis] = len(inside)
        x = (first + middle + last) * jnp.asarray(1 / inside, x.dtype).reshape(shape)
    return x


def factorized_halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The even and the odd sub-grid of rows and columns, each [..., ceil(H/2), ceil(W/2), C].

    For odd sizes the odd sub-grid is one short; it is padded with zeros at the bottom and right, where the reference
    stops with a shape error.
    """
    height, width = x.shape[-3:-1]
    even, odd = x[..., ::2, ::2, :], x[..., 1::2, 1::2, :]
    padding = [(0, 0)] * (x.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)]
    return even, jnp.pad(odd, padding)


@jax.custom_vjp
def gate(gates: jax.Array, x: jax.Array) -> jax.Array:
    """gates[e] * x[e]: float[E, B or 1], float[1 or E, B, H, W, C] -> float[E, B, H, W, C].

    Its own reverse rule takes the derivatives of the gates, and of an array that all edges share, as matrix products:
    a reduction to few values is slow in XLA's code for the CPU.
    """
    return _gate(gates, x)


def _gate(gates: jax.Array, x: jax.Array) -> jax.Array:
    return gates[:, :, None, None, None] * x


def _gate_forward(gates, x):  # type: ignore[no-untyped-def]
    return _gate(gates, x), (gates, x)


def _gate_backward(residuals, dy):  # type: ignore[no-untyped-def]
    gates, x = residuals
    edges, batch = dy.shape[:2]
    shared, per_image = x.shape[0] == 1, gates.shape[1] > 1
    # n: one row for each image, or one for the whole batch.
    rows = (batch, -1) if per_image else (1, -1)
    dy_rows, x_rows = dy.reshape(edges, *rows), x.reshape(x.shape[0], *rows)
    if shared:
        return jnp.einsum("ebn,bn->eb", dy_rows, x_rows[0]), jnp.einsum("eb,ebn->bn", gates, dy_rows).reshape(x.shape)
    return jnp.einsum("ebn,ebn->eb", dy_rows, x_rows), _gate(gates, dy)


gate.defvjp(_gate_forward, _gate_backward)


def _windows(x: jax.Array, axis: int, stride: int, fill: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The three shifted copies that a window of 3 with padding 1 sees along an axis."""
    size = x.shape[axis]
    outputs = -(-size // stride)
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (1, stride, 0)
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), padding)
    first, middle, last = (
        lax.slice_in_dim(padded, shift, shift + (outputs - 1) * stride + 1, stride, axis) for shift in range(3)
    )
    return first, middle, last


def _channel_mean(x: jax.Array) -> jax.Array:
    """float[E, B, H, W, C] -> float[E, C], as a product with a constant vector.

    A product is one library call to XLA's CPU backend; a reduction becomes a tree of generated loops, which takes
    several times as long to compile and to run.
    """
    edges, batch, height, width, channels = x.shape
    mean_weights = jnp.full((batch * height * width,), 1 / (batch * height * width), x.dtype)
    return jnp.einsum("enc,n->ec", x.reshape(edges, -1, channels), mean_weights)


def _spread(values: jax.Array) -> jax.Array:
    """float[E, C] -> float[E, 1, 1, 1, C]."""
    return values[:, None, None, None, :]
