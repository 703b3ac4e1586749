"""How is a depthwise convolution computed quickly, and differentiated twice?

XLA's grouped convolution is 10 to 60 times slower on the CPU than these forms. Here every tap of the kernel is a
shifted multiply-add over an array whose last axis is width times channels, which vectorises whatever the number of
channels. `depthwise_conv_reference` is the plain library form; tests hold the two together in value, gradient and
forward-over-reverse derivative. On other backends the library form is the faster one and is used.

Axes: E edges, B batch, H height, W width, C channels, K kernel size.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxdarts.networks.layers import dense_conv

# Up to this many channels a depthwise and a 1x1 convolution are folded into one dense convolution.
FOLD_MAX_CHANNELS = 32


def separable_conv(
    x: jax.Array, depthwise: jax.Array, pointwise: jax.Array, *, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """A depthwise convolution with "same" zero padding followed by a 1x1 convolution, one pair for each edge.

    Args:
      x: float[1 or E, B, H, W, C]; 1 when all edges read the same array.
      depthwise: float[E, K, K, C], K odd.
      pointwise: float[E, C, D].
      stride: 1 or 2.
      dilation: distance between taps.

    Returns:
      float[E, B, ceil(H / stride), ceil(W / stride), D]. Reverse mode and forward over reverse are supported on every
      backend.
    """
    if jax.default_backend() == "cpu" and x.shape[-1] <= FOLD_MAX_CHANNELS:
        return separable_conv_folded(x, depthwise, pointwise, stride=stride, dilation=dilation)
    y = depthwise_conv(x, depthwise, stride=stride, dilation=dilation)
    edges, *positions, channels = y.shape
    return jnp.einsum("enc,ecd->end", y.reshape(edges, -1, channels), pointwise).reshape(edges, *positions, -1)


def separable_conv_folded(
    x: jax.Array, depthwise: jax.Array, pointwise: jax.Array, *, stride: int = 1, dilation: int = 1
) -> jax.Array:
    """The same as one dense convolution with the product of both kernels.

    C times the arithmetic, but in library calls: with few channels it runs as fast as the shifted form, and the program
    is a quarter of its size, which is what compilation time depends on.
    """
    edges, size, _, channels = depthwise.shape
    features = pointwise.shape[-1]
    kernel = jnp.einsum("eijc,ecd->eijcd", depthwise, pointwise)
    padding = dilation * (size // 2)

    def dense(inputs: jax.Array, weights: jax.Array) -> jax.Array:
        return dense_conv(inputs, weights, (stride, stride), (padding, padding), dilation)

    if x.shape[0] == 1:
        y = dense(x[0], kernel.transpose(1, 2, 3, 0, 4).reshape(size, size, channels, edges * features))
        return y.reshape(*y.shape[:3], edges, features).transpose(3, 0, 1, 2, 4)
    # XLA's grouped dense convolution is slower on the CPU than one convolution after the other.
    return jnp.stack([dense(x[edge], kernel[edge]) for edge in range(edges)])


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Depthwise convolutions with "same" zero padding, one for each edge.

    Args:
      x: float[1 or E, B, H, W, C]; 1 when all edges read the same array.
      kernel: float[E, K, K, C], K odd.
      stride: 1 or 2.
      dilation: distance between taps.

    Returns:
      float[E, B, ceil(H / stride), ceil(W / stride), C]. Reverse mode and forward over reverse are supported on every
      backend; forward mode alone only where `depthwise_conv_reference` is used.
    """
    if jax.default_backend() != "cpu":
        return depthwise_conv_reference(x, kernel, stride=stride, dilation=dilation)
    if stride == 1:
        return _shifted(x, kernel, dilation)
    return _strided(x, kernel, stride, dilation)


def depthwise_conv_reference(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    """The same by `lax.conv_general_dilated` with one feature group a channel."""
    edges, size, _, channels = kernel.shape
    _, batch, height, width, _ = x.shape
    padding = dilation * (size // 2)
    if x.shape[0] == 1:  # one convolution with E output channels for each input channel
        weights = kernel.transpose(1, 2, 3, 0).reshape(size, size, 1, channels * edges)
        inputs = x[0]
    else:
        weights = kernel.transpose(1, 2, 0, 3).reshape(size, size, 1, edges * channels)
        inputs = x.transpose(1, 2, 3, 0, 4).reshape(batch, height, width, edges * channels)
    y = lax.conv_general_dilated(
        inputs,
        weights,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=inputs.shape[-1],
    )
    if x.shape[0] == 1:
        return y.reshape(*y.shape[:3], channels, edges).transpose(4, 0, 1, 2, 3)
    return y.reshape(*y.shape[:3], edges, channels).transpose(3, 0, 1, 2, 4)


def _pad(x: jax.Array, padding: int) -> jax.Array:
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, [(0, 0, 0), (0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0)])


def _rows(x: jax.Array) -> jax.Array:
    """[E, B, H, W, C] -> [E, B, H, W * C]."""
    return x.reshape(*x.shape[:3], x.shape[3] * x.shape[4])


def _tap(kernel: jax.Array, i: int, j: int, width: int) -> jax.Array:
    """One tap as float[E, 1, 1, W * C]."""
    edges, _, _, channels = kernel.shape
    row = jnp.broadcast_to(kernel[:, i, j][:, None, :], (edges, width, channels))
    return row.reshape(edges, 1, 1, width * channels)


def _correlate(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    edges, size, _, channels = kernel.shape
    _, batch, height, width, _ = x.shape
    padded = _rows(_pad(x, dilation * (size // 2)))
    row = width * channels
    y = None
    for i in range(size):
        for j in range(size):
            start = j * dilation * channels
            part = padded[:, :, i * dilation : i * dilation + height, start : start + row] * _tap(kernel, i, j, width)
            y = part if y is None else y + part
    assert y is not None
    return y.reshape(edges, batch, height, width, channels)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shifted(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    return _correlate(x, kernel, dilation)


# The rules call plain functions: a rule that called `_shifted` could not be differentiated forward.
def _shifted_forward(x, kernel, dilation):  # type: ignore[no-untyped-def]
    return _correlate(x, kernel, dilation), (x, kernel)


def _shifted_backward(dilation, residuals, dy):  # type: ignore[no-untyped-def]
    x, kernel = residuals
    # The transpose of a "same" correlation is the correlation with the flipped kernel.
    dx = _correlate(dy, kernel[:, ::-1, ::-1], dilation)
    if x.shape[0] == 1:
        dx = dx.sum(axis=0, keepdims=True)
    return dx, _weight_gradient(x, dy, kernel.shape[1], dilation)


_shifted.defvjp(_shifted_forward, _shifted_backward)


def _weight_gradient(x: jax.Array, dy: jax.Array, size: int, dilation: int) -> jax.Array:
    """float[E, K, K, C]: the sum over batch and positions of a tap's input times the output's gradient."""
    _, batch, height, width, channels = x.shape
    edges = dy.shape[0]
    row = width * channels
    padded = _rows(_pad(x, dilation * (size // 2)))
    gradient = _rows(dy)

    def tap(index: jax.Array) -> jax.Array:
        i, j = index // size, index % size
        start = (0, 0, i * dilation, j * dilation * channels)
        window = lax.dynamic_slice(padded, start, (x.shape[0], batch, height, row))
        # Summing batch and height first keeps a wide last axis: XLA's CPU code for narrow ones is scalar.
        return (window * gradient).sum(axis=(1, 2)).reshape(edges, width, channels).sum(axis=1)

    taps = lax.map(tap, jnp.arange(size * size))
    return jnp.moveaxis(taps, 0, 1).reshape(edges, size, size, channels)


def _strided(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """Taps on the sub-grids that a stride visits, so that every slice stays contiguous in width times channels."""
    edges, size, _, channels = kernel.shape
    groups, batch, height, width, _ = x.shape
    padding = dilation * (size // 2)
    out_height, out_width = -(-height // stride), -(-width // stride)
    reach = dilation * (size - 1)
    # Rows and columns needed by the last output, rounded up to whole strides.
    tall = -(-(out_height * stride + reach) // stride) * stride
    wide = -(-(out_width * stride + reach) // stride) * stride
    bottom, right = tall - height - padding, wide - width - padding
    zero = jnp.zeros((), x.dtype)
    padded = lax.pad(x, zero, [(0, 0, 0), (0, 0, 0), (padding, bottom, 0), (padding, right, 0), (0, 0, 0)])
    grids = padded.reshape(groups, batch, tall // stride, stride, wide // stride, stride, channels)
    columns = wide // stride * channels
    row = out_width * channels
    y = None
    for i in range(size):
        for j in range(size):
            (top, row_phase), (left, column_phase) = divmod(i * dilation, stride), divmod(j * dilation, stride)
            grid = grids[:, :, :, row_phase, :, column_phase].reshape(groups, batch, tall // stride, columns)
            window = grid[:, :, top : top + out_height, left * channels : left * channels + row]
            part = window * _tap(kernel, i, j, out_width)
            y = part if y is None else y + part
    assert y is not None
    return y.reshape(edges, batch, out_height, out_width, channels)
