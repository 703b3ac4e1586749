"""What surrounds the cells: the stem, residual blocks between them, the classifier."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdarts.networks import layers
from jaxdarts.networks.initial import parameter, uniform_initializer
from jaxdarts.networks.operations import BatchNorm, Conv, PointwiseConv


class Stem(nn.Module):
    """3x3 convolution and affine batch norm: images float[B, H, W, C] -> float[features, H, W, B]."""

    features: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, (3, 3), name="conv")(images.transpose(3, 1, 2, 0)[None])
        return BatchNorm(name="norm")([y], train)[0][0]


class Linear(nn.Module):
    """Fully connected layer with PyTorch's initialisation: float[B, C] -> float[B, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = uniform_initializer(x.shape[-1])
        kernel = parameter(self, "kernel", init, (x.shape[-1], self.features), x.dtype)
        return x @ kernel + parameter(self, "bias", init, (self.features,), x.dtype)[None]


class ResidualReduction(nn.Module):
    """NAS-Bench-201's block between stages: two 3x3 convolutions, the first with stride 2, beside a mean and a 1x1.

    float[C, H, W, B] -> float[features, ceil(H / 2), ceil(W / 2), B]. Each 3x3 follows a ReLU and is followed by an
    affine batch norm (Dong and Yang 2020).
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, (3, 3), (2, 2), name="conv_1")(layers.relu(x)[None])
        y = BatchNorm(name="norm_1")([y], train)[0]
        y = Conv(self.features, (3, 3), name="conv_2")(layers.relu(y))
        y = BatchNorm(name="norm_2")([y], train)[0]
        shortcut = PointwiseConv(self.features, name="shortcut")(layers.halve_by_means(x)[None])
        return (shortcut + y)[0]


class Classifier(nn.Module):
    """Mean over positions, then a linear layer: float[C, H, W, B] -> float[B, num_classes].

    With `normalise` an affine batch norm and a ReLU come first.
    """

    num_classes: int
    normalise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.normalise:
            x = layers.relu(BatchNorm(name="norm")([x[None]], train)[0])[0]
        return Linear(self.num_classes, name="linear")(jnp.mean(x, axis=(1, 2)).T)
