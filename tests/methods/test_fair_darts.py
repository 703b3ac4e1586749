"""Are FairDARTS' weights sigmoids that the zero-one loss drives apart, and do the strong ones make the genotype?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS, Method, Problem
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.fair_darts import FairDartsSettings, above, sigmoid, strong_edges, zero_one_loss
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Weights
from jaxdarts.networks.functional import Network
from jaxdarts.spaces import NASBENCH201, Architecture, CellSpace, Genotype, SearchSpace, discretise
from jaxdarts.tasks.classification import bare_task
from tests.methods.making import RAGGED, settings_of

KEY = jax.random.key(0)
ALPHA = {"normal": jnp.asarray([[2.0, 7.0, 9.0], [0.5, -1.0, 0.0]]), "reduce": jnp.asarray([[1.0, -3.0], [4.0, 5.0]])}
# In a shorter list the last entries are no candidate's.
REAL = {"normal": np.array([[1, 0, 0], [1, 1, 1]], bool), "reduce": np.array([[1, 1], [1, 0]], bool)}
SKIP, MAX, SEP = "skip_connect", "max_pool_3x3", "sep_conv_3x3"
THREE = SearchSpace.uniform("three", (SKIP, SEP), num_nodes=3)  # edges to state 2: 0, 1; to 3: 2 to 4; to 4: 5 to 8


def s(x: Any) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_weights_are_sigmoids_each_by_itself() -> None:
    relaxation = sigmoid(RAGGED, softmax(RAGGED))
    for values, divisor in (({}, 1), ({"temperature": jnp.float32(2)}, 2)):
        found = relaxation.mean(ALPHA, values).operations
        for cell in RAGGED.cell_types:
            expected = np.where(REAL[cell], s(np.asarray(ALPHA[cell]) / divisor), 0)
            np.testing.assert_allclose(found[cell], expected, rtol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, relaxation.sample(ALPHA, values, KEY).operations, found)
    assert not relaxation.uses_key
    slope = jax.grad(lambda alpha: relaxation.mean(alpha, {}).operations["normal"].sum())(ALPHA)["normal"]
    np.testing.assert_allclose(slope[1], s(ALPHA["normal"][1]) * s(-ALPHA["normal"][1]), rtol=1e-5)
    assert not slope[0, 1:].any()


def test_reports_make_the_same_weights() -> None:
    alpha = np.array([-800.0, -2, 0, 1, 800])
    np.testing.assert_allclose(
        METHODS["fair-darts"].mixing.weights(alpha, "abcde"), [0, s(-2), 0.5, s(1), 1], rtol=1e-12
    )


@pytest.mark.parametrize("form", ["l2", "l1"])
def test_the_zero_one_loss_and_its_gradient(form: str) -> None:
    """By hand, over the seven candidates of both cells together."""
    away = {cell: (s(ALPHA[cell]) - 0.5)[REAL[cell]] for cell in REAL}
    every = np.concatenate(list(away.values()))
    expected = -np.mean(every**2) if form == "l2" else -np.mean(np.abs(every))
    beside = {**ALPHA, "edges": {"normal": jnp.ones(2), "reduce": jnp.ones(2)}}
    value, slope = jax.value_and_grad(lambda alpha: zero_one_loss(RAGGED, alpha, form))(beside)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for cell in RAGGED.cell_types:
        a = s(ALPHA[cell]) - 0.5
        outer = 2 * a if form == "l2" else np.sign(a)
        by_hand = np.where(REAL[cell], -outer * s(ALPHA[cell]) * s(-np.asarray(ALPHA[cell])) / 7, 0)
        np.testing.assert_allclose(slope[cell], by_hand, rtol=1e-5, atol=1e-8)
        assert not slope["edges"][cell].any()
    at_zero = jax.grad(lambda alpha: zero_one_loss(RAGGED, alpha, form))(jax.tree.map(jnp.zeros_like, ALPHA))
    assert not any(leaf.any() for leaf in jax.tree.leaves(at_zero))


def linear(space: CellSpace, **changes: Any) -> Method:
    """FairDARTS with a loss that is the sum of all mixing weights, in the place of a network's."""

    def apply(params: Any, stats: Any, weights: Weights, batch: Any, memory: Any, context: Any) -> Any:
        return params + sum(value.sum() for value in weights.operations.values()), stats, memory

    network = Network(lambda key: (jnp.zeros(()), {}), apply, False, jnp.float32, None)
    loss = lambda outputs, batch: (outputs, {"loss": (outputs, 1)})  # noqa: E731
    problem = Problem(space, network, bare_task()._replace(loss=loss, inner_loss=loss), softmax(space))
    return METHODS["fair-darts"].build(Ingredients(problem, settings_of("fair-darts", **changes)))


@pytest.mark.parametrize(("form", "weight"), [("l2", 10.0), ("l1", 3.0), ("l2", 0.0)])
def test_a_step_adds_the_loss_to_the_outer_objective(form: str, weight: float) -> None:
    """Adam's first moment has a tenth of the gradient; nothing is reported of the loss."""
    changes = {"zero_one_loss": form} if weight else {}
    method = linear(RAGGED, zero_one_weight=weight, alpha_l2=0.0, **changes)
    state = dataclasses.replace(method.init(KEY), alpha=ALPHA)
    new, totals = method.step(state, None, None)
    (moments,) = optax.tree.get_all_with_path(new.alpha_opt_state, "mu")
    penalty = jax.grad(lambda alpha: zero_one_loss(RAGGED, alpha, form))(ALPHA)
    for cell in RAGGED.cell_types:
        plain = np.where(REAL[cell], s(ALPHA[cell]) * s(-np.asarray(ALPHA[cell])), 0)
        np.testing.assert_allclose(moments[1][cell], 0.1 * (plain + weight * penalty[cell]), rtol=1e-4, atol=1e-8)
    total = sum(np.where(REAL[cell], s(ALPHA[cell]), 0).sum() for cell in REAL)
    np.testing.assert_allclose(totals["alpha_loss"][0], total, rtol=1e-6)


def derived(space: CellSpace, threshold: float = 0.85, edges: Any = None, **cells: Any) -> Architecture:
    """From the weights of a cell's edges by row, {row: (of each candidate)}, the others 0.1; of both cells if one."""
    weights = {}
    for cell in space.cell_types:
        weights[cell] = np.full(space.alpha_shape(cell), 0.1)
        for row, values in cells.get(cell, cells.get("normal", {})).items():
            weights[cell][row] = values
    return above(threshold)(space, Weights(weights, edges))


def test_strong_operations_are_kept() -> None:
    """By hand: state 3 keeps one of its two, state 4 two of three that are strong; the threshold itself is enough."""
    rows = {
        0: (0.9, 0.2),
        1: (0.85, 0.86),
        2: (0.84, 0.2),
        4: (0.1, 0.9),
        5: (0.95, 0.9),
        6: (0.9, 0.9),
        8: (0.85, 0.1),
    }
    found = derived(THREE, normal=rows)
    normal = ((SKIP, 0), (SEP, 1), (SEP, 2), (SKIP, 0), (SKIP, 1))
    assert found == Genotype(normal, (2, 3, 4), normal, (2, 3, 4), (2, 1, 2), (2, 1, 2))
    exactly = derived(THREE, normal={0: (0.85, 0.2), 1: (0.9, 0.1), 5: (0.8499, 0.1)})
    assert exactly.edges("normal") == ((SKIP, 1), (SKIP, 0)) and exactly.concat("normal") == (2,)
    full = {row: (0.9 - row / 100, 0.1) for row in range(9)}
    weights = {cell: np.array([full[row] for row in range(9)]) for cell in THREE.cell_types}
    assert derived(THREE, 0.8, normal=full) == discretise(THREE, weights)


def test_a_node_without_edges_takes_others_with_it() -> None:
    """State 2 has no edge; 3 reads only 2, and 4 reads 3 and 0. The edges from nowhere are gone, and both nodes."""
    rows = {4: (0.9, 0.1), 8: (0.99, 0.1), 5: (0.1, 0.9)}
    found = derived(THREE, normal=rows, reduce={0: (0.9, 0.1)})
    assert found == Genotype(((SEP, 0),), (4,), ((SKIP, 0),), (2,), (0, 0, 1), (1, 0, 0))
    weights = Weights({cell: np.full((9, 2), 0.1) for cell in THREE.cell_types})
    for row, values in rows.items():
        np.asarray(weights.operations["normal"])[row] = values
    assert strong_edges(THREE, weights, 0.85)["normal"] == [(1, (SKIP, 2)), (2, (SKIP, 3)), (2, (SEP, 0))]


def test_an_empty_cell_keeps_its_strongest_edge_from_an_input() -> None:
    """Of edges to nodes that are concatenated; the reduction cell is judged by itself."""
    found = derived(THREE, normal={6: (0.3, 0.5), 4: (0.9, 0.1), 8: (0.7, 0.7)}, reduce={0: (0.9, 0.1)})
    assert found == Genotype(((SEP, 1),), (4,), ((SKIP, 0),), (2,), (0, 0, 1), (1, 0, 0))
    last = dataclasses.replace(THREE, concat=(4,))
    found = derived(last, normal={0: (0.9, 0.1), 5: (0.2, 0.3), 8: (0.8, 0.1)})
    assert found.edges("normal") == ((SEP, 0),) and found.nodes("normal") == (2,)
    tie = derived(THREE)
    assert tie.edges("normal") == ((SKIP, 0),) and tie.concat("normal") == (2,)


def test_none_is_never_chosen_in_spaces_of_darts() -> None:
    space = SearchSpace.uniform("none", ("none", SKIP), num_nodes=1)
    assert derived(space, normal={0: (0.99, 0.9), 1: (0.99, 0.2)}).edges("normal") == ((SKIP, 0),)
    assert derived(space, normal={0: (0.99, 0.3), 1: (0.99, 0.2)}).edges("normal") == ((SKIP, 0),)


def test_edges_are_ranked_by_the_product_and_kept_by_their_own() -> None:
    """State 4 has four edges: the two with the largest weights of edges win, of which one is strong."""
    edges = {cell: np.array([0.5] * 5 + [0.1, 0.2, 0.3, 0.4]) for cell in THREE.cell_types}
    rows = {0: (0.9, 0.1), 5: (0.99, 0.1), 6: (0.9, 0.1), 7: (0.86, 0.1), 8: (0.84, 0.1)}
    found = derived(THREE, edges=edges, normal=rows)
    assert found.edges("normal") == ((SKIP, 0), (SKIP, 2)) and found.nodes("normal") == (0, 2)


def test_every_edge_stays_where_the_space_keeps_all() -> None:
    """A weak operation is `none` there, if the edge has that."""
    names = NASBENCH201.cell[0]
    strong, weak = np.eye(5)[names.index("skip_connect")] * 0.9, np.full(5, 0.2) + 0.1 * np.arange(5)
    found = derived(NASBENCH201, normal={0: strong, 1: weak, 5: strong})
    assert found.to_text() == "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
    without = dataclasses.replace(NASBENCH201, cell=(("skip_connect", "nor_conv_3x3"),) * 6)
    assert derived(without).operations == ("skip_connect",)


def test_the_settings_name_the_derivation() -> None:
    """`darts`, and an own threshold; of the mean weights as the method has them."""
    alpha = {cell: jnp.asarray([[0.0, 3.0], [-2.0, -1.0]]) for cell in ("normal", "reduce")}
    space = SearchSpace.uniform("one", (SKIP, SEP), num_nodes=1)
    found = []
    for changes in ({}, {"fair_threshold": 0.96}, {"fair_threshold": 0.2}, {"fair_derivation": "darts"}):
        method = linear(space, **changes)
        found.append(method.derive(space, method.problem.mean_weights(alpha, {}), alpha).edges("normal"))
    assert found == [((SEP, 0),), ((SEP, 0),), ((SEP, 0), (SEP, 1)), ((SEP, 0), (SEP, 1))]
    with pytest.raises(InputError, match=r"strengths\['normal'\] holds values that are not numbers"):
        derived(THREE, normal={0: (np.nan, 1)})


def test_published_settings_and_wrong_ones() -> None:
    quick, paper = settings_of("fair-darts"), settings_of("fair-darts", preset="paper")
    for found in (quick, paper):
        assert (found.alpha_init_scale, found.alpha_b1, found.alpha_l2, found.l2) == (0.0, 0.9, 1e-3, 3e-4)
        assert (found.zero_one_weight, found.zero_one_loss, found.fair_threshold) == (10.0, "l2", 0.85)
    defaults = METHODS["fair-darts"].defaults["paper"]
    assert quick.alpha_learning_rate == 0.03
    assert defaults == {"batch_size": 128, "learning_rate": 0.005, "alpha_learning_rate": 3e-3}
    assert (paper.epochs, paper.learning_rate, paper.learning_rate_min, quick.learning_rate) == (50, 0.005, 1e-3, 0.025)
    with pytest.raises(InputError, match="fair_threshold must be greater than 0 and less than 1; got 1"):
        FairDartsSettings(fair_threshold=1)
    with pytest.raises(InputError, match="fair_threshold must be greater than 0 and less than 1; got 0"):
        FairDartsSettings(fair_threshold=0)
    with pytest.raises(InputError, match="zero_one_weight must be at least 0; got -1"):
        FairDartsSettings(zero_one_weight=-1)
    with pytest.raises(InputError, match="unknown fair_derivation 'threshold_edge'; choose from darts, threshold"):
        FairDartsSettings(fair_derivation="threshold_edge")
    with pytest.raises(InputError, match="fair_threshold 0.5 is only for fair_derivation threshold"):
        settings_of("fair-darts", fair_derivation="darts", fair_threshold=0.5)
    with pytest.raises(InputError, match="zero_one_loss 'l1' is only for zero_one_weight greater than 0"):
        settings_of("fair-darts", zero_one_weight=0.0, zero_one_loss="l1")
