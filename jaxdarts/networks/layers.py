"""The primitives that every network here is made of, as pure functions written for XLA's CPU backend.

Axes: R rows (layers that are computed together), C channels, H height, W width, B batch. The batch comes last: whatever
an operation does to rows, channels and positions, the innermost loop runs over images and vectorises, and 1x1
convolutions, matrix-form convolutions and gated sums are matrix products without a transposition.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # PyTorch's convention: running = 0.9 * running + 0.1 * batch


_batch_apart: ContextVar[bool] = ContextVar("batch_apart", default=False)


@contextmanager
def batch_apart(apart: bool = True) -> Iterator[None]:
    """Whether what is traced inside, derivatives included, leaves the batch an axis of its own.

    For a batch that is split over devices: where a reshape merges it with other axes, every device gathers all of it
    and computes the whole. On one device merged axes are faster: a step of `darts` at small size 10 to 25 %.
    """
    token = _batch_apart.set(apart)
    try:
        yield
    finally:
        _batch_apart.reset(token)


def batch_is_apart() -> bool:
    """Whether `batch_apart` holds here."""
    return _batch_apart.get()


def flattened(x: jax.Array, axis: int) -> jax.Array:
    """The axes from `axis` on merged into one, or into two of which the last is the batch, as `batch_apart` says."""
    return x.reshape(*x.shape[:axis], -1, x.shape[-1]) if batch_is_apart() else x.reshape(*x.shape[:axis], -1)


class Statistics(NamedTuple):
    """Mean and variance of each channel, float[R, C]."""

    mean: jax.Array
    variance: jax.Array


class Normalised(NamedTuple):
    """What was normalised by its own statistics."""

    y: jax.Array  # float[R, C, H, W, B]
    statistics: Statistics


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), with derivative 0 at 0 as in PyTorch."""
    return jnp.where(x > 0, x, jnp.zeros((), x.dtype))


def pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1x1 convolutions: float[1 or R, C, H, W, B], float[R, D, C] -> float[R, D, H, W, B]."""
    rows, _, *positions = x.shape
    if rows == 1:
        y = jnp.einsum("rdc,c...->rd...", kernel, flattened(x.reshape(x.shape[1:]), 1))
    else:
        y = jnp.einsum("rdc,rc...->rd...", kernel, flattened(x, 2))
    return y.reshape(*kernel.shape[:2], *positions)


def conv(x: jax.Array, kernel: jax.Array, stride: tuple[int, int] = (1, 1)) -> jax.Array:
    """Dense convolutions with "same" zero padding: float[1 or R, C, H, W, B], float[R, K, L, C, D], K and L odd."""
    padding = (kernel.shape[1] // 2, kernel.shape[2] // 2)
    images = x.transpose(0, 4, 2, 3, 1)
    # XLA's CPU code for grouped dense convolutions is slower than one convolution after the other.
    outputs = [
        dense_conv(images[min(row, x.shape[0] - 1)], kernel[row], stride, padding) for row in range(kernel.shape[0])
    ]
    return jnp.stack(outputs).transpose(0, 4, 2, 3, 1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def dense_conv(
    x: jax.Array, kernel: jax.Array, stride: tuple[int, int], padding: tuple[int, int], dilation: int = 1
) -> jax.Array:
    """A convolution by the library: float[B, H, W, C], float[K, L, C, D] -> float[B, H', W', D].

    Its own reverse rule writes both derivatives as convolutions in the same order of axes. XLA's CPU backend calls its
    library for that order only, and brings others into it only outside of loops: elsewhere they run ten times slower.
    """
    return _library_conv(x, kernel, stride, [(padding[0],) * 2, (padding[1],) * 2], (1, 1), (dilation, dilation))


def _library_conv(x, kernel, strides, padding, x_dilation, kernel_dilation):  # type: ignore[no-untyped-def]
    return lax.conv_general_dilated(
        x, kernel, strides, padding, x_dilation, kernel_dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _dense_conv_forward(x, kernel, stride, padding, dilation):  # type: ignore[no-untyped-def]
    y = _library_conv(x, kernel, stride, [(padding[0],) * 2, (padding[1],) * 2], (1, 1), (dilation, dilation))
    return y, (x, kernel)


def _dense_conv_backward(stride, padding, dilation, residuals, dy):  # type: ignore[no-untyped-def]
    x, kernel = residuals
    for_input, for_kernel = [], []
    for axis in range(2):
        reach = dilation * (kernel.shape[axis] - 1)
        spread = (dy.shape[1 + axis] - 1) * stride[axis] + 1  # extent of dy with stride - 1 zeros in between
        low = reach - padding[axis]
        for_input.append((low, x.shape[1 + axis] + reach - spread - low))
        for_kernel.append((padding[axis], reach + spread - x.shape[1 + axis] - padding[axis]))
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    dx = _library_conv(dy, flipped, (1, 1), for_input, stride, (dilation, dilation))
    # Channels take the batch's place and the batch the channels'.
    images, gradient = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    dkernel = _library_conv(images, gradient, (dilation, dilation), for_kernel, (1, 1), stride)
    return dx, dkernel.transpose(1, 2, 0, 3)


dense_conv.defvjp(_dense_conv_forward, _dense_conv_backward)


@jax.custom_vjp
def standardise(x: jax.Array) -> tuple[jax.Array, Statistics]:
    """(x - mean) / sqrt(variance + 1e-5) over H, W and B, and the mean and biased variance.

    The statistics are for the running averages; no derivative flows through them. The reverse rule is the closed form
    (two channel sums), which is a third of the program that automatic differentiation of the definition makes.
    """
    return _standardise(x)[0]


def _standardise(x: jax.Array) -> tuple[tuple[jax.Array, Statistics], jax.Array]:
    wide = x.astype(statistics_dtype(x))
    mean = _channel_mean(wide)
    centred = wide - _spread(mean, x)
    variance = _channel_mean(centred * centred)
    factor = lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return ((centred * _spread(factor, x)).astype(x.dtype), Statistics(mean, variance)), factor


def _standardise_forward(x):  # type: ignore[no-untyped-def]
    outputs, factor = _standardise(x)
    return outputs, (outputs[0], factor)


def _standardise_backward(residuals, cotangents):  # type: ignore[no-untyped-def]
    y, factor = residuals
    dy, _ = cotangents
    wide_dy, wide_y = dy.astype(factor.dtype), y.astype(factor.dtype)
    mean_dy, mean_product = _channel_mean(wide_dy), _channel_mean(wide_dy * wide_y)
    dx = (wide_dy - _spread(mean_dy, y) - wide_y * _spread(mean_product, y)) * _spread(factor, y)
    return (dx.astype(y.dtype),)


standardise.defvjp(_standardise_forward, _standardise_backward)


def batch_norm(x: jax.Array, statistics: Statistics) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) with given statistics, float[R, C]; as wide as x."""
    wide = max(statistics_dtype(x), statistics.mean.dtype, key=lambda dtype: dtype.itemsize)
    mean, factor = (
        values.astype(wide) for values in (statistics.mean, lax.rsqrt(statistics.variance + BATCH_NORM_EPSILON))
    )
    return ((x.astype(wide) - _spread(mean, x)) * _spread(factor, x)).astype(x.dtype)


def statistics_dtype(x: jax.Array) -> jnp.dtype:
    """What statistics of x are computed and kept in: at least float32."""
    return x.dtype if x.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def scale_and_shift(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """x * scale + bias, both float[R, C]."""
    return x * _spread(scale, x) + _spread(bias, x)


@partial(jax.jit, static_argnums=(2, 3))  # most norms of a step are alike: it is traced for the first, not for each
def running_after(
    running: Statistics, batches: Sequence[Statistics], reads: Sequence[int] | None, count: int
) -> Statistics:
    """The moving averages after a batch whose rows are in several parts; `reads`: which row each of them follows."""
    batch = Statistics(*map(lax.concatenate, zip(*batches, strict=True), (0, 0)))
    if reads is not None:
        batch = Statistics(*(take_rows(values, reads) for values in batch))
    return update_running_statistics(running, batch, count)


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


def take_rows(x: jax.Array, rows: Sequence[int]) -> jax.Array:
    """x[rows], by slices of rows that follow each other and by repeating rows: an index each takes long to trace."""
    repeats = [(row, len(list(some))) for row, some in itertools.groupby(rows)]
    parts = []
    for (is_single, _), some in itertools.groupby(enumerate(repeats), lambda one: (one[1][1] == 1, one[1][0] - one[0])):
        own = [repeat for _, repeat in some]
        first = own[0][0]
        if is_single:
            parts.append(lax.slice_in_dim(x, first, first + len(own)))
        else:
            rest = tuple(range(1, x.ndim))
            parts += [lax.broadcast_in_dim(x[row], (count, *x.shape[1:]), rest) for row, count in own]
    return parts[0] if len(parts) == 1 else lax.concatenate(parts, 0)


def max_pool_3x3(x: jax.Array, stride: int) -> jax.Array:
    """3x3 maximum, padding 1 (never the maximum): float[C, H, W, B] -> float[C, ceil(H/stride), ceil(W/stride), B].

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


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """2x2 maximum with stride 2: float[C, H, W, B] -> float[C, ceil(H/2), ceil(W/2), B].

    For odd sizes the last squares are the part inside the image, where the reference rounds down and stops with a
    shape error. Of equal values the first in row-major order gets the whole derivative, as in PyTorch.
    """
    for axis in (2, 1):
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, x.shape[axis] % 2)
        x = jnp.pad(x, padding, mode="edge")
        first, second = (lax.slice_in_dim(x, start, None, 2, axis) for start in (0, 1))
        x = jnp.where(first >= second, first, second)
    return x


def shuffle_channels(x: jax.Array, groups: int) -> jax.Array:
    """The channels of `groups` equal parts in turn, float[C, ...]: channel j * groups + g is channel j of part g."""
    return x.reshape(groups, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def halve_by_means(x: jax.Array) -> jax.Array:
    """Means over 2x2 squares: float[C, H, W, B] -> float[C, ceil(H/2), ceil(W/2), B].

    For odd sizes the last squares are the part inside the image, where the reference stops with a shape error.
    """
    _, height, width, _ = x.shape
    x = jnp.pad(x, [(0, 0), (0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def shared_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Dense convolutions that read one array, as one: float[1, C, H, W, B], float[R, K, K, C, D], K odd.

    Returns float[R, D, H', W', B].
    """
    rows, size, _, channels, features = kernel.shape
    joined = kernel.transpose(1, 2, 3, 0, 4).reshape(size, size, channels, rows * features)
    y = dense_conv(x[0].transpose(3, 1, 2, 0), joined, (stride, stride), (size // 2, size // 2))
    return y.reshape(*y.shape[:3], rows, features).transpose(3, 4, 1, 2, 0)


def factorized_halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The even and the odd sub-grid of rows and columns, float[..., H, W, B] -> [..., ceil(H/2), ceil(W/2), B] each.

    For odd sizes the odd sub-grid is one short; it is padded with zeros at the bottom and right, where the reference
    stops with a shape error.
    """
    height, width = x.shape[-3:-1]
    even, odd = x[..., ::2, ::2, :], x[..., 1::2, 1::2, :]
    padding = [(0, 0)] * (x.ndim - 3) + [(0, height % 2), (0, width % 2), (0, 0)]
    return even, jnp.pad(odd, padding)


def mix(gates: jax.Array, outputs: jax.Array) -> jax.Array:
    """Sums over rows, sum over r of gates[n, r] * outputs[r]: float[N, R, B or 1], float[R, C, H, W, B] -> [N, ...].

    A matrix product where the gates are the same for all images, and so are both its derivatives.
    """
    if gates.shape[2] == 1:
        mixed = jnp.einsum("nr,r...->n...", gates[:, :, 0], flattened(outputs, 1))
        return mixed.reshape(-1, *outputs.shape[1:])
    return (gates[:, :, None, None, None] * outputs[None]).sum(axis=1)


def keep_mask(
    key: jax.Array, drop: jax.Array | float, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
    """0 with probability `drop`, else 1 / (1 - drop)."""
    keep = 1 - jnp.asarray(drop, dtype)
    # In a line, as arrays of five axes take five times as long to compile; JAX draws the same numbers.
    return jax.random.bernoulli(key, keep, (math.prod(shape),)).reshape(shape).astype(dtype) / keep


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
    """float[R, C, H, W, B] -> float[R, C], as a product with a constant vector.

    A product is one library call to XLA's CPU backend; a reduction becomes a tree of generated loops, which takes
    several times as long to compile and to run. HIGHEST: some accelerators round a product's factors to ten bits by
    default, and a variance with them.
    """
    flat, count = flattened(x, 2), math.prod(x.shape[2:])
    weights = jnp.full(flat.shape[2:], 1 / count, x.dtype)
    axes = "rcn,n->rc" if flat.ndim == 3 else "rcnb,nb->rc"
    return jnp.einsum(axes, flat, weights, precision=lax.Precision.HIGHEST)


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
    """float[R, C] -> float[R, C, H, W, B], as large as x."""
    return lax.broadcast_in_dim(values, x.shape, (0, 1))
