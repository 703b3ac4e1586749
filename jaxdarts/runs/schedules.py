"""What changes from epoch to epoch of a run?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeVar

import jax.numpy as jnp

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.methods import RetrainState, SearchState
from jaxdarts.runs.evaluate.config import TrainingConfig
from jaxdarts.runs.folder import RunConfig
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.regularisers import beta_weight, temperature

State = TypeVar("State", SearchState, RetrainState)


def start_epoch(config: RunConfig, state: State, epoch: int) -> State:
    """Sets what follows a schedule: the learning rate's cosine, drop path's ramp, what regularises alpha."""
    return dataclasses.replace(
        state,
        opt_state=set_hyperparameters(state.opt_state, learning_rate=learning_rate(config, epoch)),
        drop_path=jnp.full_like(state.drop_path, drop_path(config, epoch)),
        **(_regularised(config, state, epoch) if isinstance(config, SearchConfig) else {}),
    )


def _regularised(config: SearchConfig, state: Any, epoch: int) -> dict[str, Any]:
    """The parts of a search's state that hold what regularises alpha."""
    weight, divisor = beta_weight(config, epoch), temperature(config, epoch)
    values = {} if weight is None else {"beta_weight": weight}
    parts: dict[str, Any] = {}
    if divisor is not None and config.temperature_form == "softmax":
        parts["temperature"] = jnp.full_like(state.drop_path, divisor)
    elif divisor is not None:
        values["temperature"] = divisor
    return {**parts, "alpha_opt_state": set_hyperparameters(state.alpha_opt_state, **values)}


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
