"""A network of a few lines that mixes by everything that a supernet does; it compiles in a second."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.methods import METHODS, Method, Problem
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Supernet, Weights
from jaxdarts.networks.functional import Context, Network, Scores
from jaxdarts.networks.layers import keep_mask
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import SearchSpace
from jaxdarts.tasks.classification import Batch, bare_task

SPACE = SearchSpace(
    "toy",
    1,
    (("skip_connect", "max_pool_3x3"), ("none", "skip_connect", "avg_pool_3x3")),
    (("skip_connect", "max_pool_3x3", "none"), ("max_pool_3x3", "none")),
    (2,),
)
_CLASSES, _WIDTH = 3, 5


def network() -> Network:
    """Every candidate is a layer of its own of the mean pixel; edges add up; a classifier. It takes every value."""

    def init(key: jax.Array) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(SPACE.cell_types) + 1)
        shapes = [(*SPACE.alpha_shape(cell), 4, _WIDTH) for cell in SPACE.cell_types] + [(_WIDTH, _CLASSES)]
        names = (*SPACE.cell_types, "classifier")
        numbers = [0.5 * jax.random.normal(own, shape) for own, shape in zip(keys, shapes, strict=True)]
        return dict(zip(names, numbers, strict=True)), {"mean": jnp.zeros(4)}

    def apply(
        params: Any, stats: Any, weights: Weights, batch: Batch, memory: Any, context: Context
    ) -> tuple[Scores, Any, Any]:
        x = batch.images.reshape(len(batch.images), 4, -1).mean(axis=-1)
        mean = x.mean(axis=0) if context.train else stats["mean"]
        features = jnp.zeros((len(x), _WIDTH), x.dtype)
        for number, cell in enumerate(SPACE.cell_types):
            results = jnp.tanh(jnp.einsum("bi,eoij->beoj", x - mean, params[cell]))
            mixed = jnp.einsum("beoj,eo->bej", results, weights.operations[cell])
            if weights.constants is not None:
                mixed += weights.constants[cell][:, None]
            if weights.edges is not None:
                mixed *= weights.edges[cell][:, None]
            if context.train and context.key is not None and "drop_path" in context.values:
                key = jax.random.fold_in(context.key, number)
                mixed *= keep_mask(key, context.values["drop_path"], mixed.shape[:2], mixed.dtype)[:, :, None]
            features += mixed.sum(axis=1) + context.values.get("auxiliary_skip", 0) * x[:, :1]
        new = {"mean": 0.9 * stats["mean"] + 0.1 * x.mean(axis=0)} if context.train else stats
        return Scores(features @ params["classifier"]), new, memory

    return Network(init, apply, False, jnp.float32, Supernet(SPACE, _CLASSES, 4, 1), (8, 8, 1))


def make(name: str, **own: Any) -> Method:
    """A method as the command builds it, with this network."""
    fixed = {"hypergradient": "first_order", "learning_rate": 0.05, "alpha_learning_rate": 1e-2}
    settings = SearchConfig(**SearchConfig.used(fixed, {"method": name, **own}))
    return METHODS[name].build(Ingredients(Problem(SPACE, network(), bare_task(), softmax(SPACE)), settings))
