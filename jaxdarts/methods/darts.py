"""DARTS (Liu et al. 2019, algorithm 1): alternate a step on alpha and a step on the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import (
    Bilevel,
    HypergradientFn,
    InnerStep,
    Parts,
    apply_update,
    compilable,
    get_hyperparameters,
    set_hyperparameters,
    value_and_gradients,
)
from jaxdarts.bilevel.loops import cond
from jaxdarts.methods.base import Memories, Method, Problem, Schedule, SearchState, View
from jaxdarts.methods.relaxations import Alpha
from jaxdarts.tasks.base import Batch, Totals


def darts(
    problem: Problem,
    *,
    hypergradient: HypergradientFn,
    weight_optimiser: optax.GradientTransformation,
    virtual_step: optax.GradientTransformation,
    alpha_optimiser: optax.GradientTransformation,
    values: tuple[str, ...] = (),
    schedules: Mapping[str, Schedule] = {},
    perturb: Callable[[Problem, SearchState, Alpha, View], Alpha] | None = None,
    weights_first: bool = False,
    alpha_every: int = 1,
) -> Method:
    """DARTS with any hypergradient: `unrolled()` is its second order (exact), `first_order()` its first.

    Args:
      problem: what is searched, with its relaxation.
      hypergradient: how the outer objective is differentiated in alpha.
      weight_optimiser: of the inner objective.
      virtual_step: the inner step that the hypergradient looks ahead to; its state is the weight optimiser's.
      alpha_optimiser: of the outer objective.
      values: names of scheduled values that are compiled in, such as "drop_path" and "temperature".
      schedules: see `Method`.
      perturb: (problem, state, alpha, view) -> the alpha that the step on the weights sees instead; None: alpha.
      weights_first: take the step on the weights before that on alpha, as GDAS and others do.
      alpha_every: with `weights_first`, steps on the weights for each on alpha, which comes after the last of them.

    Cost of a step: one hypergradient and one gradient. Under `jax.jit` a step is one program. Called as it is, it runs
    a few programs that are compiled once and shared (`Parts`), which compiles in less than half the time and runs about
    as fast on a CPU; they are kept as long as the method.
    Differs from RobustDARTS: the forward passes of the alpha step leave the running statistics alone; the virtual step
    and the mixed product see the same drop-path masks as the step on the weights.
    """
    inner, outer = problem.losses
    bilevel = Bilevel(train_loss=inner, valid_loss=outer)
    needs_key = problem.needs_key(values)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, Totals]:
        train_key, valid_key = step_keys(state.key, state.step) if needs_key else (None, None)
        train = View(train_batch, state.stats, state.memory.train, state.values, train_key)
        valid = View(valid_batch, state.stats, state.memory.valid, state.values, valid_key)
        params, opt_state, alpha, alpha_opt_state = state.params, state.opt_state, state.alpha, state.alpha_opt_state

        def step_on_alpha() -> Any:
            step = InnerStep(virtual_step, at_rate(problem, opt_state, train_batch))
            gradient, info = hypergradient(bilevel, step, params, alpha, train, valid)
            update = apply_update(alpha_optimiser, gradient, alpha_opt_state, alpha)
            return info.valid_loss, info.aux.memory, gradient, *update

        def rest() -> Any:
            nothing = jax.tree.map(jnp.zeros_like, alpha)
            return jnp.zeros_like(loss), state.memory.valid, nothing, alpha, alpha_opt_state

        count = jnp.ones((), jnp.int32)
        if not weights_first:
            outer_loss, memory, alpha_gradient, alpha, alpha_opt_state = step_on_alpha()
        seen_alpha = alpha if perturb is None else perturb(problem, state, alpha, train)
        (loss, seen), (gradient, _) = value_and_gradients(inner, params, seen_alpha, train)
        params, opt_state = step_on_weights(problem, weight_optimiser, gradient, opt_state, params, train_batch)
        if weights_first and alpha_every == 1:
            outer_loss, memory, alpha_gradient, alpha, alpha_opt_state = step_on_alpha()
        elif weights_first:
            is_due = (state.step + 1) % alpha_every == 0
            outer_loss, memory, alpha_gradient, alpha, alpha_opt_state = cond(is_due, step_on_alpha, rest)
            count = is_due.astype(jnp.int32)
        memories = Memories(seen.memory, memory)
        new_state = advanced(state, seen.stats, memories, params, opt_state, alpha, alpha_opt_state)
        return new_state, report(problem, seen.totals, outer_loss, alpha_gradient, count)

    init = initial(problem, weight_optimiser, alpha_optimiser, values)
    return Method(problem, init, Parts().run(step), schedules)


def initial(
    problem: Problem,
    weight_optimiser: optax.GradientTransformation,
    alpha_optimiser: optax.GradientTransformation,
    values: tuple[str, ...],
) -> Callable[[jax.Array], SearchState]:
    """`Method.init` of a method that trains the weights and alpha."""

    def init(key: jax.Array) -> SearchState:
        network_key, alpha_key, step_key = jax.random.split(key, 3)
        params, stats = problem.network.init(network_key)
        alpha = problem.relaxation.init(alpha_key)
        return make_state(
            params,
            stats,
            alpha,
            weight_optimiser.init(params),
            step_key,
            alpha_opt_state=alpha_optimiser.init(alpha),
            values=values,
            memory=problem.memories(),
        )

    return init


def at_rate(problem: Problem, opt_state: optax.OptState, batch: Batch) -> optax.OptState:
    """The state of the optimiser of w with the learning rate that a batch asks for, where the task's batches do."""
    if problem.task.rate is None:
        return opt_state
    rate = get_hyperparameters(opt_state)["learning_rate"] * problem.task.rate(batch)
    return set_hyperparameters(opt_state, learning_rate=rate)


def step_on_weights(
    problem: Problem,
    optimiser: optax.GradientTransformation,
    gradient: Any,
    opt_state: optax.OptState,
    params: Any,
    batch: Batch,
) -> tuple[Any, optax.OptState]:
    """The weights after a step with the learning rate that the batch asks for, and the optimiser's new state."""
    params, new_state = apply_update(optimiser, gradient, at_rate(problem, opt_state, batch), params)
    if problem.task.rate is not None:
        scheduled = get_hyperparameters(opt_state)["learning_rate"]
        new_state = set_hyperparameters(new_state, learning_rate=scheduled)
    return params, new_state


def advanced(
    state: SearchState,
    stats: Any,
    memory: Memories,
    params: Any,
    opt_state: Any,
    alpha: Alpha,
    alpha_opt_state: Any,
) -> SearchState:
    """The state after a step; what schedules set, the key and what a method carries beside stay."""
    return dataclasses.replace(
        state,
        params=params,
        stats=stats,
        memory=memory,
        alpha=alpha,
        opt_state=opt_state,
        alpha_opt_state=alpha_opt_state,
        step=state.step + 1,
    )


def step_keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two keys for the randomness of one step: of its inner and of its outer objective."""
    first, second = _split(key, step)
    return first, second


@compilable
@jax.jit
def _split(key: jax.Array, step: jax.Array) -> jax.Array:
    return jax.random.split(jax.random.fold_in(key, step))


def make_state(
    params: Any,
    stats: Any,
    alpha: Alpha,
    opt_state: optax.OptState,
    key: jax.Array,
    *,
    alpha_opt_state: optax.OptState = (),
    method_state: Any = (),
    values: tuple[str, ...] = (),
    memory: Memories | None = None,
) -> SearchState:
    """The state before the first step; every value is 0 until its schedule sets it."""
    leaves = jax.tree.leaves((params, alpha))
    dtype = leaves[0].dtype if leaves else jnp.float32
    return SearchState(
        params=params,
        stats=stats,
        memory=memory or Memories(),
        alpha=alpha,
        opt_state=opt_state,
        alpha_opt_state=alpha_opt_state,
        method_state=method_state,
        values={name: jnp.zeros((), dtype) for name in values},
        key=key,
        step=jnp.zeros((), jnp.int32),
    )


def train_totals(problem: Problem, totals: Totals) -> Totals:
    """The inner objective's totals as a run calls them: metrics of the task are `train_...`."""
    return {f"train_{name}" if name in problem.task.metrics else name: value for name, value in totals.items()}


def report(problem: Problem, totals: Totals, outer_loss: jax.Array, alpha_gradient: Alpha, count: jax.Array) -> Totals:
    """What a step on both reports; `count` is 0 where alpha rested."""
    return {**train_totals(problem, totals), **_outer(outer_loss, alpha_gradient, count)}


@compilable
@jax.jit
def _outer(outer_loss: jax.Array, alpha_gradient: Alpha, count: jax.Array) -> Totals:
    return {"alpha_loss": (outer_loss, count), "hypergradient_norm": (optax.tree.norm(alpha_gradient), count)}
