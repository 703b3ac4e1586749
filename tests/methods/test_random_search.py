"""Are architectures drawn uniformly from those of the space, and is the best one selected?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdarts.methods import sample_weights
from jaxdarts.methods.images import SearchProblem, train_mode_loss
from jaxdarts.methods.relaxations import as_given
from jaxdarts.networks import Supernet, Weights
from jaxdarts.spaces import S5, SPACES, Architecture, CellSpace, SearchSpace, discretise, one_hot
from jaxdarts.tasks.base import means
from tests.methods.making import batches, started
from tests.methods.test_methods import SPACE, assert_same, make

# Two edges with different numbers of candidates in one cell, and `none` in the other.
RAGGED = SearchSpace(
    "ragged",
    num_nodes=2,
    normal=(
        ("skip_connect",),
        ("skip_connect", "max_pool_3x3", "avg_pool_3x3"),
        ("max_pool_3x3", "skip_connect"),
        ("skip_connect",),
        ("avg_pool_3x3",),
    ),
    reduce=(("none", "skip_connect"),) * 5,
    concat=(2, 3),
)


def draw(space: CellSpace, seed: int, count: int) -> list[Architecture]:
    weights = sample_weights(space, jax.random.key(seed), (count,))
    rows = {cell: np.asarray(value) for cell, value in weights.items()}
    return [discretise(space, {cell: rows[cell][i] for cell in space.cell_types}) for i in range(count)]


@pytest.mark.parametrize("space", [*SPACES.values(), RAGGED], ids=lambda space: space.name)
def test_drawn_weights_are_those_of_a_genotype_of_the_space(space: CellSpace) -> None:
    weights = sample_weights(space, jax.random.key(1), (3, 2))
    for cell in space.cell_types:
        assert weights[cell].shape == (3, 2, *space.alpha_shape(cell))
        assert set(np.unique(weights[cell])) <= {0, 1}
        assert not np.asarray(weights[cell])[..., ~space.mask(cell)].any()
    for i in np.ndindex(3, 2):
        one = {cell: np.asarray(value[i]) for cell, value in weights.items()}
        genotype = discretise(space, one)
        assert space.chooses_none or "none" not in genotype.operations
        for cell, value in one_hot(space, genotype).items():
            np.testing.assert_array_equal(value, one[cell])


@pytest.mark.parametrize("space", [S5, RAGGED], ids=lambda space: space.name)
def test_every_genotype_is_equally_likely(space: SearchSpace) -> None:
    """Pearson's chi-squared statistic has mean k - 1 and variance 2 (k - 1) for k equally likely genotypes."""
    each = 40
    expected = {genotype.canonical() for genotype in space.genotypes()}
    drawn = Counter(genotype.canonical() for genotype in draw(space, 0, each * len(expected)))
    assert set(drawn) == expected
    statistic = sum((count - each) ** 2 / each for count in drawn.values())
    freedom = len(expected) - 1
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_key_gives_one_architecture(seed: int) -> None:
    assert draw(SPACE, seed, 1) == draw(SPACE, seed, 1)
    # One by one or together, the same distribution but not the same draws: shapes are part of the key's use.
    single = sample_weights(SPACE, jax.random.key(seed))
    assert single["normal"].shape == SPACE.alpha_shape("normal")


def test_every_step_draws_anew_and_trains_through_that_architecture_alone() -> None:
    search = make("random-ws")
    state = started(search)
    step = jax.jit(search.step)
    train, valid = batches(0)
    seen = set()
    for _ in range(12):
        before, (state, info) = state, step(state, train, valid)
        seen.add(np.asarray(state.alpha["normal"]).tobytes())
        problem = SearchProblem(SPACE, Supernet(SPACE, 3, 4, 1), (8, 8, 1))
        problem = dataclasses.replace(problem, relaxation=as_given())
        loss, _ = train_mode_loss(problem, before.params, state.alpha, train, batch_stats=before.stats)
        np.testing.assert_allclose(means(info)["train_loss"], loss, rtol=1e-5)
    assert len(seen) > 4  # of nine
    again, _ = step(before, train, valid)
    assert_same(again, state)


def test_random_trains_nothing() -> None:
    search = make("random")
    state = started(search)
    after, _ = jax.jit(search.step)(state, *batches(0))
    assert_same(after.alpha, state.alpha)
    assert not jax.tree.leaves(state.params) and int(after.step) == 1


def test_selection_takes_the_best_of_the_best() -> None:
    """On few batches an architecture scores its place in a table, on all of them the opposite."""
    search = make("random-ws", selection_samples=50, selection_batches=2, selection_finalists=4)
    assert search.choose is not None
    asked: list[tuple[int, int | None]] = []
    places = {genotype: place for place, genotype in enumerate(SPACE.genotypes())}
    table = np.random.default_rng(0).permutation(len(places)) / len(places)

    def few_batches(genotype: Architecture) -> float:
        return float(table[places[genotype.canonical()]])

    class Table:
        """A judge."""

        def __call__(self, weights: Weights | None = None) -> dict[str, float]:
            raise AssertionError("it asks for one number of many architectures")

        def score(self, weights: Mapping[str, np.ndarray], num_batches: int | None) -> np.ndarray:
            asked.append((len(weights["normal"]), num_batches))
            rows = [{cell: value[i] for cell, value in weights.items()} for i in range(asked[-1][0])]
            found = np.array([few_batches(discretise(SPACE, row)) for row in rows])
            return found if num_batches else 1 - found

    found = search.choose(started(make("random")), Table(), jax.random.key(0))
    drawn = {genotype.canonical() for genotype in draw(SPACE, 0, 50)}
    assert asked == [(len(drawn), 2), (4, None)]
    best = sorted(map(few_batches, drawn), reverse=True)[:4]
    assert [candidate.score for candidate in found] == [1 - value for value in reversed(best)]
    assert [few_batches(candidate.genotype) for candidate in found] == best[::-1]


def test_drawing_is_one_program_for_all_steps() -> None:
    traces = 0

    @jax.jit
    def one(key: jax.Array) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return sample_weights(SPACE, key)

    results = [one(jax.random.fold_in(jax.random.key(0), i)) for i in range(8)]
    assert traces == 1 and len({np.asarray(r["normal"]).tobytes() for r in results}) > 1
    assert all(jnp.sum(r["normal"]) == 2 for r in results)
