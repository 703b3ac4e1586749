"""Does PC-DARTS learn weights of edges, and does its alpha rest while w learns?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import get_hyperparameters
from jaxdarts.errors import InputError
from jaxdarts.methods.base import strengths
from jaxdarts.methods.relaxations import edge_softmax, softmax, with_edges
from jaxdarts.spaces import SearchSpace, discretise
from tests.methods.making import RAGGED, at_epoch, batches, make, settings_of, started

TWO = SearchSpace.uniform("two", ("none", "skip_connect", "max_pool_3x3"), num_nodes=2)
KEY = jax.random.key(0)


def test_edges_of_a_node_share_one_softmax() -> None:
    """By hand: node 0 has two edges, node 1 three."""
    beta = jnp.log(jnp.asarray([1.0, 3.0, 2.0, 2.0, 4.0]))
    np.testing.assert_allclose(edge_softmax(TWO, beta), [0.25, 0.75, 0.25, 0.25, 0.5], rtol=1e-6)


def test_alpha_has_leaves_for_edges() -> None:
    """They start as small numbers of their own; weights of operations are those of DARTS; temperature divides all."""
    relaxation = with_edges(TWO, softmax(TWO), 1e-3)
    alpha = relaxation.init(KEY)
    assert jax.tree.map(jnp.shape, alpha) == {
        "normal": (5, 3),
        "reduce": (5, 3),
        "edges": {"normal": (5,), "reduce": (5,)},
    }
    drawn = np.concatenate([alpha["edges"][cell] for cell in TWO.cell_types])
    assert 0 < np.abs(drawn).max() < 5e-3 and len(set(drawn)) == 10
    alpha = jax.tree.map(lambda leaf: 1000 * leaf, alpha)
    weights = relaxation.mean(alpha, {"temperature": jnp.float32(2)})
    for cell in TWO.cell_types:
        np.testing.assert_allclose(weights.operations[cell], jax.nn.softmax(alpha[cell] / 2), rtol=1e-6)
        np.testing.assert_allclose(weights.edges[cell], edge_softmax(TWO, alpha["edges"][cell] / 2), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, weights, relaxation.sample(alpha, {"temperature": jnp.float32(2)}, KEY))


def test_edges_decide_between_edges() -> None:
    """In the derivation an operation's weight counts times its edge's."""
    relaxation = with_edges(TWO, softmax(TWO))
    alpha = jax.tree.map(jnp.zeros_like, relaxation.init(KEY))
    alpha["normal"] = jnp.asarray([[0.0, 1.0, 0.0]] * 2 + [[0.0, 0.0, 1.0], [0.0, 2.0, 0.0], [0.0, 3.0, 0.0]])
    plain = discretise(TWO, strengths(relaxation.mean(alpha, {})))
    alpha["edges"]["normal"] = jnp.asarray([0.0, 5.0, 5.0, 0.0, 0.0])
    other = discretise(TWO, strengths(relaxation.mean(alpha, {})))
    assert plain.edges("normal")[2:] == (("skip_connect", 2), ("skip_connect", 1))
    assert other.edges("normal") == (
        ("skip_connect", 1),
        ("skip_connect", 0),
        ("max_pool_3x3", 0),
        ("skip_connect", 2),
    )


def test_alpha_rests_while_w_learns() -> None:
    """15 of 50 epochs; one program for both; Adam remembers nothing of the rest."""
    method = make("pc-darts", RAGGED, epochs=50)
    step = jax.jit(method.step)
    assert [method.schedules["alpha/moves"](epoch) for epoch in (0, 14, 15, 49)] == [0, 0, 1, 1]
    first = started(method, 14)
    resting, totals = step(first, *batches())
    adam = first.alpha_opt_state.inner_state
    jax.tree.map(
        np.testing.assert_array_equal, (first.alpha, adam), (resting.alpha, resting.alpha_opt_state.inner_state)
    )
    assert float(totals["hypergradient_norm"][0]) > 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.params, resting.params)
    assert max(jax.tree.leaves(moved)) > 1e-4
    awake, _ = step(at_epoch(method, resting, 15), *batches(1))
    assert step._cache_size() == 1
    for leaf, old in zip(jax.tree.leaves(awake.alpha["edges"]), jax.tree.leaves(first.alpha["edges"]), strict=True):
        np.testing.assert_allclose(np.abs(leaf - old).max(), 3e-3, rtol=0.05)  # Adam's first step is its learning rate
    assert get_hyperparameters(awake.alpha_opt_state)["learning_rate"] == np.float32(3e-3)


def test_parts_can_be_left_out() -> None:
    method = make("pc-darts", partial_channels=1, edge_normalisation=False, alpha_warm_up=0.0)
    alpha = started(method).alpha
    assert set(alpha) == {"normal", "reduce"} and "alpha/moves" not in method.schedules
    assert method.problem.network.module.partial_channels == 1
    assert make("pc-darts", epochs=10).schedules["alpha/moves"](3) == 1


def test_published_settings_and_wrong_ones() -> None:
    entry = settings_of("pc-darts")
    assert (entry.partial_channels, entry.alpha_warm_up, entry.learning_rate) == (4, 0.3, 0.025)
    with pytest.raises(InputError, match="partial_channels must divide channels, 6; got 4"):
        make("pc-darts", channels=6)
    with pytest.raises(InputError, match="partial_channels must be at least 1; got 0"):
        make("pc-darts", partial_channels=0)
    with pytest.raises(InputError, match="alpha_warm_up must be at least 0 and less than 1; got 15"):
        make("pc-darts", alpha_warm_up=15)
