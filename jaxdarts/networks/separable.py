"""How are the separable convolutions that read one array computed together?

XLA's grouped convolution is 10 to 60 times slower on the CPU than matrix products that compute the same. With few
positions a depthwise convolution is a matrix between positions for each channel, whatever its size and dilation. With
more it is a matrix along the height for each tap along the width. Both do more arithmetic than the convolution, at the
speed of library calls, which need next to no compilation. Other backends use their library's convolutions, which tests
hold the two forms to, in value, gradient and forward over reverse.

Axes: R rows, C channels, H height, W width, B batch, K kernel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdarts.networks.layers import flattened, pointwise_conv

# Up to this many entries in a matrix from positions to positions; 8x8 images have 4096.
MATRIX_MAX_ENTRIES = 4096


class Kernels(NamedTuple):
    """Of E layers of one size and dilation."""

    depthwise: jax.Array  # float[E, C, K, K], K odd
    pointwise: jax.Array  # float[E, D, C]
    dilation: int


def separable_convs(x: jax.Array, groups: Sequence[Kernels], stride: int, platform: str | None = None) -> jax.Array:
    """Depthwise convolutions with "same" zero padding, each followed by a 1x1 convolution.

    Args:
      x: float[1, C, H, W, B], read by all layers, or float[R, C, H, W, B], a row for each in the order of the groups.
      groups: kernels of R layers in all.
      stride: 1 or 2.
      platform: what the program is for, `cpu` or another; None: JAX's default backend.

    Returns:
      float[R, D, ceil(H / stride), ceil(W / stride), B]. Reverse mode and forward over reverse are supported on every
      backend.
    """
    depthwise = _form(x, stride, platform)(x, groups, stride)
    return pointwise_conv(depthwise, _join([group.pointwise for group in groups], 0))


def _form(x: jax.Array, stride: int, platform: str | None) -> Callable[[jax.Array, Sequence[Kernels], int], jax.Array]:
    """The one place where the form is chosen."""
    if (platform or jax.default_backend()) != "cpu":
        return library
    height, width = x.shape[2:4]
    few = height * width * -(-height // stride) * -(-width // stride) <= MATRIX_MAX_ENTRIES
    return matrix if few else columns


def library(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """Depthwise convolutions by `lax.conv_general_dilated`; arguments as `separable_convs`, float[R, C, H', W', B]."""
    rows, channels, *positions = x.shape
    outputs, start = [], 0
    for group in groups:
        edges, _, size, _ = group.depthwise.shape
        read = x if rows == 1 else x[start : start + edges]
        start += edges
        # One feature group a channel, with an output for each edge; or one a row and channel.
        kernel = group.depthwise.transpose(1, 0, 2, 3) if rows == 1 else group.depthwise
        inputs = read.reshape(-1, *positions)
        y = lax.conv_general_dilated(
            inputs,
            kernel.reshape(-1, 1, size, size),
            (stride, stride),
            [(group.dilation * (size // 2),) * 2] * 2,
            rhs_dilation=(group.dilation, group.dilation),
            dimension_numbers=("CHWN", "OIHW", "CHWN"),
            feature_group_count=inputs.shape[0],
        )
        y = (
            y.reshape(channels, edges, *y.shape[1:]).swapaxes(0, 1)
            if rows == 1
            else y.reshape(edges, channels, *y.shape[1:])
        )
        outputs.append(y)
    return _join(outputs, 0)


def matrix(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """The same by a matrix from positions to positions for each row and channel."""
    return (_matrix_shared if x.shape[0] == 1 else _matrix_rows)(x, groups, stride)


def _matrix_shared(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """All rows read one array: one product for each channel and group."""
    _, channels, height, width, batch = x.shape
    positions = x.reshape(channels, height * width, batch)
    outputs = []
    for group in groups:
        edges, _, size, _ = group.depthwise.shape
        taps = group.depthwise.transpose(1, 0, 2, 3).reshape(channels * edges, size * size)
        matrices = taps @ _tap_positions(size, group.dilation, stride, height, width, x.dtype.name)
        y = jnp.einsum("cmp,cpb->cmb", matrices.reshape(channels, -1, height * width), positions)
        y = y.reshape(channels, edges, -(-height // stride), -(-width // stride), batch)
        outputs.append(y.transpose(1, 0, 2, 3, 4))
    return _join(outputs, 0)


def _matrix_rows(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """A row for each layer: one product for each row and channel."""
    rows, channels, height, width, batch = x.shape
    matrices = []
    for group in groups:
        edges, _, size, _ = group.depthwise.shape
        taps = group.depthwise.reshape(edges * channels, size * size)
        matrix = taps @ _tap_positions(size, group.dilation, stride, height, width, x.dtype.name)
        matrices.append(matrix.reshape(edges, channels, -1, height * width))
    y = jnp.einsum("rcqp,rcpb->rcqb", _join(matrices, 0), x.reshape(rows, channels, -1, batch))
    return y.reshape(rows, channels, -(-height // stride), -(-width // stride), batch)


def columns(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """The same by matrices along the height for each tap along the width: products as wide as width times batch."""
    rows, channels, height, width, batch = x.shape
    out_height, out_width = -(-height // stride), -(-width // stride)
    outputs, start = [], 0
    for group in groups:
        edges, _, size, _ = group.depthwise.shape
        read = x if rows == 1 else x[start : start + edges]
        start += edges
        # [E, C, tap along the width, tap along the height] @ [.., outputs * inputs]
        taps = group.depthwise.transpose(0, 1, 3, 2).reshape(-1, size)
        along = _along(size, group.dilation, stride, height).reshape(size, -1).astype(x.dtype)
        matrices = (taps @ along).reshape(edges, channels, size, out_height, height).transpose(0, 1, 3, 2, 4)
        if rows == 1:
            matrices = matrices.transpose(1, 0, 2, 3, 4).reshape(1, channels, edges * out_height, size * height)
        else:
            matrices = matrices.reshape(edges, channels, out_height, size * height)
        y = _stacked_product(matrices, read, size, group.dilation, stride)
        if rows == 1:
            y = y.reshape(channels, edges, out_height, out_width, batch).transpose(1, 0, 2, 3, 4)
        outputs.append(y.reshape(edges, channels, out_height, out_width, batch))
    return _join(outputs, 0)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _stacked_product(matrices: jax.Array, x: jax.Array, size: int, dilation: int, stride: int) -> jax.Array:
    """[R, C, M, K * H] times the K shifts of x [R, C, H, W, B] along the width: [R, C, M, W' * B] or [R, C, M, W', B].

    Its own reverse rule keeps x and not the shifts, which are K times as large.
    """
    return jnp.einsum("rcmk,rck...->rcm...", matrices, _stack(x, size, dilation, stride))


def _stacked_product_forward(matrices, x, size, dilation, stride):  # type: ignore[no-untyped-def]
    return jnp.einsum("rcmk,rck...->rcm...", matrices, _stack(x, size, dilation, stride)), (matrices, x)


def _stacked_product_backward(size, dilation, stride, residuals, dy):  # type: ignore[no-untyped-def]
    matrices, x = residuals
    shifts = _stack(x, size, dilation, stride)
    dmatrices = jnp.einsum("rcmn,rckn->rcmk" if dy.ndim == 4 else "rcmnb,rcknb->rcmk", dy, shifts)
    dshifts = jnp.einsum("rcmk,rcm...->rck...", matrices, dy)
    return dmatrices, _unstack(dshifts, x.shape, size, dilation, stride)


_stacked_product.defvjp(_stacked_product_forward, _stacked_product_backward)


def _stack(x: jax.Array, size: int, dilation: int, stride: int) -> jax.Array:
    """float[R, C, H, W, B] -> float[R, C, K * H, W' * B] or [.., W', B]: the inputs of every tap along the width."""
    rows, channels, height, width, batch = x.shape
    outputs, padding = -(-width // stride), dilation * (size // 2)
    reach = (outputs - 1) * stride + dilation * (size - 1) + 1
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * 3 + [(padding, reach - width - padding, 0), (0, 0, 0)])
    shifts = [
        lax.slice_in_dim(padded, tap * dilation, tap * dilation + (outputs - 1) * stride + 1, stride, axis=3)
        for tap in range(size)
    ]
    return flattened(jnp.stack(shifts, axis=2).reshape(rows, channels, size * height, outputs, batch), 3)


def _unstack(shifts: jax.Array, shape: tuple[int, ...], size: int, dilation: int, stride: int) -> jax.Array:
    """The transpose of `_stack`."""
    rows, channels, height, width, batch = shape
    outputs, padding = -(-width // stride), dilation * (size // 2)
    shifts = shifts.reshape(rows, channels, size, height, outputs, batch)
    zero = jnp.zeros((), shifts.dtype)
    total = None
    for tap in range(size):
        low = tap * dilation - padding
        high = width - low - (outputs - 1) * stride - 1
        placed = lax.pad(shifts[:, :, tap], zero, [(0, 0, 0)] * 3 + [(low, high, stride - 1), (0, 0, 0)])
        total = placed if total is None else total + placed
    assert total is not None
    return total


def _along(size: int, dilation: int, stride: int, length: int) -> np.ndarray:
    """bool[K, outputs, inputs]: whether a tap takes an output position to an input position, along one axis."""
    tap, output, position = np.ogrid[:size, : -(-length // stride), :length]
    return position == output * stride + (tap - size // 2) * dilation


@cache
def _tap_positions(size: int, dilation: int, stride: int, height: int, width: int, dtype: str) -> np.ndarray:
    """float[K * K, outputs * inputs]: 1 where a tap takes an output position to an input position."""
    vertical, horizontal = (_along(size, dilation, stride, length) for length in (height, width))
    both = np.einsum("iyh,jxw->ijyxhw", vertical, horizontal)
    return both.reshape(size * size, -1).astype(dtype)


def _join(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)
