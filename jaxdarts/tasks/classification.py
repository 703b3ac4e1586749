"""Image classification: cross-entropy and accuracy on images that are augmented on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxdarts.data import (
    Dataset,
    augment,
    data_digest,
    epoch_order,
    eval_batches,
    load_dataset,
    normalise,
    random_batch_indices,
    split_indices,
    split_note,
    steps_per_epoch,
    take_batch,
    to_unit,
    train_batch_indices,
)
from jaxdarts.data.split import Order
from jaxdarts.errors import InputError
from jaxdarts.networks import DiscreteNetwork, NetworkCost, Supernet, network_cost
from jaxdarts.networks.functional import Network, Scores, discrete_network, relaxed_network
from jaxdarts.networks.macro import MACROS, cells_text
from jaxdarts.precision import compute_dtype
from jaxdarts.sharding import replicate, split_batch
from jaxdarts.spaces import Architecture, CellSpace
from jaxdarts.tasks.base import Loss, Metric, Stream, Task, Totals
from jaxdarts.tasks.image_memory import cells_to_rematerialise
from jaxdarts.tasks.kind import TaskKind


class Batch(NamedTuple):
    """Images ready for the network, and their classes."""

    images: jax.Array  # float[B, H, W, channels]
    labels: jax.Array  # int32[B]


METRICS: Mapping[str, Metric] = {"loss": Metric("less"), "accuracy": Metric("more", percent=True)}


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random, and the dtype in which all images go to the network."""

    batch_size: int
    flip: bool = True
    crop_padding: int = 0  # pixels of zero padding before the random crop; 0: none
    cutout_length: int = 0  # side of the square that is masked; 0: none
    dtype: Any = jnp.float32


class Images(NamedTuple):
    """A data set's parts on the device, as stored (uint8 or float)."""

    dataset: Dataset
    train: Batch  # [N, H, W, C]
    valid: Batch | None = None
    test: Batch | None = None
    mesh: Mesh | None = None  # of the devices that batches are split over
    notes: tuple[str, ...] = ()  # what was done to the data, for people


def loss(outputs: Scores, batch: Batch) -> tuple[jax.Array, Totals]:
    """Mean cross-entropy of a batch; reported with the number of right answers."""
    value = cross_entropy(outputs.main, batch.labels).mean()
    return value, _totals(value, outputs.main, batch)


def auxiliary_loss(weight: float) -> Loss:
    """What a training from scratch minimises: `weight` times the auxiliary head's loss is added, where there is one.

    Liu et al. 2019, section 3.2. What is reported is the network's own, and `auxiliary_loss`.
    """

    def with_auxiliary(outputs: Scores, batch: Batch) -> tuple[jax.Array, Totals]:
        main = cross_entropy(outputs.main, batch.labels).mean()
        other = jnp.zeros_like(main)
        if outputs.auxiliary is not None:
            other = cross_entropy(outputs.auxiliary, batch.labels).mean()
        totals = {**_totals(main, outputs.main, batch), "auxiliary_loss": (other, jnp.ones((), jnp.int32))}
        return main + weight * other, totals

    return with_auxiliary


def measure(outputs: Scores, batch: Batch, mask: jax.Array) -> Totals:
    """Sums over the examples where mask bool[B] holds: cross-entropy, right answers."""
    losses = cross_entropy(outputs.main, batch.labels)
    correct = outputs.main.argmax(axis=-1) == batch.labels
    count = mask.sum(dtype=jnp.int32)
    return {
        "loss": (jnp.where(mask, losses, 0).sum(), count),
        "accuracy": ((mask & correct).sum(dtype=jnp.int32), count),
    }


def _totals(value: jax.Array, scores: jax.Array, batch: Batch) -> Totals:
    # Batches of training have one size, so that a mean of means is the mean.
    correct = (scores.argmax(axis=-1) == batch.labels).sum(dtype=jnp.int32)
    return {"loss": (value, jnp.ones((), jnp.int32)), "accuracy": (correct, jnp.full((), len(batch.labels), jnp.int32))}


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """float[B] from scores float[B, classes] and labels int[B]."""
    # Not by indexing with the labels, whose reverse is a loop over the batch.
    return optax.softmax_cross_entropy(scores, jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype))


def bare_task(auxiliary_weight: float | None = None) -> Task:
    """The losses without data, for research code that draws its own batches; a weight adds an auxiliary head's loss."""
    inner = loss if auxiliary_weight is None else auxiliary_loss(auxiliary_weight)
    return Task(loss, inner, measure, METRICS, "accuracy", ("error", lambda means: 1 - means["accuracy"]))


def searching(images: Images, how: Augmentation, cutout_probability: float = 1.0) -> Task:
    """The task of a search: one part trains w, the other trains alpha and measures.

    Alpha's batch is drawn anew at every step, as the reference takes the first of a fresh shuffle.
    """
    assert images.valid is not None

    def valid_batch(data: Batch, cursor: Any, step: jax.Array, key: jax.Array) -> Batch:
        _, own_key, pick_key = jax.random.split(key, 3)
        indices = random_batch_indices(pick_key, data.labels.shape[0], how.batch_size)
        return _augmented(images, how, data, indices, own_key, cursor)

    def chance(key: jax.Array, epoch: int) -> jax.Array:
        return replicate(jnp.float32(cutout_probability), images.mesh)

    train = _shuffled(images, images.train, how, lambda key: jax.random.split(key, 3)[0], cutout_probability)
    valid = _stream(images, images.valid, how)._replace(start=chance, batch=valid_batch)
    return bare_task()._replace(
        train=train,
        valid=valid,
        facts=_facts(images.dataset),
        notes=images.notes,
        told=f"{images.dataset.name}: {train.size} images train w, {valid.size} train alpha; {_shape(images.dataset)}",
    )


def training(images: Images, how: Augmentation, auxiliary_weight: float) -> Task:
    """The task of a training from scratch: `images.train` is trained on, the other parts are measured."""
    held_out = "" if images.valid is None else f"{len(images.valid.labels)} held out, "
    tested = "" if images.test is None else f"{len(images.test.labels)} to test; "
    return bare_task(auxiliary_weight)._replace(
        train=_shuffled(images, images.train, how, lambda key: key, 1.0),
        valid=None if images.valid is None else _stream(images, images.valid, how),
        test=None if images.test is None else _stream(images, images.test, how),
        facts=_facts(images.dataset),
        notes=images.notes,
        told=f"{images.dataset.name}: {len(images.train.labels)} images to train on, {held_out}{tested}"
        f"{_shape(images.dataset)}",
    )


def _shuffled(
    images: Images, data: Batch, how: Augmentation, own_key: Callable[[jax.Array], jax.Array], cutout: float
) -> Stream:
    """Batches in an order that is new in every epoch."""
    stream = _stream(images, data, how)

    def start(key: jax.Array, epoch: int) -> tuple[jax.Array, jax.Array]:
        return replicate((_order(key, jnp.int32(epoch), stream.size), jnp.float32(cutout)), images.mesh)

    def batch(data: Batch, cursor: tuple[jax.Array, jax.Array], step: jax.Array, key: jax.Array) -> Batch:
        order, probability = cursor
        indices = train_batch_indices(order, step % stream.steps, how.batch_size)
        return _augmented(images, how, data, indices, own_key(key), probability)

    return stream._replace(start=start, batch=batch)


@partial(jax.jit, static_argnums=2)
def _order(key: jax.Array, epoch: jax.Array, num_images: int) -> jax.Array:
    return epoch_order(jax.random.fold_in(key, epoch), num_images)


def _stream(images: Images, data: Batch, how: Augmentation) -> Stream:
    """A part that is only measured."""
    size, dataset = len(data.labels), images.dataset

    def plain(data: Batch, indices: jax.Array) -> Batch:
        taken, labels = take_batch(data, indices)
        ready = normalise(to_unit(taken), dataset.mean, dataset.std)
        return split_batch(Batch(ready.astype(how.dtype), labels), images.mesh)

    def never(*arguments: Any) -> Any:
        raise AssertionError("this part is measured, not trained on")

    def held(data: Batch, number: jax.Array) -> Batch:
        return plain(data, number * how.batch_size + jnp.arange(how.batch_size))

    steps = steps_per_epoch(size, how.batch_size) if how.batch_size <= size else 0
    return Stream(
        data, size, steps, never, never, lambda: eval_batches(size, how.batch_size), plain, held, size // how.batch_size
    )


def _augmented(
    images: Images, how: Augmentation, data: Batch, indices: jax.Array, key: jax.Array, cutout_probability: ArrayLike
) -> Batch:
    """A batch as it is trained on, split over the mesh. `cutout_probability`: of an image, where cutout is on."""
    taken, labels = take_batch(data, indices)
    ready = augment(
        key,
        taken,
        images.dataset.mean,
        images.dataset.std,
        padding=how.crop_padding,
        flip=how.flip,
        cutout_length=how.cutout_length,
        cutout_probability=cutout_probability,
    )
    return split_batch(Batch(ready.astype(how.dtype), labels), images.mesh)


def _shape(dataset: Dataset) -> str:
    height, width, channels = dataset.image_shape
    return f"{height}x{width}x{channels}, {dataset.num_classes} classes"


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {"class_names": list(dataset.class_names), "data_digest": data_digest(dataset)}


def read_dataset(settings: Any, seed: int) -> Dataset:
    """The data set that settings name. Raises InputError where it cannot be used."""
    return load_dataset(
        settings.dataset,
        None if settings.data_dir is None else Path(settings.data_dir),
        download=settings.download,
        limit=settings.limit,
        test_limit=getattr(settings, "test_limit", None),
        image_size=settings.image_size,
        seed=seed,
    )


def read_search_images(settings: Any, mesh: Mesh | None = None) -> Images:
    """Both parts of a search's data. Raises InputError where it or a size cannot be used."""
    seed = settings.seed if settings.data_seed is None else settings.data_seed
    dataset = read_dataset(settings, seed)
    train, valid = split_indices(
        len(dataset.train_labels),
        settings.train_portion,
        cast(Order, settings.split),
        seed,
        labels=dataset.train_labels,
    )
    for name, part in (("trains w", train), ("trains alpha", valid)):
        if settings.batch_size > len(part):
            raise InputError(
                f"batch_size must be at most {len(part)}, the images in the part that {name} "
                f"(data set {settings.dataset!r}); got {settings.batch_size}"
            )
    on_device = [_on_device(dataset, part, mesh) for part in (train, valid)]
    note = split_note(train, valid, cast(Order, settings.split), seed)
    return Images(dataset, on_device[0], on_device[1], None, mesh, _notes(dataset, note))


def read_training_images(settings: Any, mesh: Mesh | None = None) -> Images:
    """All parts of a training's data. Raises InputError where it or a size cannot be used."""
    dataset = read_dataset(settings, settings.seed)
    if dataset.test_images is None or dataset.test_labels is None:
        raise InputError(f"dataset: {settings.dataset!r} has no test images, on which an evaluation reports its error")
    train, valid = _held_out(settings, dataset)
    test = replicate(Batch(jnp.asarray(dataset.test_images), jnp.asarray(dataset.test_labels)), mesh)
    held_out = _on_device(dataset, valid, mesh) if len(valid) else None
    note = split_note(train, valid, cast(Order, settings.split), settings.seed) if len(valid) else ""
    return Images(dataset, _on_device(dataset, train, mesh), held_out, test, mesh, _notes(dataset, note))


def augmentation(settings: Any, dtype: Any, cutout: bool | None = None) -> Augmentation:
    """How settings augment; `cutout` in place of theirs."""
    masks = settings.cutout if cutout is None else cutout
    return Augmentation(
        settings.batch_size,
        settings.flip,
        settings.crop_padding,
        settings.cutout_length if masks else 0,
        dtype,
    )


def _on_device(dataset: Dataset, part: np.ndarray, mesh: Mesh | None) -> Batch:
    """The training images with these indices, as stored; on every device of the mesh."""
    return replicate(Batch(jnp.asarray(dataset.train_images[part]), jnp.asarray(dataset.train_labels[part])), mesh)


def _notes(dataset: Dataset, *others: str) -> tuple[str, ...]:
    return (*dataset.notes, *filter(None, others))


def _held_out(settings: Any, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those held out."""
    size = len(dataset.train_labels)
    train, valid = np.arange(size, dtype=np.int32), np.arange(0, dtype=np.int32)
    if settings.valid_portion > 0:
        kept = math.floor((1 - settings.valid_portion) * size)
        if not 1 <= kept < size:
            raise InputError(
                f"valid_portion {settings.valid_portion} of {size} images leaves {kept} to train on and {size - kept} "
                "held out; both need at least 1"
            )
        train, valid = split_indices(
            size,
            1 - settings.valid_portion,
            cast(Order, settings.split),
            settings.seed,
            labels=dataset.train_labels,
            purposes=("is trained on", "is held out"),
        )
    if settings.batch_size > len(train):
        raise InputError(
            f"batch_size must be at most {len(train)}, the images to train on (data set {settings.dataset!r}); "
            f"got {settings.batch_size}"
        )
    return train, valid


# What plans ask for.


def _search(data: Images, settings: Any, dtype: Any) -> Task:
    return searching(data, augmentation(settings, dtype), float(settings.cutout))


def _member(task: Task, data: Images, common: Any, settings: Any, dtype: Any) -> Task:
    """As `task`, in the same programs, but for the images that have their square masked: all, or none."""
    other = searching(data, augmentation(common, dtype), float(settings.cutout))
    assert task.train is not None and task.valid is not None and other.train is not None and other.valid is not None
    return task._replace(
        train=task.train._replace(start=other.train.start), valid=task.valid._replace(start=other.valid.start)
    )


def _training(data: Images, settings: Any, dtype: Any) -> Task:
    return training(data, augmentation(settings, dtype), settings.auxiliary_weight)


def _relaxed(
    space: CellSpace, data: Images, settings: Any, dtype: Any, together: int, options: Mapping[str, Any]
) -> Network:
    """The supernet; `remat` auto is as few cells as keep a gradient within the memory."""
    dataset, compute = data.dataset, compute_dtype(settings.precision)

    def network(remat: int) -> Network:
        module = Supernet(space, dataset.num_classes, settings.channels, settings.cells, remat, **options)
        return relaxed_network(module, dataset.image_shape, dtype, compute)

    def example(size: int) -> Batch:
        return Batch(jnp.zeros((size, *dataset.image_shape), dtype), jnp.zeros(size, jnp.int32))

    if settings.remat == "auto":
        return network(cells_to_rematerialise(network, dataset.image_shape, example, loss, together))
    named = {"off": 0, "on": len(network(0).module.blocks)}
    return network(named[settings.remat] if settings.remat in named else int(settings.remat))


def _discrete(genotype: Architecture, data: Images, settings: Any, dtype: Any) -> Network:
    module = DiscreteNetwork(
        genotype,
        data.dataset.num_classes,
        settings.channels,
        settings.cells,
        auxiliary=settings.auxiliary_weight > 0 and MACROS[genotype.macro].auxiliary,
    )
    return discrete_network(module, data.dataset.image_shape, dtype, compute_dtype(settings.precision))


def _cost(genotype: Architecture, data: Images, settings: Any) -> NetworkCost:
    dataset = data.dataset
    return network_cost(genotype, dataset.num_classes, settings.channels, settings.cells, dataset.image_shape)


def _network_text(of: CellSpace | Architecture, settings: Any) -> str:
    return f"{cells_text(of.macro, settings.cells)}, {settings.channels} channels"


def _retrained_with(settings: Any) -> dict[str, Any]:
    shared = ("dataset", "data_dir", "batch_size", "image_size", "limit", "split", "flip", "crop_padding")
    return {
        "channels": settings.retrain_channels or settings.channels,
        "cells": settings.retrain_cells or settings.cells,
        "valid_portion": 1 - settings.train_portion,
        **{name: getattr(settings, name) for name in shared},
    }


CLASSIFICATION = TaskKind(
    subject="images",
    unit="an example",
    search_data=read_search_images,
    training_data=read_training_images,
    facts=lambda images: _facts(images.dataset),
    retraining_data=lambda images: images._replace(test=None),
    search=_search,
    member=_member,
    training=_training,
    relaxed=_relaxed,
    discrete=_discrete,
    network_text=_network_text,
    retrained_with=_retrained_with,
    cost=_cost,
    metrics=METRICS,
    objective="accuracy",
    result="error",
)
