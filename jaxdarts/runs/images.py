"""How do a data set's stored images become a network's batches?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.data import Dataset, augment, normalise, take_batch, to_unit
from jaxdarts.methods import Batch
from jaxdarts.runs.folder import RunConfig


def array_dtype(precision: str) -> jnp.dtype:
    """Of weights, alpha and images; with bfloat16 only what goes through the network is narrower."""
    return jnp.dtype(jnp.float32 if precision == "bfloat16" else precision)


def on_device(dataset: Dataset, part: np.ndarray) -> Batch:
    """Some training images as they are stored (uint8 or float)."""
    return Batch(jnp.asarray(dataset.train_images[part]), jnp.asarray(dataset.train_labels[part]))


def augmented_batch(config: RunConfig, dataset: Dataset, data: Batch, indices: jax.Array, key: jax.Array) -> Batch:
    """A batch to train on, changed at random as the configuration says."""
    images, labels = take_batch(data, indices)
    images = augment(
        key,
        images,
        dataset.mean,
        dataset.std,
        padding=config.crop_padding,
        flip=config.flip,
        cutout_length=config.cutout_length if config.cutout else 0,
    )
    return Batch(images.astype(array_dtype(config.precision)), labels)


def plain_batch(config: RunConfig, dataset: Dataset, data: Batch, indices: jax.Array) -> Batch:
    """A batch to measure on: normalised, nothing else."""
    images, labels = take_batch(data, indices)
    images = normalise(to_unit(images), dataset.mean, dataset.std)
    return Batch(images.astype(array_dtype(config.precision)), labels)
