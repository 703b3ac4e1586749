"""Which operations can stand on an edge? To add one, give it an entry in OPERATIONS.

An operation is data: the linear layers that it is made of, each of which follows a ReLU and is followed by a batch
norm, or a function without parameters. Cells take the layers of all operations that read one state together
(`networks/cell.py`). Definitions and order of layers follow Liu et al. 2019 and Zela et al. 2020.

Axes: R rows, C channels, H height, W width, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdarts.networks import kernels, layers
from jaxdarts.networks.initial import parameter, uniform_initializer
from jaxdarts.networks.layers import Normalised, Statistics
from jaxdarts.networks.separable import Kernels


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's conventions: float[X, C, H, W, B] -> float[X or R, C, H, W, B].

    Takes the X rows as one array or several, and gives as many. In training some may be normalised already; what is
    left then is to keep their statistics.

    Attributes:
      rows: R, rows of statistics.
      affine: learn a scale and a bias for each row and channel.
      reads: the input row that each row of statistics is of; None: its own. Rows of one input differ in nothing but
        their running statistics, so that training returns X rows; evaluation returns R.
    """

    rows: int = 1
    affine: bool = True
    reads: tuple[int, ...] | None = None

    @nn.compact
    def __call__(self, parts: Sequence[jax.Array | Normalised], train: bool) -> list[jax.Array]:
        first = parts[0].y if isinstance(parts[0], Normalised) else parts[0]
        shape = (self.rows, first.shape[1])
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, layers.statistics_dtype(first))
        variance = self.variable("batch_stats", "variance", jnp.ones, shape, layers.statistics_dtype(first))
        running = Statistics(mean.value, variance.value)
        if train:
            normalised = [
                part if isinstance(part, Normalised) else Normalised(*layers.standardise(part)) for part in parts
            ]
            results = [part.y for part in normalised]
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                batches = lax.stop_gradient([part.statistics for part in normalised])
                count = math.prod(first.shape[2:])
                mean.value, variance.value = layers.running_after(running, batches, self.reads, count)
        else:
            (x,) = parts
            assert not isinstance(x, Normalised)
            each = x if self.reads is None else layers.take_rows(x, self.reads)
            results = [layers.batch_norm(each, running)]
        if not self.affine:
            return results
        scale = parameter(self, "scale", nn.initializers.ones, shape, first.dtype)
        bias = parameter(self, "bias", nn.initializers.zeros, shape, first.dtype)
        stops = np.cumsum([len(y) for y in results])[:-1]
        affine = zip(results, jnp.split(scale, stops), jnp.split(bias, stops), strict=True)
        return [layers.scale_and_shift(*both) for both in affine]


class PointwiseConv(nn.Module):
    """1x1 convolution without bias, one for each row: float[1 or R, C, H, W, B] -> float[R, features, H, W, B]."""

    features: int
    edges: int = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.pointwise_conv(x, self.kernel(x))

    def normalised(self, x: jax.Array, grid: int | None = None) -> Normalised:
        """After a ReLU, and followed by a batch norm, by a kernel; of the sub-grid that begins there, None: of all."""
        return kernels.pointwise_norm(x, self.kernel(x), *((1, 0) if grid is None else (2, grid)))

    @nn.compact
    def kernel(self, x: jax.Array) -> jax.Array:
        """float[edges, features, C]."""
        channels = x.shape[1]
        shape = (self.edges, self.features, channels)
        return parameter(self, "kernel", uniform_initializer(channels), shape, x.dtype)


class Conv(nn.Module):
    """Dense convolution without bias, one for each row: float[1 or R, C, H, W, B] -> float[R, features, H', W', B]."""

    features: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.edges, *self.size, x.shape[1], self.features)
        kernel = parameter(
            self, "kernel", uniform_initializer(self.size[0] * self.size[1] * x.shape[1]), shape, x.dtype
        )
        return layers.conv(x, kernel, self.stride)


class DenseConv(nn.Module):
    """A convolution without bias that keeps the channels, for E edges: float[1 or E, C, H, W, B] -> float[E, ...]."""

    size: int
    stride: int = 1
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.size == 1:
            return PointwiseConv(x.shape[1], self.edges, name="conv")(x[..., :: self.stride, :: self.stride, :])
        channels = x.shape[1]
        shape = (self.edges, self.size, self.size, channels, channels)
        kernel = parameter(self, "kernel", uniform_initializer(self.size**2 * channels), shape, x.dtype)
        if x.shape[0] == 1:
            return layers.shared_conv(x, kernel, self.stride)
        return layers.conv(x, kernel, (self.stride, self.stride))


class Separable(nn.Module):
    """A depthwise convolution, then 1x1, for E edges. Gives its kernels: cells compute many of them at once."""

    size: int
    stride: int = 1
    dilation: int = 1
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> Kernels:
        channels = x.shape[1]
        taps, square = (self.edges, channels, self.size, self.size), (self.edges, channels, channels)
        depthwise = parameter(self, "depthwise", uniform_initializer(self.size**2), taps, x.dtype)
        pointwise = parameter(self, "pointwise", uniform_initializer(channels), square, x.dtype)
        return Kernels(depthwise, pointwise, self.dilation)


class Strip(nn.Module):
    """A 1x7 convolution (stride on the width), then 7x1 (stride on the height), for E edges."""

    stride: int = 1
    edges: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[1]
        y = Conv(channels, (1, 7), (1, self.stride), self.edges, name="conv_1")(x)
        return Conv(channels, (7, 1), (self.stride, 1), self.edges, name="conv_2")(y)


class FactorizedReduce(nn.Module):
    """Halves height and width: two 1x1 convolutions on the even and odd sub-grids, concatenated, for E edges.

    `features` None: as many as there are. The first convolution makes the larger half of an odd number.
    """

    features: int | None = None
    edges: int = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        pairs = zip(self.convolutions(x), layers.factorized_halves(x), strict=True)
        return jnp.concatenate([module(half) for module, half in pairs], axis=1)

    def normalised(self, x: jax.Array) -> Normalised:
        """After a ReLU, and followed by a batch norm, by kernels."""
        halves = [module.normalised(x, grid) for grid, module in enumerate(self.convolutions(x))]
        return jax.tree.map(lambda *both: jnp.concatenate(both, axis=1), *halves)

    @nn.compact
    def convolutions(self, x: jax.Array) -> tuple[PointwiseConv, PointwiseConv]:
        """Of the even and of the odd sub-grid."""
        features = x.shape[1] if self.features is None else self.features
        second = features // 2
        return (
            PointwiseConv(features - second, self.edges, name="conv_1"),
            PointwiseConv(second, self.edges, name="conv_2"),
        )


Direct = Callable[[jax.Array, int], jax.Array]
"""(state float[1, C, H, W, B], stride) -> float[1, C, H', W', B], the same for all edges."""


@dataclass(frozen=True)
class Operation:
    """What an operation computes at a stride.

    Attributes:
      layers: builders of Flax modules `module(edges=..., name=...)`, applied one after the other, each to the ReLU of
        what came before and followed by a batch norm. The first one has the stride.
      direct: where there are no layers, a function without parameters; None: contributes nothing.
      normalise: `direct` is followed by a batch norm in the search network (never affine).
      kernel: `direct` and that batch norm in training, where kernels are usable, of float[1, C, H, W, B].
      random: instead of all that, every edge gets standard normal values of its own, which the cell draws.
      drops: in training a network may drop elements of the result at random, for each edge its own.
    """

    layers: Sequence[Callable[..., nn.Module]] = ()
    direct: Direct | None = None
    normalise: bool = False
    kernel: Callable[[jax.Array], Normalised] | None = None
    random: bool = False
    drops: bool = False


def _separable_twice(size: int, stride: int) -> Operation:
    return Operation((partial(Separable, size=size, stride=stride), partial(Separable, size=size)))


def _dilated(size: int, stride: int) -> Operation:
    return Operation((partial(Separable, size=size, stride=stride, dilation=2),))


def _plain(size: int, stride: int) -> Operation:
    return Operation((partial(DenseConv, size=size, stride=stride),))


def _strip(stride: int) -> Operation:
    return Operation((partial(Strip, stride=stride),))


def _skip(stride: int) -> Operation:
    """The identity, or a factorised reduction where the edge has stride 2."""
    return Operation((FactorizedReduce,)) if stride == 2 else Operation(direct=lambda x, _: x, drops=True)


def _pool(pool: Callable[[jax.Array, int], jax.Array], largest: bool, stride: int) -> Operation:
    normalised = partial(kernels.pool_norm, stride=stride, largest=largest)
    return Operation(direct=lambda x, stride: pool(x[0], stride)[None], normalise=True, kernel=normalised)


def _noise(stride: int) -> Operation:
    """Standard normal values that ignore the input, in evaluation too (space S4)."""
    return Operation(random=True)


def _nothing(stride: int) -> Operation:
    """No connection. Differs from the references: not 0 * x, which lets NaN through."""
    return Operation()


OPERATIONS: dict[str, Callable[[int], Operation]] = {
    "none": _nothing,
    "noise": _noise,
    "avg_pool_3x3": partial(_pool, layers.avg_pool_3x3, False),
    "max_pool_3x3": partial(_pool, layers.max_pool_3x3, True),
    "skip_connect": _skip,
    "sep_conv_3x3": partial(_separable_twice, 3),
    "sep_conv_5x5": partial(_separable_twice, 5),
    "sep_conv_7x7": partial(_separable_twice, 7),
    "dil_conv_3x3": partial(_dilated, 3),
    "dil_conv_5x5": partial(_dilated, 5),
    "conv_7x1_1x7": _strip,
    "nor_conv_1x1": partial(_plain, 1),
    "nor_conv_3x3": partial(_plain, 3),
}
"""Name -> (stride 1 or 2 -> operation)."""
