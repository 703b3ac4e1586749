"""How is a genotype's network trained from scratch? Pure functions over the same state as in a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxdarts.methods.base import Method, Problem, Schedule, SearchState, View
from jaxdarts.methods.darts import make_state, step_on_weights, train_totals
from jaxdarts.tasks.base import Batch, Totals


def retraining(
    problem: Problem,
    *,
    optimiser: optax.GradientTransformation,
    values: tuple[str, ...] = ("drop_path",),
    schedules: Mapping[str, Schedule] = {},
) -> Method:
    """Training from scratch by the task's inner objective, with drop path (Liu et al. 2019, section 3.2).

    Cost of a step: one gradient.

    Args:
      problem: without a space: a network, and what it learns.
      optimiser: of the weights.
      values: names of scheduled values that are compiled in, such as "drop_path".
      schedules: see `Method`.
    """
    inner, _ = problem.losses

    def init(key: jax.Array) -> SearchState:
        network_key, step_key = jax.random.split(key)
        params, stats = problem.network.init(network_key)
        memory = problem.memories()
        return make_state(params, stats, {}, optimiser.init(params), step_key, values=values, memory=memory)

    def step(state: SearchState, batch: Batch, valid_batch: Batch = None) -> tuple[SearchState, Totals]:
        key = jax.random.fold_in(state.key, state.step) if problem.needs_key(values) else None
        view = View(batch, state.stats, state.memory.train, state.values, key)
        (_, seen), gradient = jax.value_and_grad(partial(inner, alpha={}, view=view), has_aux=True)(state.params)
        params, opt_state = step_on_weights(problem, optimiser, gradient, state.opt_state, state.params, batch)
        new_state = dataclasses.replace(
            state,
            params=params,
            stats=seen.stats,
            memory=state.memory._replace(train=seen.memory),
            opt_state=opt_state,
            step=state.step + 1,
        )
        totals = train_totals(problem, seen.totals)
        return new_state, {**totals, "gradient_norm": (optax.tree.norm(gradient), jnp.ones((), jnp.int32))}

    return Method(problem, init, step, schedules, learns=frozenset({"params"}))
