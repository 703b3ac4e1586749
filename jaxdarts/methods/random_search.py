"""How good are architectures drawn at random, with and without training one supernet for all of them?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.bilevel import Parts, part
from jaxdarts.bilevel.problem import LossFn
from jaxdarts.checks import at_least
from jaxdarts.errors import InputError
from jaxdarts.methods.base import (
    Candidate,
    Ingredients,
    Judge,
    Method,
    MethodEntry,
    Problem,
    Schedule,
    SearchState,
    View,
)
from jaxdarts.methods.darts import make_state, step_keys, step_on_weights, train_totals
from jaxdarts.methods.parts import weight_schedules, weight_values, weights
from jaxdarts.methods.relaxations import as_given
from jaxdarts.methods.verdict import History, Stop
from jaxdarts.networks.supernet import Alpha
from jaxdarts.settings import Group
from jaxdarts.spaces import CellSpace, discretise, one_hot_choices
from jaxdarts.tasks.base import Batch, Totals


@dataclass(frozen=True)
class Selection(Group):
    """Selection of random search with weight sharing."""

    selection_samples: int = 100
    """Architectures that random-ws draws at the end and scores on a few batches."""
    selection_batches: int = 5
    """Validation batches for that."""
    selection_finalists: int = 5
    """The best of them, which are scored on the whole validation half."""
    select_every: int = 0
    """Epochs between selections that random-ws also makes during the search and writes to metrics.jsonl, as it makes
    the one at the end; they change nothing else. 0: only at the end."""
    checks: ClassVar = [
        *at_least(1, "selection_samples", "selection_batches", "selection_finalists"),
        *at_least(0, "select_every"),
    ]

    def check(self) -> None:
        """Refuses more finalists than samples."""
        if self.selection_finalists > self.selection_samples:
            raise InputError(
                f"selection_finalists must be at most selection_samples ({self.selection_samples}); "
                f"got {self.selection_finalists}"
            )


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
    problem: Problem,
    *,
    weight_optimiser: optax.GradientTransformation,
    values: tuple[str, ...] = (),
    schedules: Mapping[str, Schedule] = {},
    samples: int = 1000,
    batches: int = 10,
    finalists: int = 10,
) -> Method:
    """Random search with weight sharing (Li and Talwalkar 2019, as Zela et al. 2020 run it).

    Every step draws an architecture and trains the supernet's weights through it alone; its mixing weights, which are
    the state's `alpha`, are those of the newest one drawn. At the end `samples` architectures are scored on `batches`
    validation batches, the `finalists` best of them on all, and the best is the result.

    Args:
      problem: what is searched; its relaxation is not used.
      weight_optimiser: of w.
      values: names of scheduled values that are compiled in, such as "drop_path".
      schedules: see `Method`.
      samples, batches, finalists: of the selection.

    Cost of a step: one gradient of the whole supernet, since operations with weight 0 are computed too.
    Differs from RobustDARTS: validation batches are not augmented, and what fails raises an error.
    """
    problem, sample = _drawing(problem)
    inner, _ = problem.losses

    def init(key: jax.Array) -> SearchState:
        network_key, sample_key, step_key = jax.random.split(key, 3)
        params, stats = problem.network.init(network_key)
        opt_state = weight_optimiser.init(params)
        memory = problem.memories()
        return make_state(params, stats, sample(sample_key), opt_state, step_key, values=values, memory=memory)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, Totals]:
        sample_key, loss_key = step_keys(state.key, state.step)
        weights = sample(sample_key)
        key = loss_key if problem.needs_key(values) else None
        view = View(train_batch, state.stats, state.memory.train, state.values, key)
        (_, seen), gradient = _value_and_gradient(inner, state.params, weights, view)
        params, opt_state = step_on_weights(
            problem, weight_optimiser, gradient, state.opt_state, state.params, train_batch
        )
        new_state = dataclasses.replace(
            state,
            params=params,
            stats=seen.stats,
            memory=state.memory._replace(train=seen.memory),
            alpha=weights,
            opt_state=opt_state,
            step=state.step + 1,
        )
        return new_state, train_totals(problem, seen.totals)

    def choose(state: SearchState, judge: Judge, key: jax.Array) -> list[Candidate]:
        space = problem.space
        assert space is not None
        drawn = {cell: np.asarray(value) for cell, value in _sample(space, key, (samples,)).items()}
        # In a small space the same architecture is drawn several times.
        flat = np.concatenate([drawn[cell].reshape(samples, -1) for cell in space.cell_types], axis=1)
        first = np.sort(np.unique(flat, axis=0, return_index=True)[1])
        weights = {cell: value[first] for cell, value in drawn.items()}
        best = np.argsort(_badness(problem, judge.score(weights, batches)), kind="stable")[:finalists]
        weights = {cell: value[best] for cell, value in weights.items()}
        scores = judge.score(weights, None)
        found = []
        for i in np.argsort(_badness(problem, scores), kind="stable"):
            one = {cell: value[i] for cell, value in weights.items()}
            found.append(Candidate(discretise(space, one), float(scores[i])))
        return found

    return Method(problem, init, Parts().run(step), schedules, learns=frozenset({"params"}), choose=choose)


def random_architecture(
    problem: Problem,
    *,
    weight_optimiser: optax.GradientTransformation,
    schedules: Mapping[str, Schedule] = {},
) -> Method:
    """The method `random`: a genotype drawn uniformly, by which a search has to be better to be worth its time.

    Its steps train nothing and there are no weights. It stops after the first epoch.

    Args:
      problem: the search space; the network is not used.
      weight_optimiser: for the state's learning rate, which schedules set.
      schedules: see `Method`.
    """
    problem, sample = _drawing(problem)

    def init(key: jax.Array) -> SearchState:
        sample_key, step_key = jax.random.split(key)
        return make_state({}, {}, sample(sample_key), weight_optimiser.init({}), step_key)

    def step(state: SearchState, train_batch: Batch, valid_batch: Batch) -> tuple[SearchState, Totals]:
        return dataclasses.replace(state, step=state.step + 1), {}

    def decide(history: History) -> Stop:
        return Stop(history[-1]["epoch"])

    return Method(problem, init, step, schedules, decide, learns=frozenset())


def _drawing(problem: Problem) -> tuple[Problem, Callable[[jax.Array], Alpha]]:
    """The problem with drawn weights in the place of alpha, and key -> weights of an architecture."""
    space, dtype = problem.space, problem.network.dtype
    assert space is not None

    def sample(key: jax.Array) -> Alpha:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), _sample(space, key))

    return dataclasses.replace(problem, relaxation=as_given(sample)), sample


def _badness(problem: Problem, scores: np.ndarray) -> np.ndarray:
    """Smaller is better."""
    return scores if problem.task.metrics[problem.task.objective].better == "less" else -scores


_sample = jax.jit(sample_weights, static_argnums=(0, 2))


@part(1)
def _value_and_gradient(loss: LossFn, params: Any, weights: Alpha, view: View) -> Any:
    return jax.value_and_grad(loss, has_aux=True)(params, weights, view)


def _build_random_ws(ingredients: Ingredients) -> Method:
    settings = ingredients.settings
    return random_ws(
        ingredients.problem,
        weight_optimiser=weights(settings),
        values=weight_values(settings),
        schedules=weight_schedules(settings),
        samples=settings.selection_samples,
        batches=settings.selection_batches,
        finalists=settings.selection_finalists,
    )


def _build_random(ingredients: Ingredients) -> Method:
    settings = ingredients.settings
    return random_architecture(
        ingredients.problem, weight_optimiser=weights(settings), schedules=weight_schedules(settings)
    )


RANDOM_WS = MethodEntry(
    _build_random_ws,
    "the best of architectures drawn at random, by the validation part with the shared weights",
    settings=(Selection,),
    defaults={
        "paper": {"selection_samples": 1000, "selection_batches": 10, "selection_finalists": 10},
    },
    learns_alpha=False,
)
RANDOM = MethodEntry(_build_random, "one architecture drawn at random", learns_alpha=False)
