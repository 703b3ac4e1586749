"""Are elements that pass an identity dropped at random, for each edge its own, in training only?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import Supernet, layers
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan, Connection
from jaxdarts.spaces import SearchSpace

KEY = jax.random.key(0)
TWO_SKIPS = CellPlan(2, (Connection(0, 1, "skip_connect"), Connection(1, 1, "skip_connect")), (2, 3))
SPACE = SearchSpace.uniform("skips", ("skip_connect", "max_pool_3x3"), num_nodes=1)


def cell(reduction: bool = False) -> Cell:
    return Cell(TWO_SKIPS, 2, reduction=reduction, previous_reduction=False, affine=False, normalise_pools=True)


def outputs(dropout: Any, train: bool = True, key: Any = KEY, reduction: bool = False) -> np.ndarray:
    """Of a cell whose two nodes are identities of the same state: [nodes, C, H, W, B]."""
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 16))
    gates, network = jnp.ones((2, 1)), cell(reduction)
    variables = network.init(KEY, images, images, gates, False, None)
    value: Any = network.apply(variables, images, images, gates, train, key, dropout, mutable=["batch_stats"])[0]
    return np.asarray(value).reshape(2, 2, *value.shape[1:])


def test_elements_are_dropped_and_the_others_scaled() -> None:
    plain, dropped = outputs(None), outputs(jnp.float32(0.25))
    kept = dropped != 0
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_allclose(dropped[kept], plain[kept] / 0.75, rtol=1e-5)
    # Elements, not channels, positions or images.
    assert kept[0].mean(axis=(1, 2, 3)).min() > 0 and kept[0].mean(axis=(0, 3)).min() > 0.3
    assert (kept[0] != kept[1]).any()  # each edge has its own


def test_nothing_is_dropped_without_a_chance_a_key_or_training() -> None:
    np.testing.assert_array_equal(outputs(jnp.float32(0)), outputs(None))
    np.testing.assert_array_equal(outputs(jnp.float32(0.5), key=None), outputs(None))
    assert (outputs(jnp.float32(0.5), reduction=True) != 0).mean() > 0.99  # a factorised reduction is no identity


def scores(dropout: Any, train: bool = True, remat: int = 0, key: Any = KEY) -> np.ndarray:
    network = Supernet(SPACE, 3, 4, 3, remat=remat, skip_dropout=True)
    images = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    weights = {cell: jnp.full(SPACE.alpha_shape(cell), 0.5) for cell in SPACE.cell_types}
    variables = network.init(jax.random.key(3), images, weights)
    found: Any = network.apply(
        variables, images, weights, train=train, skip_dropout=dropout, key=key, mutable=["batch_stats"]
    )
    return np.asarray(found[0])


def test_in_a_network() -> None:
    """The same with cells computed again for the backward pass; in evaluation nothing is dropped."""
    assert np.abs(scores(0.5) - scores(0.0)).max() > 1e-3
    assert np.abs(scores(0.5) - scores(0.5, key=jax.random.key(9))).max() > 1e-3
    np.testing.assert_allclose(scores(0.5, remat=3), scores(0.5), rtol=1e-5)
    np.testing.assert_array_equal(scores(0.5, train=False), scores(0.0, train=False))


def test_a_network_without_refuses_it() -> None:
    network = Supernet(SPACE, 3, 4, 3)
    weights = {cell: jnp.full(SPACE.alpha_shape(cell), 0.5) for cell in SPACE.cell_types}
    with pytest.raises(InputError, match="skip_dropout: the network drops no elements; got 0.5"):
        network.init(KEY, jnp.zeros((1, 8, 8, 1)), weights, skip_dropout=0.5)


def test_the_mask() -> None:
    mask = np.asarray(layers.keep_mask(KEY, 0.2, (100, 100), jnp.float32))
    assert set(np.unique(mask)) == {0.0, np.float32(1 / np.float32(0.8))}


def test_a_norm_before_the_pool() -> None:
    """Scale and shift of the last batch norm count, and a ReLU follows."""
    weights = {cell: jnp.full(SPACE.alpha_shape(cell), 0.5) for cell in SPACE.cell_types}
    network = Supernet(SPACE, 3, 4, 3, final_norm=True)
    images = jax.random.normal(jax.random.key(2), (4, 8, 8, 1))
    variables = network.init(KEY, images, weights)
    norm = variables["params"]["classifier"]["norm"]
    bias = variables["params"]["classifier"]["linear"]["bias"]
    norm["bias"] = jnp.full_like(norm["bias"], -100.0)  # below 0 everywhere
    found: Any = network.apply(variables, images, weights, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(found, np.broadcast_to(bias, found.shape), rtol=1e-6)
    assert "norm" not in Supernet(SPACE, 3, 4, 3).init(KEY, images, weights)["params"]["classifier"]
