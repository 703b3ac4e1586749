"""Any method on a tiny problem, for tests: its settings, its steps, batches."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.methods import METHODS, Method, Problem, SearchState
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import relaxed_network
from jaxdarts.runs.engine import set_values
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

COMMON: dict[str, Any] = {
    "preset": "quick",
    "hypergradient": "first_order",
    "finite_difference_radius": 1e-2,
    "unrolled_steps": 1,
    "neumann_terms": 2,
    "cg_max_steps": 10,
    "cg_damping": 1e-2,
    "epochs": 10,
    "batch_size": 4,
    "channels": 4,
    "cells": 3,
    "learning_rate": 0.025,
    "learning_rate_min": 0.001,
    "momentum": 0.9,
    "l2": 3e-4,
    "clip_norm": 5.0,
    "alpha_learning_rate": 3e-3,
    "alpha_b1": 0.5,
    "alpha_b2": 0.999,
    "alpha_l2": 1e-3,
    "alpha_weight_decay": 0.0,
    "beta_weight": None,
    "beta_schedule": "linear",
    "beta_variant": "edge",
    "temperature_start": 1.0,
    "temperature_end": None,
    "temperature_schedule": "exponential",
    "temperature_form": "softmax",
    "alpha_init_scale": 1e-3,
    "drop_path": 0.0,
    "clip_virtual_step": False,
    "curvature_every": 1,
    "early_stopping": "none",
    "es_rule": "quick",
    "es_window": None,
    "es_lag": None,
    "es_threshold": None,
    "es_first_epoch": None,
    "ada_factor": 10.0,
    "ada_max_l2": 0.03,
    "selection_samples": 4,
    "selection_batches": 1,
    "selection_finalists": 2,
    "strengths": None,
    "seed": 0,
}
"""What a run's settings hold beside a method's own."""


def settings_of(name: str, **changes: Any) -> SimpleNamespace:
    """The common settings, those of a method, what it changes of the common ones, and then `changes`."""
    entry, found = METHODS[name], dict(COMMON)
    for own in entry.settings:
        found |= dataclasses.asdict(own())
    for preset in ("", found["preset"]):
        found |= entry.defaults.get(preset, {})
    return SimpleNamespace(**(found | changes))


def make(name: str, space: CellSpace = SPACE, **changes: Any) -> Method:
    """A method as the command builds it, on a network of three cells with 4 channels for images of 8x8 pixels."""
    settings = settings_of(name, **changes)
    options = METHODS[name].network(settings)
    module = Supernet(space, 3, settings.channels, settings.cells, **options)
    problem = Problem(space, relaxed_network(module, (8, 8, 1)), bare_task(), softmax(space, settings.alpha_init_scale))
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
