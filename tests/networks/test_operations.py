"""Does every operation of the registry keep the contract, alone in a cell: shapes, derivatives, statistics, edges?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan, Connection
from jaxdarts.networks.initial import one_pool

NAMES = sorted(OPERATIONS)
COMPUTING = [name for name in NAMES if name != "none"]
EDGES, BATCH, CHANNELS = 3, 4, 2
KEY = jax.random.key(7)
QUICKLY = {"xla_backend_optimization_level": 0}


def images(height: int = 5, width: int = 6, channels: int = CHANNELS, batch: int = BATCH) -> jax.Array:
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(channels, height, width, batch)), jnp.float32)


def cell(
    name: str, edges: int = EDGES, stride: int = 1, affine: bool = False, pools: bool = True, channels: int = CHANNELS
) -> Cell:
    """`edges` nodes, each of which is the operation of the first input; the cell's output is all of them."""
    connections = tuple(Connection(node, 0, name) for node in range(edges))
    plan = CellPlan(edges, connections, tuple(range(2, edges + 2)))
    return Cell(plan, channels, stride == 2, False, affine, pools)


def initial(net: Cell, x: jax.Array) -> Any:
    gates = jnp.ones((net.plan.num_nodes, 1), x.dtype)
    variables = jax.jit(lambda x: net.init(KEY, x, x, gates, True, KEY), compiler_options=QUICKLY)(x)
    return {"params": {}, "batch_stats": {}, **variables}


def train(net: Cell, variables: Any, x: jax.Array, key: jax.Array | None = KEY) -> Any:
    """float[edges, C, H', W', B], and the updated statistics."""
    gates = jnp.ones((net.plan.num_nodes, 1), x.dtype)
    run = jax.jit(
        lambda v, x, key: net.apply(v, x, x, gates, True, key, mutable=["batch_stats"]), compiler_options=QUICKLY
    )
    y, updated = run(variables, x, key)
    return y.reshape(net.plan.num_nodes, net.channels, *y.shape[1:]), updated["batch_stats"]


def evaluate(net: Cell, variables: Any, x: jax.Array, key: jax.Array | None = KEY) -> jax.Array:
    gates = jnp.ones((net.plan.num_nodes, 1), x.dtype)
    y = jax.jit(lambda v, x, key: net.apply(v, x, x, gates, False, key), compiler_options=QUICKLY)(variables, x, key)
    return y.reshape(net.plan.num_nodes, net.channels, *y.shape[1:])


def own_rows(tree: Any, rows: slice) -> Any:
    """A tree with the rows of some edges only; the preprocessing belongs to none."""
    return {
        name: leaf if "preprocess" in name else jax.tree.map(lambda a: a[rows], leaf) for name, leaf in tree.items()
    }


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, stride: int) -> None:
    for height, width, channels in [(8, 8, 4), (9, 11, 3), (1, 2, 1), (2, 1, 5), (16, 16, 2)]:
        x, net = images(height, width, channels), cell(name, stride=stride, channels=channels)
        gates = jnp.ones((EDGES, BATCH))
        variables = jax.eval_shape(lambda n=net, x=x, g=gates: n.init(KEY, x, x, g, True, KEY))
        for training in (True, False):
            run = partial(net.apply, mutable=["batch_stats"] if training else False)
            found = jax.eval_shape(lambda v, x, r=run, g=gates, t=training: r(v, x, x, g, t, KEY), variables, x)
            y = found[0] if training else found
            assert y.shape == (EDGES * channels, -(-height // stride), -(-width // stride), BATCH)
            assert y.dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_affine_flag(name: str) -> None:
    def scaled(affine: bool) -> set[str]:
        net = cell(name, stride=2, affine=affine, pools=not affine)
        x, gates = images(), jnp.ones((EDGES, 1))
        params = jax.eval_shape(lambda: net.init(KEY, x, x, gates, True, KEY))["params"]
        return {key for key, leaves in params.items() if "scale" in leaves and key != "preprocess_norm"}

    assert not scaled(False)
    # A batch norm after a pool never is affine.
    layers = OPERATIONS[name](2).layers
    assert scaled(True) == {f"norm_{number}_from_0" for number in range(1, len(layers) + 1)}


@pytest.mark.parametrize("name", COMPUTING)
def test_first_and_second_derivatives_are_finite(name: str) -> None:
    x = images().at[:, 1].set(0.0)  # ReLU at its kink, pools with ties
    net = cell(name, edges=2, stride=2)
    variables = initial(net, x)

    def loss(inputs: Any) -> jax.Array:
        params, x = inputs
        y: Any = net.apply({**variables, "params": params}, x, x, jnp.ones((2, 1)), True, KEY)
        return jnp.sum(jnp.sin(y) + y**2)

    gradient = jax.grad(loss)
    products = jax.jit(lambda p: jax.jvp(gradient, (p,), (jax.tree.map(jnp.ones_like, p),)), compiler_options=QUICKLY)
    first, second = products((variables["params"], x))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((first, second)))
    moved = any(leaf.any() for leaf in jax.tree.leaves(first))
    assert moved == (name != "noise")


@pytest.mark.parametrize("name", COMPUTING)
def test_evaluation_is_deterministic_and_image_by_image(name: str) -> None:
    x, net = images(), cell(name)
    variables = initial(net, x)
    first, again = evaluate(net, variables, x), evaluate(net, variables, x)
    np.testing.assert_array_equal(first, again)
    if name != "noise":
        alone = evaluate(net, variables, x[..., 1:2], key=None)
        np.testing.assert_allclose(alone[..., 0], first[..., 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in COMPUTING if name != "noise"])
def test_edges_together_equal_edges_apart(name: str, stride: int, x64: None) -> None:
    x = images(height=4, width=5).astype(jnp.float64)
    net, single = (cell(name, edges, stride) for edges in (EDGES, 1))
    variables = initial(net, x)
    together, updated = train(net, variables, x)
    for edge in range(EDGES):
        rows = slice(edge, edge + 1)
        own = {kind: own_rows(tree, rows) for kind, tree in variables.items()}
        apart, own_updated = train(single, own, x)
        np.testing.assert_allclose(together[edge], apart[0], rtol=1e-9, atol=1e-11)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), own_rows(updated, rows), own_updated)


@pytest.mark.parametrize("name", [name for name in COMPUTING if name not in ("noise", "conv_7x1_1x7")])
def test_statistics_of_edges_may_differ_in_evaluation(name: str, x64: None) -> None:
    """Edges that share a pool in training have running statistics of their own."""
    x, net, single = images().astype(jnp.float64), cell(name), cell(name, 1)
    variables = initial(net, x)
    variables["batch_stats"] = jax.tree.map(
        lambda leaf: leaf + jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape), variables["batch_stats"]
    )
    together = evaluate(net, variables, x)
    for edge in range(EDGES):
        own = {kind: own_rows(tree, slice(edge, edge + 1)) for kind, tree in variables.items()}
        np.testing.assert_allclose(together[edge], evaluate(single, own, x)[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in COMPUTING if name != "noise"])
def test_normalised_output_has_mean_0_and_variance_1(name: str) -> None:
    x = 3 + 2 * images(8, 8, batch=16)
    net = cell(name, edges=2, stride=2)
    y, _ = train(net, initial(net, x), x)
    np.testing.assert_allclose(np.mean(y, axis=(2, 3, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, axis=(2, 3, 4)), 1, atol=5e-2)  # epsilon


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", COMPUTING)
def test_initial_values_are_pytorchs(name: str, pooled: bool) -> None:
    """Kernels uniform within 1/sqrt(fan in); statistics 0 and 1; the same from one pool of random numbers."""
    channels = 16
    net = cell(name, edges=4, affine=True, pools=False, channels=channels)

    def draw(x: jax.Array) -> Any:
        if not pooled:
            return initial(net, x)
        with one_pool(KEY):
            return initial(net, x)

    variables = draw(images(channels=channels))
    size = {"sep_conv_5x5": 5, "dil_conv_5x5": 5, "sep_conv_7x7": 7, "conv_7x1_1x7": 7}.get(name, 3)
    taps = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(name, size)  # of a dense kernel; a strip is 1x7 or 7x1
    kernels = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        kind = str(path[-1].key)
        if kind in ("scale", "bias"):
            np.testing.assert_array_equal(leaf, float(kind == "scale"))
            continue
        preprocessing = "preprocess" in str(path[0].key)
        fan_in = {
            "depthwise": size**2, "pointwise": channels, "kernel": channels if preprocessing else taps * channels
        }[kind]  # fmt: skip
        assert np.abs(leaf).max() <= fan_in**-0.5
        assert np.abs(leaf).max() > 0.9 * fan_in**-0.5
        assert abs(float(np.mean(leaf))) < 0.2 * fan_in**-0.5
        kernels.append(np.ravel(leaf)[:8] / fan_in**-0.5)
    assert len(np.unique(np.array(kernels))) == 8 * len(kernels)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]):
        np.testing.assert_array_equal(leaf, float("var" in str(path[-1].key)))


def test_identity_is_the_preprocessed_input() -> None:
    x, net = images(), cell("skip_connect", edges=2)
    first, second = evaluate(net, initial(net, x), x)
    np.testing.assert_array_equal(first, second)
    assert not net.apply(initial(net, x), x, x, jnp.zeros((2, 1)), False, None).any()


def test_noise() -> None:
    x, net = images(32, 32), cell("noise", edges=2, stride=2)
    variables = initial(net, x)
    first, _ = train(net, variables, x)
    assert first.shape == (2, CHANNELS, 16, 16, BATCH)
    assert float(first.mean()) == pytest.approx(0, abs=0.1)
    assert float(first.std()) == pytest.approx(1, abs=0.1)
    assert not np.allclose(first[0], first[1])
    other, _ = train(net, variables, x, key=jax.random.key(8))
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(train(net, variables, 0 * x)[0], first)
    with pytest.raises(InputError, match="noise.*needs a random key"):
        train(net, variables, x, key=None)


def test_every_group_of_noise_has_a_key_of_its_own() -> None:
    """Whatever one generator draws for all groups: the numbers are those of the group's key alone."""
    connections = [Connection(node, source, "noise") for node, source in [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]]
    nodes = [connection.node for connection in connections]
    net = Cell(CellPlan(3, tuple(connections), (2, 3, 4)), CHANNELS, True, False, False, True)
    x = images()
    gates = jnp.asarray(10.0 ** np.arange(len(connections)))[:, None]
    variables = net.init(KEY, x, x, gates, True, KEY)
    y = net.apply(variables, x, x, gates, True, KEY, mutable=["batch_stats"])[0]
    shape = (CHANNELS, 3, 3, BATCH)
    expected = np.zeros((3, *shape))
    for members in ((0, 2, 3), (1, 4)):
        drawn = jax.random.normal(jax.random.fold_in(KEY, members[0]), (len(members), *shape))
        for member, values in zip(members, drawn, strict=True):
            expected[nodes[member]] += 10.0**member * values
    np.testing.assert_allclose(y.reshape(3, *shape), expected, rtol=1e-5)
