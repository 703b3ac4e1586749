"""How is a Flax module a network as a run sees it: two pure functions, whatever goes through it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.networks.discrete import DiscreteNetwork
from jaxdarts.networks.initial import one_pool
from jaxdarts.networks.supernet import Supernet, Weights


class Context(NamedTuple):
    """What a forward pass may depend on beside its inputs."""

    train: bool  # normalise by the batch's statistics
    key: jax.Array | None = None  # of drop path and random operations
    values: Mapping[str, jax.Array] = {}  # what schedules set; a name that is missing is left out of the program


class Network(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[jax.Array], tuple[Any, Any]]  # key -> weights and running statistics at the start
    apply: Callable[..., tuple[Any, Any, Any]]
    """(params, stats, mixing weights, batch, memory, context) -> outputs, statistics and memory after the batch"""
    needs_key: bool  # random even without drop path
    dtype: Any  # of weights and statistics
    module: Any  # the Flax module
    example_shape: tuple[int, ...] = ()  # of one example
    memory: Callable[[int], Any] = lambda examples: ()
    """(examples side by side) -> what is carried from batch to batch, at the start"""
    width: int = 0  # examples side by side in training, where memory is carried


class Scores(NamedTuple):
    """What a network makes of a batch of images."""

    main: jax.Array  # float[B, classes]
    auxiliary: jax.Array | None = None  # of the auxiliary head, in training


def relaxed_network(
    module: Supernet, image_shape: tuple[int, int, int], dtype: Any = jnp.float32, compute_dtype: Any = None
) -> Network:
    """A supernet of images: batches have `images` float[B, *image_shape], outputs are `Scores`.

    Args:
      module: the supernet; takes the values "drop_path", "auxiliary_skip" and "skip_dropout".
      image_shape: height, width, channels.
      dtype: of weights and statistics.
      compute_dtype: of what goes through the network in training; None: dtype.
    """

    def init(key: jax.Array) -> tuple[Any, Any]:
        space = module.space
        weights = Weights({cell: jnp.zeros(space.alpha_shape(cell), dtype) for cell in space.cell_types})
        # Not rematerialised: numbers from the pool must not leave the trace of one cell for another's.
        with one_pool(key):
            variables = module.clone(remat=0).init(key, jnp.zeros((1, *image_shape), dtype), weights)
        return variables["params"], variables.get("batch_stats", {})

    def apply(
        params: Any, stats: Any, weights: Weights, batch: Any, memory: Any, context: Context
    ) -> tuple[Scores, Any, Any]:
        # Without a dtype of its own the network computes in that of its arguments, float64 included.
        narrow = partial(narrow_to, dtype=compute_dtype if context.train else None)
        outputs: Any = module.apply(
            {"params": narrow(params), "batch_stats": stats},
            narrow(batch.images),
            narrow(weights),
            train=context.train,
            drop_path=context.values.get("drop_path"),
            auxiliary_skip=context.values.get("auxiliary_skip"),
            skip_dropout=context.values.get("skip_dropout"),
            key=context.key,
            mutable=["batch_stats"] if context.train else False,
        )
        scores, stats = (outputs[0], outputs[1]["batch_stats"]) if context.train else (outputs, stats)
        return Scores(scores.astype(jax.tree.leaves(params)[0].dtype)), stats, memory

    return Network(init, apply, "noise" in module.space.operation_names, dtype, module, image_shape)


def discrete_network(
    module: DiscreteNetwork, image_shape: tuple[int, int, int], dtype: Any = jnp.float32, compute_dtype: Any = None
) -> Network:
    """A genotype's network of images; mixing weights are not looked at. Arguments as for `relaxed_network`."""

    def init(key: jax.Array) -> tuple[Any, Any]:
        with one_pool(key):
            variables = module.init(key, jnp.zeros((1, *image_shape), dtype))
        return variables["params"], variables["batch_stats"]

    def apply(
        params: Any, stats: Any, weights: Weights, batch: Any, memory: Any, context: Context
    ) -> tuple[Scores, Any, Any]:
        narrow = partial(narrow_to, dtype=compute_dtype if context.train else None)
        outputs: Any = module.apply(
            {"params": narrow(params), "batch_stats": stats},
            narrow(batch.images),
            train=context.train,
            drop_path=context.values.get("drop_path"),
            key=context.key,
            mutable=["batch_stats"] if context.train else False,
        )
        (scores, auxiliary), stats = (outputs[0], outputs[1]["batch_stats"]) if context.train else (outputs, stats)
        own = jax.tree.leaves(params)[0].dtype  # float64 of research code too, whatever the network's
        return Scores(scores.astype(own), None if auxiliary is None else auxiliary.astype(own)), stats, memory

    return Network(init, apply, "noise" in module.genotype.operations, dtype, module, image_shape)


def narrow_to(tree: Any, dtype: Any) -> Any:
    """A pytree of floats as `dtype`; None: as it is."""
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
