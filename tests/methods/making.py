"""Any method on a tiny problem, for tests: its settings, its steps, batches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.methods import METHODS, Method, Problem, SearchState
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.parts import network_options
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import relaxed_network
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.spaces import CellSpace, SearchSpace
from jaxdarts.tasks.classification import Batch, bare_task

SPACE = SearchSpace.uniform("tiny", ("none", "skip_connect", "max_pool_3x3"), num_nodes=1)
RAGGED = SearchSpace(
    "ragged",
    1,
    (("skip_connect",), ("none", "max_pool_3x3", "avg_pool_3x3")),
    (("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)),
    (2,),
)

SMALL: dict[str, Any] = {"batch_size": 4, "channels": 4, "cells": 3, "hypergradient": "first_order"}


def settings_of(name: str, **changes: Any) -> SearchConfig:
    """Settings of a tiny search, those of the method's own before them."""
    return SearchConfig(**SearchConfig.used(SMALL, {"method": name, **changes}))


def make(name: str, space: CellSpace = SPACE, **changes: Any) -> Method:
    """A method as the command builds it, on a network of three cells with 4 channels for images of 8x8 pixels."""
    settings = settings_of(name, **changes)
    options = network_options(METHODS[name], settings)
    module = Supernet(space, 3, settings.channels, settings.cells, **options)
    problem = Problem(space, relaxed_network(module, (8, 8, 1)), bare_task(), softmax(space))
    return METHODS[name].build(Ingredients(problem, settings))


def batches(seed: int = 0) -> tuple[Batch, Batch]:
    """One to train w and one to train alpha."""
    generator = np.random.default_rng(seed)

    def one() -> Batch:
        images = jnp.asarray(generator.normal(size=(4, 8, 8, 1)), jnp.float32)
        return Batch(images, jnp.asarray(generator.integers(0, 3, 4), jnp.int32))

    return one(), one()


def at_epoch(method: Method, state: SearchState, epoch: int) -> SearchState:
    """A state with every scheduled value of an epoch, as a run sets it."""
    return set_values(state, {name: schedule(epoch) for name, schedule in method.schedules.items()})


def started(method: Method, epoch: int = 0, seed: int = 0) -> SearchState:
    """The first state, at an epoch."""
    return at_epoch(method, jax.jit(method.init)(jax.random.key(seed)), epoch)
