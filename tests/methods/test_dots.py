"""Are DOTS' weights of edges those of the combinations that hold them, and what is derived from them?"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS
from jaxdarts.methods.dots import (
    COMBINATIONS,
    STAGES,
    by_combinations,
    combinations,
    decided_operations,
    grouped,
    membership,
    operation_epochs,
    topology,
    topology_temperature,
)
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Weights
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import NASBENCH201, SPACES, SearchSpace

SKIP, MAX, SEP, DIL = "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_3x3"
SPACE = SearchSpace.uniform("groups", ("none", MAX, SKIP, SEP, DIL), num_nodes=3)
PAIRS = SearchSpace.uniform("pairs", (SKIP, SEP), num_nodes=3)
KEY = jax.random.key(0)


def test_each_group_has_a_softmax_of_its_own() -> None:
    alpha = {cell: jax.random.normal(jax.random.fold_in(KEY, i), (9, 5)) for i, cell in enumerate(SPACE.cell_types)}
    found = grouped(SPACE, softmax(SPACE)).mean(alpha, {}).operations["normal"]
    np.testing.assert_allclose(found[:, :3], jax.nn.softmax(alpha["normal"][:, :3]), rtol=1e-5)
    np.testing.assert_allclose(found[:, 3:], jax.nn.softmax(alpha["normal"][:, 3:]), rtol=1e-5)


def test_a_group_without_candidates_adds_nothing() -> None:
    space = SearchSpace("some", 1, ((SKIP, MAX), (SEP,)), ((SEP, "noise"), (DIL, SEP)), (2,))
    relaxation = grouped(space, softmax(space))
    alpha = relaxation.init(KEY)
    found = relaxation.mean(alpha, {}).operations
    np.testing.assert_allclose(np.asarray(found["normal"]).sum(axis=1), [1, 1], rtol=1e-6)
    np.testing.assert_allclose(found["reduce"][0], [1, 1])
    assert float(found["normal"][1, 1]) == 0  # pads a shorter list
    slope = jax.grad(lambda a: (relaxation.mean(a, {}).operations["normal"] ** 2).sum())(alpha)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_the_report_makes_the_same_weights() -> None:
    alpha = np.random.default_rng(0).normal(size=5)
    found = METHODS["dots"].mixing.weights(alpha, SPACE.normal[0])
    expected = grouped(SPACE, softmax(SPACE)).mean({c: jnp.asarray([alpha] * 9) for c in SPACE.cell_types}, {})
    np.testing.assert_allclose(found, expected.operations["normal"][0], rtol=1e-5)


def test_the_strongest_of_each_group_is_left() -> None:
    alpha = {"normal": np.zeros((9, 5)), "reduce": np.zeros((9, 5))}
    alpha["normal"][0] = [0, 0, 1, 0, 2]
    found = decided_operations(SPACE, alpha)
    assert found.normal[0] == (SKIP, DIL)
    assert found.normal[1] == ("none", SEP)  # of equal ones the first
    lonely = SearchSpace.uniform("lonely", ("none", SKIP), num_nodes=1)
    left = decided_operations(lonely, {cell: np.array([[5.0, 0]] * 2) for cell in lonely.cell_types})
    assert left.normal == ((SKIP,), (SKIP,))


@pytest.mark.parametrize("count", [2, 3])
def test_edge_weights_are_sums_over_combinations(count: int) -> None:
    """By hand, and they sum to as many as there are edges in a combination."""
    relaxation = topology(PAIRS, softmax(PAIRS, 0.0), count, jnp.float32)
    alpha: Any = relaxation.init(KEY)
    ways = combinations(PAIRS, count)
    beta = jax.random.normal(KEY, (len(ways),))
    alpha = {**alpha, COMBINATIONS: {"normal": beta, "reduce": 0 * beta}}
    found = relaxation.mean(alpha, {"temperature": jnp.float32(0.5)}).edges
    assert found is not None
    expected = np.zeros(PAIRS.num_edges)
    for node in range(3):
        own = [(row, sources) for row, (owner, sources) in enumerate(ways) if owner == node]
        assert [sources for _, sources in own] == list(itertools.combinations(range(node + 2), min(count, node + 2)))
        exponentials = np.exp([2 * float(beta[row]) for row, _ in own])
        for weight, (_, sources) in zip(exponentials / exponentials.sum(), own, strict=True):
            for source in sources:
                expected[PAIRS.incoming(node).start + source] += weight
        assert found["reduce"][PAIRS.incoming(node)].sum() == pytest.approx(min(count, node + 2))
    np.testing.assert_allclose(found["normal"], expected, rtol=1e-5)
    # What the report shows are parts of a node's.
    shown = STAGES["topology"].mixing.edge_weights(PAIRS, np.asarray(beta) / 0.5)  # type: ignore[misc]
    for node in range(3):
        rows = PAIRS.incoming(node)
        np.testing.assert_allclose(shown[rows] * min(count, node + 2), expected[rows], rtol=1e-5)


def test_operations_are_balanced_at_a_thousandth_of_the_temperature() -> None:
    relaxation = topology(PAIRS, softmax(PAIRS, 0.0), 2, jnp.float32)
    alpha: Any = relaxation.init(KEY)
    alpha["normal"] = alpha["normal"].at[0].set(jnp.array([0.001, 0.0]))
    found = relaxation.mean(alpha, {"temperature": jnp.float32(2)}).operations["normal"]
    np.testing.assert_allclose(found[0], jax.nn.softmax(jnp.array([0.5, 0])), rtol=1e-5)
    np.testing.assert_allclose(found[1], [0.5, 0.5])
    shown = STAGES["topology"].mixing.weights(np.array([0.0005, 0.0]), PAIRS.normal[0])
    np.testing.assert_allclose(shown, found[0], rtol=1e-5)


def test_all_variables_start_at_zero() -> None:
    alpha = topology(PAIRS, softmax(PAIRS, 0.0), 2, jnp.float32).init(KEY)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(alpha))
    assert SearchConfig(method="dots").alpha_init_scale == 0


def test_the_combination_with_the_largest_alpha_is_derived() -> None:
    """Not the two edges with the largest weights, which differ here."""
    space = SearchSpace.uniform("four", (SKIP, "none", SEP), num_nodes=3)
    ways = combinations(space, 2)
    beta = np.zeros(len(ways))
    beta[-6:] = [0.9, 0.8, 0.8, 0.0, 0.0, 1.0]  # pairs 01, 02, 03, 12, 13, 23 of the last node
    balance = np.zeros((9, 3))
    balance[8] = [0, 5, 1]
    alpha = {"normal": balance, "reduce": 0 * balance, COMBINATIONS: {"normal": beta, "reduce": 0 * beta}}
    found = by_combinations(2)(space, Weights({}), alpha)
    assert found.edges("normal") == ((SKIP, 0), (SKIP, 1), (SKIP, 0), (SKIP, 1), (SKIP, 2), (SEP, 3))
    assert (np.exp(beta[-6:]) @ membership(space, 2)[-6:])[5:].argmax() == 0
    three = by_combinations(3)(space, Weights({}), {**alpha, COMBINATIONS: {c: np.zeros(6) for c in space.cell_types}})
    assert three.nodes("normal") == (0, 0, 1, 1, 1, 2, 2, 2)
    assert type(three).from_text(three.to_text()) == type(three).from_json(three.to_json()) == three


def test_the_temperature_of_the_topology() -> None:
    settings = SimpleNamespace(
        epochs=40, alpha_warm_up=0.5, topology_temperature_start=10.0, topology_temperature_end=0.02
    )
    schedule = topology_temperature(settings)
    assert schedule(0) == schedule(19) == 1 and schedule(20) == 10
    assert schedule(39) == pytest.approx(0.02) and schedule(21) / schedule(20) == pytest.approx((0.02 / 10) ** (1 / 19))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"node_edges": 1}, "node_edges must be at least 2; got 1"),
        ({"topology_start": 1.0}, "topology_start must be greater than 0 and less than 1; got 1.0"),
        ({"topology_temperature_end": 0.0}, "topology_temperature_end must be greater than 0; got 0.0"),
    ],
)
def test_settings_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        SearchConfig(method="dots", **given)
    assert str(error.value).startswith(message)


def test_spaces_that_cannot_be_used() -> None:
    check = METHODS["dots"].check_space
    with pytest.raises(InputError, match="method dots cannot be used in space 'nasbench201'"):
        check(SearchConfig(method="dots"), NASBENCH201)
    with pytest.raises(InputError, match="edge_normalisation cannot be used by method dots"):
        check(SearchConfig(method="dots", edge_normalisation=True), SPACES["s1"])
    with pytest.raises(InputError, match="leaves one of the two stages without an epoch"):
        check(SearchConfig(method="dots", epochs=1), SPACES["s1"])
    assert operation_epochs(SearchConfig(method="dots", epochs=70)) == 30
