"""Which edges are dropped, for which images, by which key? Only the cells' gates are looked at; no cell is computed."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.networks import DiscreteNetwork, Supernet
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.discrete import discrete_plan
from jaxdarts.spaces import Genotype, SearchSpace

BATCH = 64
GENOTYPE = Genotype(
    (("sep_conv_3x3", 0), ("skip_connect", 1), ("skip_connect", 2), ("max_pool_3x3", 0)),
    (2, 3),
    (("skip_connect", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("sep_conv_3x3", 1)),
    (2, 3),
)
# Rows of a cell's gates that belong to identities. In a reduction cell a skip from an input state halves the image.
IDENTITIES = {"normal": [1, 2], "reduce": [2]}
SPACE = SearchSpace.uniform("space", ("skip_connect", "max_pool_3x3"), num_nodes=2)


def gates_of(network: Any, *arguments: Any, key: jax.Array, drop_path: float = 0.5, train: bool = True) -> Any:
    """float[connections, B or 1] of every cell."""
    found = []

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        cell = context.module
        if not isinstance(cell, Cell) or context.method_name != "__call__":
            return call(*args, **kwargs)
        _, last, gates, *_ = args
        found.append(np.asarray(gates))
        height, width = last.shape[1:3]
        stride = 2 if cell.reduction else 1
        return jnp.zeros((cell.channels * len(cell.plan.concat), height // stride, width // stride, BATCH))

    x = jnp.zeros((BATCH, 8, 8, 3))
    shapes = jax.eval_shape(network.init, key, x, *arguments)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    options = {"train": train, "drop_path": drop_path, "key": key, "mutable": ["batch_stats"]}
    with nn.intercept_methods(intercept):
        network.apply(variables, x, *arguments, **options)
    return found


def differ(rows: np.ndarray) -> bool:
    """Whether no two rows are equal."""
    return len(np.unique(rows, axis=0)) == len(rows)


def discrete_gates(seed: int, **options: Any) -> Any:
    network = DiscreteNetwork(GENOTYPE, num_classes=3, channels=2, num_cells=4, auxiliary=False)
    return gates_of(network, key=jax.random.key(seed), **options)


def supernet_gates(seed: int, **options: Any) -> Any:
    network = Supernet(SPACE, num_classes=3, channels=2, num_cells=4)
    ones = {cell: jnp.ones(SPACE.alpha_shape(cell)) for cell in SPACE.cell_types}
    return gates_of(network, ones, key=jax.random.key(seed), **options)


def test_evaluation_network() -> None:
    """Operations are dropped one by one, identities never, those inside a reduction cell included."""
    cells = discrete_gates(seed=0)
    dropped = []
    for gates, kind in zip(cells, ("normal", "reduce", "reduce", "normal"), strict=True):
        assert gates.shape == (4, BATCH)
        assert (gates[IDENTITIES[kind]] == 1).all()
        dropped += list(np.delete(gates, IDENTITIES[kind], axis=0))
    assert set(np.unique(dropped)) == {0.0, 2.0}
    assert 0.4 < np.mean(np.array(dropped) == 0) < 0.6
    assert differ(np.array(dropped)), "edges, or cells, share a mask"
    assert len(np.unique(np.array(dropped).T, axis=0)) > BATCH // 2, "images share a mask"


def test_search_network() -> None:
    """An edge is dropped as a whole."""
    cells = np.array(supernet_gates(seed=0))
    by_edge = cells.reshape(4, SPACE.num_edges, 2, BATCH)
    assert (by_edge[:, :, 0] == by_edge[:, :, 1]).all()
    masks = by_edge[:, :, 0].reshape(-1, BATCH)
    assert set(np.unique(masks)) == {0.0, 2.0} and 0.4 < np.mean(masks == 0) < 0.6
    assert differ(masks) and len(np.unique(masks.T, axis=0)) > BATCH // 2


@pytest.mark.parametrize("gates", [discrete_gates, supernet_gates])
def test_keys_and_probability(gates: Any) -> None:
    first, same, other = gates(0), gates(0), gates(1)
    for cell in range(4):
        assert (first[cell] == same[cell]).all() and (first[cell] != other[cell]).any()
    assert {float(value) for cell in gates(0, drop_path=0.0) for value in np.unique(cell)} == {1.0}
    assert np.isclose(max(cell.max() for cell in gates(0, drop_path=0.2)), 1.25)
    assert all((cell == 1).all() for cell in gates(0, train=False))


def test_skips_in_a_reduction_cell() -> None:
    """From an input state a factorised reduction, which has weights; from an inner node the identity."""
    cell = Genotype(
        (("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2), ("none", 0)),
        (2, 3),
        (("skip_connect", 0), ("none", 1), ("skip_connect", 2), ("none", 0)),
        (2, 3),
    )
    module = Cell(
        discrete_plan(cell, "reduce"), 2, reduction=True, previous_reduction=False, affine=True, normalise_pools=False
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
    arguments = (x, x, jnp.ones((4, 1)), True, None)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments))
    params = {name for name in shapes["params"] if not name.startswith("preprocess")}
    assert params == {"skip_connect_from_0_1", "norm_1_from_0"}
    assert set(shapes["params"]["skip_connect_from_0_1"]) == {"conv_1", "conv_2"}
    random = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    output, _ = module.apply(variables, *arguments, mutable=["batch_stats"])
    assert output.shape == (4, 2, 2, 3) and output.std() > 0.1
    np.testing.assert_array_equal(output[2:], output[:2])
