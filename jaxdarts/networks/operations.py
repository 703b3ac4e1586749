"""Which operations can stand on an edge? To add one, write its Flax module and give it an entry in OPERATIONS.

A module computes one operation for E edges that read the same state: parameters have a leading axis E and
`module(x, rectified, train, key)` takes the state float[1, B, H, W, C] and its ReLU (shared by all operations that
start with one) and returns float[E or 1, B, H', W', C] with H' = ceil(H / stride); 1 where all edges get the same
values, and None for "contributes nothing". Definitions and order of layers follow Liu et al. 2019 and Zela et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdarts.errors import InputError
from jaxdarts.networks import layers
from jaxdarts.networks.depthwise import separable_conv
from jaxdarts.networks.layers import Statistics

Output = jax.Array | None


def uniform_initializer(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        # Drawing powers of two gives the generator few shapes: compiling a network's init takes seconds, not minutes.
        size = math.prod(shape)
        drawn = jax.random.uniform(key, (1 << (size - 1).bit_length(),), dtype, -1, 1)
        return bound * drawn[:size].reshape(shape)

    return init


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's conventions: float[E, B, H, W, C] -> the same.

    With `edges` larger than the input's first axis (pools, which all edges share) the statistics are kept once an edge.
    """

    edges: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (self.edges, x.shape[-1])
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, x.dtype)
        variance = self.variable("batch_stats", "variance", jnp.ones, shape, x.dtype)
        running = Statistics(mean.value, variance.value)
        if train:
            y, batch = layers.standardise(x)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = x.shape[1] * x.shape[2] * x.shape[3]
                mean.value, variance.value = layers.update_running_statistics(running, batch, count)
        else:
            y = layers.batch_norm(x, running)
        if not self.affine:
            return y
        scale = self.param("scale", nn.initializers.ones, shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, x.dtype)
        return layers.scale_and_shift(y, scale, bias)


class PointwiseConv(nn.Module):
    """1x1 convolution without bias, one for each edge."""

    features: int
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", uniform_initializer(channels), (self.edges, channels, self.features), x.dtype)
        return layers.pointwise_conv(x, kernel)


class DepthwisePointwise(nn.Module):
    """Depthwise convolution, then 1x1, both without bias, one pair for each edge."""

    size: int
    stride: int = 1
    dilation: int = 1
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        taps = (self.edges, self.size, self.size, channels)
        depthwise = self.param("depthwise", uniform_initializer(self.size**2), taps, x.dtype)
        pointwise = self.param("pointwise", uniform_initializer(channels), (self.edges, channels, channels), x.dtype)
        return separable_conv(x, depthwise, pointwise, stride=self.stride, dilation=self.dilation)


class Conv(nn.Module):
    """Dense convolution without bias, one for each edge."""

    features: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.edges, *self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", uniform_initializer(self.size[0] * self.size[1] * x.shape[-1]), shape, x.dtype)
        return layers.conv(x, kernel, self.stride)


class FactorizedReduce(nn.Module):
    """Halves height and width: two 1x1 convolutions on the even and odd sub-grids, concatenated, batch norm.

    Takes an input already rectified. The first convolution makes the larger half of an odd number of features.
    """

    features: int
    edges: int = 1
    affine: bool = True

    @nn.compact
    def __call__(self, rectified: jax.Array, train: bool) -> jax.Array:
        even, odd = layers.factorized_halves(rectified)
        second = self.features // 2
        first = PointwiseConv(self.features - second, self.edges, name="conv_1")(even)
        y = jnp.concatenate([first, PointwiseConv(second, self.edges, name="conv_2")(odd)], axis=-1)
        return BatchNorm(self.edges, self.affine, name="norm")(y, train)


class ReLUConvBN(nn.Module):
    """1x1 convolution and batch norm of an input already rectified (a cell's preprocessing)."""

    features: int
    affine: bool = True

    @nn.compact
    def __call__(self, rectified: jax.Array, train: bool) -> jax.Array:
        y = PointwiseConv(self.features, name="conv")(rectified)
        return BatchNorm(1, self.affine, name="norm")(y, train)


class Operation(nn.Module):
    """Base of the operations: the fields that every one has."""

    edges: int = 1
    stride: int = 1
    affine: bool = True
    normalise_pools: bool = False  # the search network's pools are followed by a batch norm (never affine)


class Zero(Operation):
    """`none`: no connection. Differs from the references: not 0 * x, which lets NaN through."""

    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        return None


class Noise(Operation):
    """`noise`: standard normal values that ignore the input, in evaluation too (space S4)."""

    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        if key is None:
            if train and not self.is_initializing():
                raise InputError("key: a network with the operation 'noise' needs a random key in training")
            key = jax.random.key(0)
        _, batch, height, width, channels = x.shape
        shape = (self.edges, batch, -(-height // self.stride), -(-width // self.stride), channels)
        return jax.random.normal(key, shape, x.dtype)


class Identity(Operation):
    """`skip_connect`: the identity, or a factorised reduction where the edge has stride 2."""

    @nn.compact
    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        if self.stride == 1:
            return x
        return FactorizedReduce(x.shape[-1], self.edges, self.affine, name="reduce")(rectified, train)


class Pool(Operation):
    """3x3 pooling with padding 1."""

    pool: Callable[[jax.Array, int], jax.Array] = layers.max_pool_3x3

    @nn.compact
    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        y = self.pool(x[0], self.stride)[None]
        return BatchNorm(self.edges, affine=False, name="norm")(y, train) if self.normalise_pools else y


class SeparableConv(Operation):
    """Twice: ReLU, depthwise (the first with the stride), 1x1, batch norm."""

    size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        y = DepthwisePointwise(self.size, self.stride, 1, self.edges, name="conv_1")(rectified)
        y = layers.relu(BatchNorm(self.edges, self.affine, name="norm_1")(y, train))
        y = DepthwisePointwise(self.size, 1, 1, self.edges, name="conv_2")(y)
        return BatchNorm(self.edges, self.affine, name="norm_2")(y, train)


class DilatedConv(Operation):
    """ReLU, depthwise with dilation 2, 1x1, batch norm."""

    size: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        y = DepthwisePointwise(self.size, self.stride, 2, self.edges, name="conv_1")(rectified)
        return BatchNorm(self.edges, self.affine, name="norm_1")(y, train)


class StripConv(Operation):
    """`conv_7x1_1x7`: ReLU, 1x7 (stride on the width), 7x1 (stride on the height), batch norm."""

    @nn.compact
    def __call__(self, x: jax.Array, rectified: jax.Array, train: bool, key: jax.Array | None) -> Output:
        channels = x.shape[-1]
        y = Conv(channels, (1, 7), (1, self.stride), self.edges, name="conv_1")(rectified)
        y = Conv(channels, (7, 1), (self.stride, 1), self.edges, name="conv_2")(y)
        return BatchNorm(self.edges, self.affine, name="norm_1")(y, train)


OPERATIONS: dict[str, Callable[..., Operation]] = {
    "none": Zero,
    "noise": Noise,
    "avg_pool_3x3": partial(Pool, pool=layers.avg_pool_3x3),
    "max_pool_3x3": partial(Pool, pool=layers.max_pool_3x3),
    "skip_connect": Identity,
    "sep_conv_3x3": partial(SeparableConv, size=3),
    "sep_conv_5x5": partial(SeparableConv, size=5),
    "sep_conv_7x7": partial(SeparableConv, size=7),
    "dil_conv_3x3": partial(DilatedConv, size=3),
    "dil_conv_5x5": partial(DilatedConv, size=5),
    "conv_7x1_1x7": StripConv,
}
