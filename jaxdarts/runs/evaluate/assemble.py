"""How does a configuration become data, a genotype's network and the compiled functions of its training?"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdarts.bilevel import weight_optimiser
from jaxdarts.data import (
    Dataset,
    epoch_order,
    eval_batches,
    split_indices,
    steps_per_epoch,
    train_batch_indices,
)
from jaxdarts.data.split import Order
from jaxdarts.errors import InputError
from jaxdarts.keys import run_keys
from jaxdarts.methods import Batch, RetrainInfo, RetrainMethod, RetrainProblem, RetrainState, retraining
from jaxdarts.methods.retraining import retrained_sums
from jaxdarts.networks import OPERATIONS, DiscreteNetwork, NetworkCost, network_cost
from jaxdarts.networks.macro import MACROS, check_cells
from jaxdarts.runs.devices import data_mesh, replicate
from jaxdarts.runs.evaluate.config import EvaluateConfig, TrainingConfig
from jaxdarts.runs.inputs import augmented, compute_dtype, on_device, plain, read_dataset, working_dtype
from jaxdarts.spaces import Architecture, find_genotype, load_space


class RetrainSums(NamedTuple):
    """Sums of an epoch's RetrainInfo so far: part of a checkpoint, so that an epoch can be taken up in its middle."""

    train_loss: jax.Array
    train_correct: jax.Array
    auxiliary_loss: jax.Array
    gradient_norm: jax.Array

    @classmethod
    def zero(cls, dtype: Any) -> RetrainSums:
        """The sums of no steps."""
        return cls(jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), dtype), jnp.zeros((), dtype))


class Images(NamedTuple):
    """A training's data, on the device, as stored (uint8 or float)."""

    dataset: Dataset
    train: Batch  # [N, H, W, C]
    valid: Batch | None  # held out of the training images
    test: Batch | None  # None: nothing is tested
    mesh: Mesh | None = None  # of the devices that batches are split over


class Training(NamedTuple):
    """How one genotype is trained, whatever the seed; the functions are jitted, and compile when first called."""

    problem: RetrainProblem
    steps_per_epoch: int
    init: Callable[[jax.Array], RetrainState]  # key -> state
    order: Callable[[jax.Array, jax.Array], jax.Array]  # (key, epoch) -> the order of the epoch's training images
    step: Callable[..., tuple[RetrainState, RetrainSums, jax.Array]]  # (key, state, sums, data, order); donates two
    measure: Callable[[RetrainState, Batch], tuple[float, float]]  # loss and accuracy on images as stored


class Evaluation(NamedTuple):
    """All that a run needs; the functions are jitted, and compile when first called."""

    config: EvaluateConfig
    mesh: Mesh | None  # of the devices that batches are split over
    genotype: Architecture
    dataset: Dataset
    data: Batch  # images to train on, as stored (uint8 or float), [N, H, W, C], on the device
    valid: Batch | None  # held out of them
    test: Batch | None  # None: nothing is tested
    problem: RetrainProblem
    cost: NetworkCost
    steps_per_epoch: int
    init: Callable[[], RetrainState]
    order: Callable[[int], jax.Array]  # epoch -> the order of its training images
    step: Callable[..., tuple[RetrainState, RetrainSums, jax.Array]]  # (state, sums, data, order); donates two
    measure: Callable[[RetrainState, Batch], tuple[float, float]]  # loss and accuracy on images as stored


def choose_genotype(config: EvaluateConfig) -> Architecture:
    """The genotype that a configuration names.

    Raises:
      InputError: there is none, its network cannot be built, it does not belong to `config.space`, or it needs more
        cells.
    """
    genotype = find_genotype(config.genotype, OPERATIONS)
    if config.space is not None:
        load_space(config.space, OPERATIONS).check_genotype(genotype)
    check_cells(genotype.macro, config.cells)
    return genotype


def assemble_evaluation(config: EvaluateConfig, genotype: Architecture) -> Evaluation:
    """Reads the data and prepares everything; compiles nothing.

    Raises:
      InputError: the data, a size or the number of devices cannot be used.
    """
    mesh = data_mesh(config.devices, config.batch_size)
    return build_evaluation(config, genotype, read_images(config, mesh))


def build_evaluation(config: EvaluateConfig, genotype: Architecture, images: Images) -> Evaluation:
    """An evaluation on images that are on the device already; compiles nothing."""
    training = assemble_training(config, genotype, images)
    init_key, order_key, draw_key = seed_keys(config.seed)
    return Evaluation(
        config=config,
        mesh=images.mesh,
        genotype=genotype,
        dataset=images.dataset,
        data=images.train,
        valid=images.valid,
        test=images.test,
        problem=training.problem,
        cost=training_cost(config, genotype, images.dataset),
        steps_per_epoch=training.steps_per_epoch,
        init=lambda: training.init(init_key),
        order=lambda epoch: replicate(training.order(order_key, jnp.int32(epoch)), images.mesh),
        step=partial(training.step, draw_key),
        measure=training.measure,
    )


def seed_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The keys of a training's `init`, `order` and `step`."""
    keys = run_keys(seed)
    return keys.init, keys.order, keys.batches


def read_images(config: TrainingConfig, mesh: Mesh | None = None) -> Images:
    """Reads the data, onto every device of the mesh. Raises InputError where it or a size cannot be used."""
    dataset = read_dataset(config)
    if dataset.test_images is None or dataset.test_labels is None:
        raise InputError(f"dataset: {config.dataset!r} has no test images, on which an evaluation reports its error")
    train, valid = _split(config, dataset)
    test = replicate(Batch(jnp.asarray(dataset.test_images), jnp.asarray(dataset.test_labels)), mesh)
    held_out = on_device(dataset, valid, mesh) if len(valid) else None
    return Images(dataset, on_device(dataset, train, mesh), held_out, test, mesh)


def training_cost(config: TrainingConfig, genotype: Architecture, dataset: Dataset) -> NetworkCost:
    """The size of the network that is trained."""
    return network_cost(genotype, dataset.num_classes, config.channels, config.cells, dataset.image_shape)


def assemble_training(config: TrainingConfig, genotype: Architecture, images: Images) -> Training:
    """Prepares the functions of a genotype's training; compiles nothing."""
    dataset, size = images.dataset, len(images.train.labels)
    network = DiscreteNetwork(
        genotype, dataset.num_classes, config.channels, config.cells, auxiliary=has_auxiliary_head(config, genotype)
    )
    problem = RetrainProblem(
        network,
        dataset.image_shape,
        config.auxiliary_weight,
        working_dtype(config),
        compute_dtype=compute_dtype(config),
    )
    method = retraining(
        problem,
        optimiser=weight_optimiser(
            config.learning_rate, config.momentum, config.l2, config.clip_norm, nesterov=config.nesterov
        ),
        uses_drop_path=config.drop_path > 0,
    )
    steps = steps_per_epoch(size, config.batch_size)
    return Training(
        problem=problem,
        steps_per_epoch=steps,
        init=jax.jit(method.init),
        order=jax.jit(lambda key, epoch: epoch_order(jax.random.fold_in(key, epoch), size)),
        step=_step(config, dataset, method, steps, images.mesh),
        measure=_measure(config, dataset, problem, images.mesh),
    )


def has_auxiliary_head(config: TrainingConfig, genotype: Architecture) -> bool:
    """Whether the network that is trained has one: networks of NAS-Bench-201 have none, whatever its weight."""
    return config.auxiliary_weight > 0 and MACROS[genotype.macro].auxiliary


def _split(config: TrainingConfig, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those held out."""
    size = len(dataset.train_labels)
    train, valid = np.arange(size, dtype=np.int32), np.arange(0, dtype=np.int32)
    if config.valid_portion > 0:
        kept = math.floor((1 - config.valid_portion) * size)
        if not 1 <= kept < size:
            raise InputError(
                f"valid_portion {config.valid_portion} of {size} images leaves {kept} to train on and {size - kept} "
                "held out; both need at least 1"
            )
        train, valid = split_indices(
            size,
            1 - config.valid_portion,
            cast(Order, config.split),
            config.seed,
            labels=dataset.train_labels,
            purposes=("is trained on", "is held out"),
        )
    if config.batch_size > len(train):
        raise InputError(
            f"batch_size must be at most {len(train)}, the images to train on (data set {config.dataset!r}); "
            f"got {config.batch_size}"
        )
    return train, valid


def _step(
    config: TrainingConfig, dataset: Dataset, method: RetrainMethod, steps: int, mesh: Mesh | None
) -> Callable[..., tuple[RetrainState, RetrainSums, jax.Array]]:
    """One step on a batch drawn on the device. The third result is finite as long as everything is."""

    def step(
        key: jax.Array, state: RetrainState, sums: RetrainSums, data: Batch, order: jax.Array
    ) -> tuple[RetrainState, RetrainSums, jax.Array]:
        indices = train_batch_indices(order, state.step % steps, config.batch_size)
        batch = augmented(config, dataset, data, indices, jax.random.fold_in(key, state.step), mesh=mesh)
        state, info = method.step(state, batch)
        sums = jax.tree.map(lambda total, value: total + value.astype(total.dtype), sums, RetrainSums(*info))
        return state, sums, _finite(info)

    return jax.jit(step, donate_argnums=(1, 2))


def _finite(info: RetrainInfo) -> jax.Array:
    return info.train_loss + info.auxiliary_loss + info.gradient_norm


def _measure(
    config: TrainingConfig, dataset: Dataset, problem: RetrainProblem, mesh: Mesh | None
) -> Callable[[RetrainState, Batch], tuple[float, float]]:
    @jax.jit
    def sums(
        params: Any, batch_stats: Any, data: Batch, indices: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return retrained_sums(problem, params, batch_stats, plain(config, dataset, data, indices, mesh), mask)

    def measure(state: RetrainState, data: Batch) -> tuple[float, float]:
        size = data.labels.shape[0]
        totals = [
            sums(state.params, state.batch_stats, data, jnp.asarray(indices), jnp.asarray(mask))
            for indices, mask in eval_batches(size, config.batch_size)
        ]
        loss = sum(float(loss) for loss, _ in totals)
        correct = sum(int(correct) for _, correct in totals)
        return loss / size, correct / size

    return measure
