"""What changes from epoch to epoch of a run?"""

from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

import jax.numpy as jnp

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.methods import RetrainState, SearchState
from jaxdarts.runs.evaluate_config import TrainingConfig
from jaxdarts.runs.folder import RunConfig

State = TypeVar("State", SearchState, RetrainState)


def start_epoch(config: RunConfig, state: State, epoch: int) -> State:
    """Sets what follows a schedule: the learning rate's cosine and drop path's ramp."""
    return dataclasses.replace(
        state,
        opt_state=set_hyperparameters(state.opt_state, learning_rate=learning_rate(config, epoch)),
        drop_path=jnp.full_like(state.drop_path, drop_path(config, epoch)),
    )


def learning_rate(config: RunConfig, epoch: int) -> float:
    """Learning rate of w in epoch e of E, counted from 0: min + (max - min) (1 + cos(pi e / E)) / 2."""
    cosine = (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.learning_rate_min + (config.learning_rate - config.learning_rate_min) * cosine


def drop_path(config: RunConfig, epoch: int) -> float:
    """Drop-path probability in epoch e of E, counted from 0: max e / (E - 1) in a search, max e / E in an evaluation.

    Both as the reference has them.
    """
    last = config.epochs if isinstance(config, TrainingConfig) else max(config.epochs - 1, 1)
    return config.drop_path * epoch / last
