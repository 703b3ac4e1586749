"""How does a configuration become data, a search method and the compiled functions of a run?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdarts.bilevel import Parts, alpha_product, set_hyperparameters
from jaxdarts.data import (
    Dataset,
    epoch_order,
    random_batch_indices,
    split_indices,
    steps_per_epoch,
    train_batch_indices,
)
from jaxdarts.data.split import Order
from jaxdarts.errors import InputError
from jaxdarts.keys import run_keys
from jaxdarts.methods import Batch, LossInputs, SearchInfo, SearchMethod, SearchProblem, SearchState
from jaxdarts.networks import OPERATIONS
from jaxdarts.runs.devices import data_mesh, replicate
from jaxdarts.runs.inputs import SearchData, augmented, data_seed, on_device, plain, read_dataset
from jaxdarts.runs.nasbench201.benchmark import find_benchmark
from jaxdarts.runs.search.build import build_method, build_problem
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.regularisers import temperature
from jaxdarts.runs.search.validate import Validator
from jaxdarts.spaces import Benchmark, CellSpace, load_space


class EpochSums(NamedTuple):
    """Sums over the steps of an epoch so far: part of a checkpoint, so that an epoch can be taken up in its middle."""

    train_loss: jax.Array
    train_correct: jax.Array
    alpha_loss: jax.Array
    hypergradient_norm: jax.Array

    @classmethod
    def zero(cls, dtype: Any) -> EpochSums:
        """The sums of no steps."""
        return cls(jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), dtype), jnp.zeros((), dtype))


class Draws(NamedTuple):
    """What the steps of an epoch draw their batches from."""

    order: jax.Array  # int32[N], the epoch's order of the training images
    key: jax.Array  # typed key; the randomness of a step's batches follows from it and the step
    cutout: jax.Array  # scalar, the probability that an image has its square masked, where cutout is on


class Search(NamedTuple):
    """All that a run needs; the functions are jitted, and compile when first called."""

    config: SearchConfig
    mesh: Mesh | None  # of the devices that batches are split over
    space: CellSpace
    dataset: Dataset
    data: SearchData
    problem: SearchProblem
    method: SearchMethod
    steps_per_epoch: int
    init: Callable[[], SearchState]
    order: Callable[[int], Draws]  # epoch -> what its steps draw from
    step: Callable[
        ..., tuple[SearchState, EpochSums, jax.Array]
    ]  # (state, sums, data, draws); may donate the first two
    validate: Validator  # loss and accuracy on the validation half
    hessian_product: Callable[[SearchState, Any], Any]  # Hessian of the outer objective in alpha, times a vector
    benchmark: Benchmark | None = None  # in which genotypes are looked up


def assemble(config: SearchConfig, together: int = 1) -> Search:
    """Reads the data and prepares everything; compiles nothing. `together`: searches computed at a time, for memory.

    Raises:
      InputError: the space, the data, a size or the number of devices cannot be used.
    """
    mesh = data_mesh(config.devices, config.batch_size)
    space = load_space(config.space, OPERATIONS)
    benchmark = find_benchmark(config, space)
    dataset = read_dataset(config)
    train, valid = split_indices(
        len(dataset.train_labels),
        config.train_portion,
        cast(Order, config.split),
        data_seed(config),
        labels=dataset.train_labels,
    )
    for name, part in (("trains w", train), ("trains alpha", valid)):
        if config.batch_size > len(part):
            raise InputError(
                f"batch_size must be at most {len(part)}, the images in the part that {name} "
                f"(data set {config.dataset!r}); got {config.batch_size}"
            )
    if config.curvature_batches > len(valid) // config.batch_size:
        raise InputError(
            f"curvature_batches must be at most {len(valid) // config.batch_size}: the {len(valid)} images in the part "
            f"that trains alpha (data set {config.dataset!r}) are so many batches of {config.batch_size}; "
            f"got {config.curvature_batches}"
        )
    problem = build_problem(config, space, dataset.num_classes, dataset.image_shape, together)
    method = build_method(config, problem)
    if method.relax is not None:
        problem = problem._replace(relax=method.relax)
    data = SearchData(*(on_device(dataset, part, mesh) for part in (train, valid)))
    steps = steps_per_epoch(len(train), config.batch_size)
    init, order = starting(config, jax.jit(method.init), len(train), mesh)
    parts = Parts()  # of the steps and of the curvature, which have their mixed product in common
    return Search(
        config=config,
        mesh=mesh,
        space=space,
        dataset=dataset,
        data=data,
        problem=problem,
        method=method,
        steps_per_epoch=steps,
        init=init,
        order=order,
        step=_step(config, dataset, method, steps, mesh, parts),
        validate=Validator(config, dataset, problem, data, mesh),
        hessian_product=parts.run(_hessian_product(config, dataset, problem, data, mesh)),
        benchmark=benchmark,
    )


def starting(
    config: SearchConfig,
    jitted_init: Callable[[jax.Array], SearchState],
    num_images: int,
    mesh: Mesh | None = None,
) -> tuple[Callable[[], SearchState], Callable[[int], Draws]]:
    """`Search.init` and `Search.order` of a configuration, whose seed and L2 may be a population member's own."""
    keys = run_keys(config.seed)

    def init() -> SearchState:
        state = jitted_init(keys.init)
        state = dataclasses.replace(state, opt_state=set_hyperparameters(state.opt_state, l2=config.l2))
        return _with_temperature(config, state)

    def order(epoch: int) -> Draws:
        draws = Draws(_order(keys.order, jnp.int32(epoch), num_images), keys.batches, jnp.float32(config.cutout))
        return replicate(draws, mesh)

    return init, order


@partial(jax.jit, static_argnums=2)
def _order(key: jax.Array, epoch: jax.Array, num_images: int) -> jax.Array:
    return epoch_order(jax.random.fold_in(key, epoch), num_images)


def _with_temperature(config: SearchConfig, state: SearchState) -> SearchState:
    """The state with a temperature of the relaxation, if the configuration has one."""
    if temperature(config, 0) is None or config.temperature_form != "softmax":
        return state
    return dataclasses.replace(state, temperature=jnp.ones_like(state.drop_path))


def _step(
    config: SearchConfig, dataset: Dataset, method: SearchMethod, steps: int, mesh: Mesh | None, parts: Parts
) -> Callable[..., tuple[SearchState, EpochSums, jax.Array]]:
    """One step on batches drawn on the device. The third result is finite as long as everything is."""

    in_parts = parts.run(method.step)

    @jax.jit
    def draw(data: SearchData, draws: Draws, step: jax.Array) -> tuple[Batch, Batch]:
        train_key, valid_key, pick_key = jax.random.split(jax.random.fold_in(draws.key, step), 3)
        train_indices = train_batch_indices(draws.order, step % steps, config.batch_size)
        # The outer objective's batch is drawn anew at every step, as the reference takes the first of a fresh shuffle.
        valid_indices = random_batch_indices(pick_key, data.valid.labels.shape[0], config.batch_size)
        train_batch = augmented(config, dataset, data.train, train_indices, train_key, draws.cutout, mesh)
        return train_batch, augmented(config, dataset, data.valid, valid_indices, valid_key, draws.cutout, mesh)

    @jax.jit
    def accumulate(sums: EpochSums, info: SearchInfo) -> tuple[EpochSums, jax.Array]:
        sums = jax.tree.map(lambda total, value: total + value.astype(total.dtype), sums, EpochSums(*info))
        return sums, info.train_loss + info.alpha_loss + info.hypergradient_norm

    def step(
        state: SearchState, sums: EpochSums, data: SearchData, draws: Draws
    ) -> tuple[SearchState, EpochSums, jax.Array]:
        state, info = in_parts(state, *draw(data, draws, state.step))
        return state, *accumulate(sums, info)

    return jax.jit(step, donate_argnums=(0, 1)) if is_whole(config) else step


def is_whole(config: SearchConfig) -> bool:
    """Whether a step is one program."""
    return config.step_compilation == "whole" or (config.step_compilation == "auto" and jax.default_backend() != "cpu")


def _hessian_product(
    config: SearchConfig, dataset: Dataset, problem: SearchProblem, data: SearchData, mesh: Mesh | None
) -> Callable[[SearchState, Any], Any]:
    """Products of the alpha-Hessian of the outer objective, averaged over held validation batches.

    Train-mode batch statistics, no augmentation, the same images in every epoch, so that the curve shows the search and
    not the choice of batch. Differs from RobustDARTS, which takes the last augmented batch of the epoch.
    """
    held = np.arange(config.curvature_batches * config.batch_size).reshape(config.curvature_batches, -1)

    @jax.jit
    def inputs(state: SearchState, valid: Batch, indices: jax.Array) -> LossInputs:
        batch = plain(config, dataset, valid, indices, mesh)
        # Drop path is there with probability 0 where steps have it: the steps' mixed product is the same program.
        drops = config.drop_path > 0
        key = jax.random.key(0) if drops or problem.needs_key else None
        drop_path = jnp.zeros_like(state.drop_path) if drops else None
        return LossInputs(batch, state.batch_stats, drop_path, key, state.temperature)

    def product(state: SearchState, valid: Batch, indices: jax.Array, vector: Any) -> Any:
        still = jax.tree.map(jnp.zeros_like, state.params)
        return alpha_product(problem.loss, state.params, state.alpha, inputs(state, valid, indices), still, vector)

    def average(state: SearchState, vector: Any) -> Any:
        total = None
        for indices in held:
            one = product(state, data.valid, jnp.asarray(indices), vector)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        return jax.tree.map(lambda leaf: leaf / len(held), total)

    return average
