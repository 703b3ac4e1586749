"""How do stored images become the batches of a run?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxdarts.data import Dataset, augment, load_dataset, normalise, take_batch, to_unit
from jaxdarts.methods import Batch
from jaxdarts.runs.devices import replicate, split_batch
from jaxdarts.runs.folder import RunConfig
from jaxdarts.runs.search.config import SearchConfig


class SearchData(NamedTuple):
    """Both halves of the training images, on the device."""

    train: Batch  # images as stored (uint8 or float), [N, H, W, C]
    valid: Batch


def read_dataset(config: RunConfig) -> Dataset:
    """The data set that a configuration names. Raises InputError where it cannot be used."""
    return load_dataset(
        config.dataset,
        None if config.data_dir is None else Path(config.data_dir),
        download=config.download,
        limit=config.limit,
        test_limit=None if isinstance(config, SearchConfig) else config.test_limit,
        image_size=config.image_size,
        seed=data_seed(config),
    )


def data_seed(config: RunConfig) -> int:
    """From which the data's own randomness follows."""
    given = config.data_seed if isinstance(config, SearchConfig) else None
    return config.seed if given is None else given


def on_device(dataset: Dataset, part: np.ndarray, mesh: Mesh | None = None) -> Batch:
    """The training images with these indices, as stored; on every device of the mesh."""
    return replicate(Batch(jnp.asarray(dataset.train_images[part]), jnp.asarray(dataset.train_labels[part])), mesh)


def augmented(
    config: RunConfig,
    dataset: Dataset,
    data: Batch,
    indices: jax.Array,
    key: jax.Array,
    cutout_probability: ArrayLike = 1.0,
    mesh: Mesh | None = None,
) -> Batch:
    """A batch as it is trained on, split over the mesh. `cutout_probability`: of an image, where cutout is on."""
    images, labels = take_batch(data, indices)
    images = augment(
        key,
        images,
        dataset.mean,
        dataset.std,
        padding=config.crop_padding,
        flip=config.flip,
        cutout_length=config.cutout_length if config.cutout else 0,
        cutout_probability=cutout_probability,
    )
    return split_batch(Batch(images.astype(working_dtype(config)), labels), mesh)


def plain(config: RunConfig, dataset: Dataset, data: Batch, indices: jax.Array, mesh: Mesh | None = None) -> Batch:
    """A batch as it is measured on: normalised only; split over the mesh."""
    images, labels = take_batch(data, indices)
    images = normalise(to_unit(images), dataset.mean, dataset.std)
    return split_batch(Batch(images.astype(working_dtype(config)), labels), mesh)


def working_dtype(config: RunConfig) -> Any:
    """Of w, alpha and the images."""
    return jnp.dtype(jnp.float32 if config.precision == "bfloat16" else config.precision)


def compute_dtype(config: RunConfig) -> Any:
    """Of what goes through the network in a step, if that is another."""
    return jnp.bfloat16 if config.precision == "bfloat16" else None
