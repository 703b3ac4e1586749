"""How good are architectures drawn at random, with and without training one supernet for all of them?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.bilevel import Parts, apply_update, part
from jaxdarts.bilevel.problem import LossFn
from jaxdarts.methods.search import (
    Batch,
    Candidate,
    LossInputs,
    Score,
    SearchInfo,
    SearchMethod,
    SearchProblem,
    SearchState,
    as_given,
    step_keys,
)
from jaxdarts.methods.verdict import History, Stop
from jaxdarts.networks.supernet import Alpha
from jaxdarts.spaces import CellSpace, discretise, one_hot_choices


def sample_weights(space: CellSpace, key: jax.Array, shape: tuple[int, ...] = ()) -> Alpha:
    """Mixing weights of architectures drawn uniformly: float32[*shape, edges, operations] for each cell type.

    The edges of every node that discretisation keeps carry one operation each with weight 1, all other entries are 0.
    Every genotype that `space.genotypes()` lists is equally likely, and `discretise` reads it off the weights. Jitted,
    the tables of choices are constants: 490 rows for the fourth node of the full space.

    Differs from RobustDARTS: `none` is not drawn where discretisation never returns it; and where edges differ in the
    number of candidates, the architectures are equally likely and not the pairs of edges.
    """
    weights = {}
    for cell, cell_key in zip(space.cell_types, jax.random.split(key, len(space.cell_types)), strict=True):
        nodes = []
        for node, node_key in enumerate(jax.random.split(cell_key, space.num_nodes)):
            choices = jnp.asarray(one_hot_choices(space, cell, node))
            nodes.append(choices[jax.random.randint(node_key, shape, 0, len(choices))])
        weights[cell] = jnp.concatenate(nodes, axis=-2)
    return weights


def random_ws(
    problem: SearchProblem,
    *,
    weight_optimiser: optax.GradientTransformation,
    uses_drop_path: bool = False,
    samples: int = 1000,
    batches: int = 10,
    finalists: int = 10,
    **unused: Any,
) -> SearchMethod:
    """Random search with weight sharing (Li and Talwalkar 2019, as Zela et al. 2020 run it).

    Every step draws an architecture and trains the supernet's weights through it alone; its mixing weights, which are
    the state's `alpha`, are those of the newest one drawn. At the end `samples` architectures are scored on `batches`
    validation batches, the `finalists` best of them on all, and the best is the result.

    Args:
      problem: search space and supernet; its relaxation is not used.
      weight_optimiser: of w.
      uses_drop_path: compile drop path in.
      samples, batches, finalists: of the selection.
      unused: options of `darts` that concern alpha.

    Cost of a step: one gradient of the whole supernet, since operations with weight 0 are computed too.
    Differs from RobustDARTS: validation batches are not augmented, and what fails raises an error.
    """
    problem = problem._replace(relax=as_given)

    def init(key: jax.Array) -> SearchState:
        network_key, sample_key, step_key = jax.random.split(key, 3)
        params, batch_stats = problem.init_network(network_key)
        weights = _cast(sample_weights(problem.space, sample_key), problem)
        return _state(problem, params, batch_stats, weights, weight_optimiser, step_key)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, SearchInfo]:
        sample_key, loss_key = step_keys(state.key, state.step)
        weights = _cast(_sample(problem.space, sample_key), problem)
        drop_path = state.drop_path if uses_drop_path else None
        inputs = LossInputs(
            train_batch, state.batch_stats, drop_path, loss_key if uses_drop_path or problem.needs_key else None
        )
        (loss, result), gradient = _value_and_gradient(problem.loss, state.params, weights, inputs)
        params, opt_state = apply_update(weight_optimiser, gradient, state.opt_state, state.params)
        new_state = dataclasses.replace(
            state,
            params=params,
            batch_stats=result.batch_stats,
            alpha=weights,
            opt_state=opt_state,
            step=state.step + 1,
        )
        correct = (result.scores.argmax(axis=-1) == train_batch.labels).sum(dtype=jnp.int32)
        return new_state, SearchInfo(loss, correct, jnp.zeros_like(loss), jnp.zeros_like(loss))

    def select(score: Score, key: jax.Array) -> list[Candidate]:
        drawn = {cell: np.asarray(value) for cell, value in _sample(problem.space, key, (samples,)).items()}
        # In a small space the same architecture is drawn several times.
        flat = np.concatenate([drawn[cell].reshape(samples, -1) for cell in problem.space.cell_types], axis=1)
        first = np.sort(np.unique(flat, axis=0, return_index=True)[1])
        weights = {cell: value[first] for cell, value in drawn.items()}
        best = np.argsort(-score(weights, batches), kind="stable")[:finalists]
        weights = {cell: value[best] for cell, value in weights.items()}
        accuracies = score(weights, None)
        found = []
        for i in np.argsort(-accuracies, kind="stable"):
            one = {cell: value[i] for cell, value in weights.items()}
            found.append(Candidate(discretise(problem.space, one), float(accuracies[i])))
        return found

    return SearchMethod(init, Parts().run(step), learns=frozenset({"params"}), relax=as_given, select=select)


def random_architecture(
    problem: SearchProblem, *, weight_optimiser: optax.GradientTransformation, **unused: Any
) -> SearchMethod:
    """The method `random`: a genotype drawn uniformly, by which a search has to be better to be worth its time.

    Its steps train nothing and there are no weights. It stops after the first epoch.

    Args:
      problem: the search space; the network is not used.
      weight_optimiser: for the state's learning rate, which schedules set.
      unused: options of other methods.
    """

    def init(key: jax.Array) -> SearchState:
        sample_key, step_key = jax.random.split(key)
        weights = _cast(sample_weights(problem.space, sample_key), problem)
        return _state(problem, {}, {}, weights, weight_optimiser, step_key)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, SearchInfo]:
        zero = jnp.zeros((), problem.dtype)
        info = SearchInfo(zero, jnp.zeros((), jnp.int32), zero, zero)
        return dataclasses.replace(state, step=state.step + 1), info

    def decide(history: History) -> Stop:
        return Stop(history[-1]["epoch"])

    return SearchMethod(init, step, decide, learns=frozenset(), relax=as_given)


_sample = jax.jit(sample_weights, static_argnums=(0, 2))


@part(1)
def _value_and_gradient(loss: LossFn, params: Any, weights: Alpha, inputs: LossInputs) -> Any:
    return jax.value_and_grad(loss, has_aux=True)(params, weights, inputs)


def _cast(weights: Alpha, problem: SearchProblem) -> Alpha:
    return jax.tree.map(lambda leaf: leaf.astype(problem.dtype), weights)


def _state(
    problem: SearchProblem,
    params: Any,
    batch_stats: Any,
    weights: Alpha,
    weight_optimiser: optax.GradientTransformation,
    key: jax.Array,
) -> SearchState:
    return SearchState(
        params=params,
        batch_stats=batch_stats,
        alpha=weights,
        opt_state=weight_optimiser.init(params),
        alpha_opt_state=(),
        method_state=(),
        drop_path=jnp.zeros((), problem.dtype),
        key=key,
        step=jnp.zeros((), jnp.int32),
    )
