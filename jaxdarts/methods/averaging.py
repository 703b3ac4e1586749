"""Averaged SGD: from some epoch on the mean of the weights is what is measured (Polyak and Juditsky 1992)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import get_hyperparameters, set_hyperparameters
from jaxdarts.methods.base import Method, Problem, Schedule, SearchState
from jaxdarts.methods.darts import at_rate
from jaxdarts.methods.retraining import retraining
from jaxdarts.methods.verdict import Change, History, Verdict
from jaxdarts.tasks.base import Batch, Totals

AVERAGING = "averaging"  # the value that is 1 from the switch on


class Average(NamedTuple):
    """What is carried beside the weights."""

    params: Any  # their mean; before the switch the weights themselves
    steps: jax.Array  # int32: steps since the switch
    step_size: jax.Array  # float: the learning rate of the step before


def averaged(
    problem: Problem,
    *,
    optimiser: optax.GradientTransformation,
    patience: int,
    values: tuple[str, ...] = (),
    schedules: Mapping[str, Schedule] = {},
) -> Method:
    """Training from scratch that switches to averaged SGD once the loss on the held-out part has stopped falling.

    From the switch on the weights are trained as before, each step with the learning rate of the one before (the first
    with its own), and what is measured is the mean of the weights after its second and all later steps, as PyTorch's
    ASGD with `t0=0, lambd=0` has it in the code of DARTS (`rnn/train.py`).

    Args:
      problem: as of `retraining`.
      optimiser: of the weights, SGD without momentum.
      patience: epochs; see `is_due`.
      values, schedules: as of `retraining`.

    Cost of a step: that of `retraining`, and a copy of the weights.
    """
    # The rate that a batch asks for is set here.
    unrated = dataclasses.replace(problem, task=problem.task._replace(rate=None))
    method = retraining(unrated, optimiser=optimiser, values=values, schedules=schedules)

    def init(key: jax.Array) -> SearchState:
        state = method.init(key)
        rate = get_hyperparameters(state.opt_state)["learning_rate"]
        average = Average(state.params, jnp.zeros((), jnp.int32), jnp.asarray(rate))
        values = {**state.values, AVERAGING: jnp.zeros_like(rate)}
        return dataclasses.replace(state, method_state=average, values=values)

    def step(state: SearchState, batch: Batch, valid_batch: Batch = None) -> tuple[SearchState, Totals]:
        before: Average = state.method_state
        is_on = state.values[AVERAGING] > 0
        own = get_hyperparameters(at_rate(problem, state.opt_state, batch))["learning_rate"]
        size = jnp.where(is_on & (before.steps > 0), before.step_size, own)
        scheduled = get_hyperparameters(state.opt_state)["learning_rate"]
        inner = dataclasses.replace(state, opt_state=set_hyperparameters(state.opt_state, learning_rate=size))
        new, totals = method.step(inner, batch, valid_batch)
        opt_state = set_hyperparameters(new.opt_state, learning_rate=scheduled)
        steps = jnp.where(is_on, before.steps + 1, 0)
        mean = moved_average(before.params, new.params, steps)
        return dataclasses.replace(new, opt_state=opt_state, method_state=Average(mean, steps, own)), totals

    def decide(history: History) -> Verdict:
        if history[-1][AVERAGING]:
            return None
        losses = [record["valid_loss"] for record in history]
        return Change({AVERAGING: 1.0}) if is_due(losses, patience) else None

    def as_measured(state: SearchState) -> SearchState:
        return dataclasses.replace(state, params=state.method_state.params)

    return method._replace(problem=problem, init=init, step=step, decide=decide, as_measured=as_measured)


def moved_average(average: Any, params: Any, steps: jax.Array) -> Any:
    """The mean after one more step, the `steps`-th since the switch: the weights themselves of the first two."""
    count = jnp.maximum(steps - 1, 1)

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(steps <= 2, new, old + (new - old) / count.astype(new.dtype))

    return jax.tree.map(moved, average, params)


def is_due(losses: list[float | None], patience: int) -> bool:
    """Whether the newest loss is worse than the best of those more than `patience` epochs before it.

    Earliest after `patience` + 2 epochs. What is not known is worst.
    """
    known = [float("inf") if loss is None else loss for loss in losses]
    earlier = known[: max(len(known) - 1 - patience, 0)]
    return len(known) - 1 > patience and known[-1] > min(earlier)
