"""DARTS (Liu et al. 2019, algorithm 1): alternate a step on alpha and a step on the weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import Bilevel, HypergradientFn, InnerStep, Parts, apply_update, value_and_gradients
from jaxdarts.methods.search import (
    Batch,
    LossInputs,
    SearchInfo,
    SearchMethod,
    SearchProblem,
    SearchState,
    step_keys,
)
from jaxdarts.networks import init_alpha
from jaxdarts.networks.supernet import Alpha


def darts(
    problem: SearchProblem,
    *,
    hypergradient: HypergradientFn,
    weight_optimiser: optax.GradientTransformation,
    virtual_step: optax.GradientTransformation,
    alpha_optimiser: optax.GradientTransformation,
    alpha_init_scale: float = 1e-3,
    uses_drop_path: bool = False,
) -> SearchMethod:
    """DARTS with any hypergradient: `unrolled()` is its second order (exact), `first_order()` its first.

    Args:
      problem: search space and supernet.
      hypergradient: how the outer objective is differentiated in alpha.
      weight_optimiser: of the inner objective.
      virtual_step: the inner step that the hypergradient looks ahead to; its state is the weight optimiser's.
      alpha_optimiser: of the outer objective.
      alpha_init_scale: standard deviation of alpha at the start.
      uses_drop_path: compile drop path in; its probability is `state.drop_path`.

    Cost of a step: one hypergradient and one gradient. Under `jax.jit` a step is one program. Called as it is, it runs
    a few programs that are compiled once and shared (`Parts`), which compiles in less than half the time and runs about
    as fast on a CPU; they are kept as long as the method.
    Differs from RobustDARTS: the forward passes of the alpha step leave the running statistics alone; the virtual step
    and the mixed product see the same drop-path masks as the step on the weights.
    """

    def init(key: jax.Array) -> SearchState:
        network_key, alpha_key, step_key = jax.random.split(key, 3)
        params, batch_stats = problem.init_network(network_key)
        alpha = jax.tree.map(
            lambda leaf: leaf.astype(problem.dtype), init_alpha(problem.space, alpha_key, alpha_init_scale)
        )
        return SearchState(
            params=params,
            batch_stats=batch_stats,
            alpha=alpha,
            opt_state=weight_optimiser.init(params),
            alpha_opt_state=alpha_optimiser.init(alpha),
            method_state=(),
            drop_path=jnp.zeros((), problem.dtype),
            key=step_key,
            step=jnp.zeros((), jnp.int32),
        )

    bilevel = Bilevel(train_loss=problem.loss, valid_loss=problem.loss)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, SearchInfo]:
        train_key = valid_key = None
        if uses_drop_path or problem.needs_key:
            train_key, valid_key = step_keys(state.key, state.step)
        drop_path = state.drop_path if uses_drop_path else None
        train = LossInputs(train_batch, state.batch_stats, drop_path, train_key, state.temperature)
        valid = LossInputs(valid_batch, state.batch_stats, drop_path, valid_key, state.temperature)

        inner = InnerStep(virtual_step, state.opt_state)
        alpha_gradient, outer = hypergradient(bilevel, inner, state.params, state.alpha, train, valid)
        alpha, alpha_opt_state = apply_update(alpha_optimiser, alpha_gradient, state.alpha_opt_state, state.alpha)

        (train_loss, result), (gradient, _) = value_and_gradients(problem.loss, state.params, alpha, train)
        params, opt_state = apply_update(weight_optimiser, gradient, state.opt_state, state.params)
        new_state = SearchState(
            params=params,
            batch_stats=result.batch_stats,
            alpha=alpha,
            opt_state=opt_state,
            alpha_opt_state=alpha_opt_state,
            method_state=state.method_state,
            drop_path=state.drop_path,
            key=state.key,
            step=state.step + 1,
            temperature=state.temperature,
        )
        info = _report(train_loss, result.scores, train_batch.labels, outer.valid_loss, alpha_gradient)
        return new_state, info

    return SearchMethod(init, Parts().run(step))


@jax.jit
def _report(
    train_loss: jax.Array, scores: jax.Array, labels: jax.Array, alpha_loss: jax.Array, alpha_gradient: Alpha
) -> SearchInfo:
    correct = (scores.argmax(axis=-1) == labels).sum(dtype=jnp.int32)
    return SearchInfo(train_loss, correct, alpha_loss, optax.tree.norm(alpha_gradient))
