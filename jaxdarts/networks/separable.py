"""How are the separable convolutions that read one array computed together?

Three forms, the same to rounding. With few positions a depthwise convolution is a small matrix between positions for
each channel, whatever its size and dilation: library calls only, which compile at once. With more positions and few
channels the depthwise and the 1x1 kernel are folded into one dense convolution, with many channels the depthwise
convolution is shifted multiply-adds (`networks/depthwise.py`). Other backends use their library's convolutions.

Axes: R rows, C channels, H height, W width, B batch, K kernel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.networks.depthwise import separable_conv
from jaxdarts.networks.layers import pointwise_conv

# Up to this many entries in a matrix from positions to positions; 8x8 images have 4096.
MATRIX_MAX_ENTRIES = 4096


class Kernels(NamedTuple):
    """Of E layers of one size and dilation."""

    depthwise: jax.Array  # float[E, C, K, K], K odd
    pointwise: jax.Array  # float[E, D, C]
    dilation: int


def separable_convs(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """Depthwise convolutions with "same" zero padding, each followed by a 1x1 convolution.

    Args:
      x: float[1, C, H, W, B], read by all layers, or float[R, C, H, W, B], a row for each in the order of the groups.
      groups: kernels of R layers in all.
      stride: 1 or 2.

    Returns:
      float[R, D, ceil(H / stride), ceil(W / stride), B]. Reverse mode and forward over reverse are supported on every
      backend.
    """
    height, width = x.shape[2:4]
    entries = height * width * -(-height // stride) * -(-width // stride)
    if jax.default_backend() == "cpu" and entries <= MATRIX_MAX_ENTRIES:
        depthwise = _matrix_shared(x, groups, stride) if x.shape[0] == 1 else _matrix_rows(x, groups, stride)
        return pointwise_conv(depthwise, _join([group.pointwise for group in groups], 0))
    return _batch_first(x, groups, stride)


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


@cache
def _tap_positions(size: int, dilation: int, stride: int, height: int, width: int, dtype: str) -> np.ndarray:
    """float[K * K, outputs * inputs]: 1 where a tap takes an output position to an input position."""

    def along(length: int) -> np.ndarray:  # [K, outputs, inputs]
        tap, output, position = np.ogrid[:size, : -(-length // stride), :length]
        return position == output * stride + (tap - size // 2) * dilation

    both = np.einsum("iyh,jxw->ijyxhw", along(height), along(width))
    return both.reshape(size * size, -1).astype(dtype)


def _batch_first(x: jax.Array, groups: Sequence[Kernels], stride: int) -> jax.Array:
    """By the forms that keep channels last."""
    images = x.transpose(0, 4, 2, 3, 1)
    outputs, start = [], 0
    for group in groups:
        edges = group.depthwise.shape[0]
        read = images if x.shape[0] == 1 else images[start : start + edges]
        depthwise, pointwise = group.depthwise.transpose(0, 2, 3, 1), group.pointwise.transpose(0, 2, 1)
        outputs.append(separable_conv(read, depthwise, pointwise, stride=stride, dilation=group.dilation))
        start += edges
    return _join(outputs, 0).transpose(0, 4, 2, 3, 1)


def _join(arrays: Sequence[jax.Array], axis: int) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, axis)
