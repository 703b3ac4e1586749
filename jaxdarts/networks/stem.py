"""What surrounds the cells: the stem, the chain's layout, the classifier."""

from __future__ import annotations

from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdarts.networks.initial import uniform_initializer
from jaxdarts.networks.operations import BatchNorm, Conv


class Stem(nn.Module):
    """3x3 convolution and affine batch norm: images float[B, H, W, C] -> float[features, H, W, B]."""

    features: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, (3, 3), name="conv")(images.transpose(3, 1, 2, 0)[None])
        return BatchNorm(name="norm")(y, train)[0]


class Linear(nn.Module):
    """Fully connected layer with PyTorch's initialisation: float[B, C] -> float[B, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_initializer(x.shape[-1])
        kernel = self.param("kernel", init, (x.shape[-1], self.features), x.dtype)
        return x @ kernel + self.param("bias", init, (self.features,), x.dtype)


class Classifier(nn.Module):
    """Mean over positions, then a linear layer: float[C, H, W, B] -> float[B, num_classes]."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Linear(self.num_classes, name="linear")(jnp.mean(x, axis=(1, 2)).T)


def cell_layout(num_cells: int, channels: int) -> Iterator[tuple[str, int, bool]]:
    """(cell type, channels, whether the cell before was a reduction) for each cell of the chain."""
    previous_reduction = False
    for index in range(num_cells):
        reduction = index in (num_cells // 3, 2 * num_cells // 3)
        channels = 2 * channels if reduction else channels
        yield "reduce" if reduction else "normal", channels, previous_reduction
        previous_reduction = reduction
