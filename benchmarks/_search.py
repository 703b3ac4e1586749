"""Which searches do the speed benchmarks measure? Sizes, and one step of a method ready to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxdarts as jd
from jaxdarts.bilevel import Parts
from jaxdarts.errors import unknown_choice
from jaxdarts.methods import Method, Problem, SearchState, View, flat_updates


class Size(NamedTuple):
    """What decides how much work a step is."""

    batch: int
    channels: int
    cells: int
    image: int


SIZES = {
    "tiny": Size(4, 2, 3, 8),
    "small": Size(32, 8, 5, 8),
    "quick": Size(32, 8, 3, 16),  # of the preset
    "medium": Size(64, 8, 5, 16),
    "paper": Size(64, 16, 8, 32),
}


class Ready(NamedTuple):
    """A method's step with all that it takes: random images at initialisation."""

    problem: Problem
    method: Method
    state: SearchState
    train: jd.Batch
    valid: jd.Batch
    parts: Parts  # the programs of `step`

    @property
    def view(self) -> View:
        """What the inner objective of a step depends on beside w and alpha."""
        needs_key = self.problem.network.needs_key or self.problem.relaxation.uses_key
        state, key = self.state, jax.random.key(0) if needs_key else None
        return View(self.train, state.stats, state.memory, state.values, key)

    def step(self) -> Any:
        """One step from the start, in parts as the search command runs it on a CPU."""
        return self.parts.run(self.method.step)(self.state, self.train, self.valid)


def size_of(name: str) -> Size:
    if name not in SIZES:
        raise unknown_choice("size", name, SIZES)
    return SIZES[name]


def make_problem(space: str, size: Size, remat: int = 0) -> Problem:
    found = jd.load_space(space)
    return jd.SearchProblem(
        found, jd.Supernet(found, 10, size.channels, size.cells, remat), (size.image, size.image, 3)
    )


def make_batch(size: Size, seed: int) -> jd.Batch:
    images, labels = jax.random.split(jax.random.key(seed))
    shape = (size.batch, size.image, size.image, 3)
    return jd.Batch(jax.random.normal(images, shape), jax.random.randint(labels, (size.batch,), 0, 10))


def make_ready(space: str, size: Size, hypergradient: Callable[..., Any], remat: int = 0) -> Ready:
    """Settings of optimisers are the published ones; they do not touch the time."""
    problem = make_problem(space, size, remat)
    method = jd.darts(
        problem,
        hypergradient=hypergradient,
        weight_optimiser=jd.weight_optimiser(0.025),
        virtual_step=jd.virtual_step_optimiser(0.025),
        alpha_optimiser=jd.alpha_optimiser(),
    )
    state = jax.block_until_ready(jax.jit(method.init)(jax.random.key(0)))
    train, valid = (jax.tree.map(jnp.asarray, make_batch(size, seed)) for seed in (1, 2))
    return Ready(problem, method, state, train, valid, Parts(flat_updates.IN_PLACE))
