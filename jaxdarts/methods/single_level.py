"""How are alpha and the weights trained by one gradient, without an outer objective (Xie et al. 2019)?"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import Parts, apply_update, value_and_gradients
from jaxdarts.methods.base import Method, Problem, Schedule, SearchState, View
from jaxdarts.methods.darts import advanced, initial, report, step_keys
from jaxdarts.tasks.base import Batch, Totals


def single_level(
    problem: Problem,
    *,
    weight_optimiser: optax.GradientTransformation,
    alpha_optimiser: optax.GradientTransformation,
    values: tuple[str, ...] = (),
    schedules: Mapping[str, Schedule] = {},
) -> Method:
    """One gradient of the inner objective, of a batch of both parts of the data together, moves alpha and the weights.

    Args:
      problem: what is searched, with its relaxation.
      weight_optimiser, alpha_optimiser: each of its part of the gradient.
      values, schedules: as of `darts`.

    Cost of a step: one gradient of twice the batch.
    """
    # Differs from SNAS' code, which draws a batch from the whole training set and measures on test images: here half
    # of a batch is from either part, so that the parts are those of every method, and test images stay unseen.
    inner, _ = problem.losses
    needs_key = problem.needs_key(values)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, Totals]:
        key = step_keys(state.key, state.step)[0] if needs_key else None
        view = View(_joined(train_batch, valid_batch), state.stats, state.memory.train, state.values, key)
        (loss, seen), (gradient, alpha_gradient) = value_and_gradients(inner, state.params, state.alpha, view)
        params, opt_state = apply_update(weight_optimiser, gradient, state.opt_state, state.params)
        alpha, alpha_opt_state = apply_update(alpha_optimiser, alpha_gradient, state.alpha_opt_state, state.alpha)
        new_state = advanced(state, seen.stats, state.memory, params, opt_state, alpha, alpha_opt_state)
        return new_state, report(problem, seen.totals, loss, alpha_gradient, jnp.ones((), jnp.int32))

    init = initial(problem, weight_optimiser, alpha_optimiser, values)
    return Method(problem, init, Parts().run(step), schedules)


@jax.jit
def _joined(first: Batch, second: Batch) -> Batch:
    return jax.tree.map(lambda one, other: jnp.concatenate([one, other]), first, second)
