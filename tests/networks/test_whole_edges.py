"""Does what acts on whole edges of the supernet do what the papers' codes compute, and leave others' programs alone?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.errors import InputError
from jaxdarts.interop import from_torch, network_of
from jaxdarts.networks import Supernet, Weights, layers, softmax_weights
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan, Connection
from jaxdarts.spaces import DARTS, S3, SearchSpace
from tests.networks import golden

QUICKLY = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)
RAGGED = SearchSpace(
    "ragged",
    1,
    (("skip_connect",), ("none", "max_pool_3x3", "avg_pool_3x3")),
    (("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)),
    (2,),
)


def uniform(space: SearchSpace, seed: int = 0) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {cell: jnp.asarray(random.random(space.alpha_shape(cell)), jnp.float32) for cell in space.cell_types}


def test_weights_of_edges() -> None:
    """They multiply all operations of an edge; left out, the program is the same as before they existed."""
    network, x = Supernet(RAGGED, 3, 2, 3), jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    operations = uniform(RAGGED)
    edges = {cell: jnp.asarray([0.25, 3.0]) for cell in RAGGED.cell_types}
    variables = jax.jit(network.init)(KEY, x, operations)

    def scores(variables: Any, weights: Any) -> Any:
        return network.apply(variables, x, weights, train=True, mutable=["batch_stats"])[0]

    programs = [str(jax.make_jaxpr(scores)(variables, weights)) for weights in (operations, Weights(operations))]
    assert programs[0] == programs[1]
    found, expected, plain = (
        jax.jit(scores)(variables, weights)
        for weights in (
            Weights(operations, edges),
            {cell: operations[cell] * jnp.asarray([[0.25], [3.0]]) for cell in operations},
            operations,
        )
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - plain).max() > 1e-2


def network_and_loss(name: str, space: SearchSpace) -> Any:
    """A golden file's arrays, its network, and (alpha, beta or None, coefficient or None) -> (loss, scores)."""
    arrays, _ = golden.read(name)
    variables = from_torch(space, golden.group(arrays, "params"))
    network = network_of(space, golden.group(arrays, "params"))
    x, labels = golden.images(arrays["valid_x"]), jnp.asarray(arrays["valid_y"])

    def loss(alpha: Any, beta: Any, coefficient: Any) -> Any:
        weights = Weights(softmax_weights(space, alpha), None if beta is None else edge_weights(space, beta))
        scores, _ = network.apply(
            variables, x, weights, train=True, auxiliary_skip=coefficient, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean(), scores

    return arrays, network, jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICKLY)


def edge_weights(space: SearchSpace, beta: Any) -> Any:
    """PC-DARTS: softmax over the edges that lead to a node."""
    rows = [space.incoming(node) for node in range(space.num_nodes)]
    return {cell: jnp.concatenate([jax.nn.softmax(values[row]) for row in rows]) for cell, values in beta.items()}


def assert_close(found: Any, expected: Any) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), found, expected)


@pytest.mark.usefixtures("x64")
def test_auxiliary_skips_are_those_of_darts_minus() -> None:
    """Chu et al.'s own network: scores and alpha's gradient at three coefficients, one program for all."""
    arrays, network, gradient = network_and_loss("darts_minus", S3)
    assert network.auxiliary_skip
    alpha = golden.group(arrays, "alpha")
    for coefficient, where in ((float(arrays["skip_beta"]), ""), (0.3, "second/"), (0.0, "zero/")):
        (found, _), scores = gradient(alpha, None, coefficient)
        assert_close(scores, arrays[f"{where}valid_logits"])
        if f"{where}first_order/normal" in arrays:
            assert_close(found, golden.group(arrays, f"{where}first_order"))
    assert gradient._cache_size() == 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("stride", "cell", "number"), [(1, "normal", "0._ops.1"), (2, "reduce", "1._ops.0")])
def test_an_edge_of_darts_minus(stride: int, cell: str, number: str) -> None:
    arrays, _ = golden.read("darts_minus")
    names = [f"cells.{number}._ops.{column}" for column in range(3)] + [f"cells.{number}.auxiliary_op"]
    operations = (*S3.operations(cell)[0], "skip_connect")
    plan = CellPlan(1, tuple(Connection(0, 0, name) for name in operations), (1,), num_inputs=1)
    row = {"normal": 1, "reduce": 0}[cell]
    gates = [*jax.nn.softmax(arrays[f"alpha/{cell}"][row]), arrays["skip_beta"]]
    mixed = golden.group(arrays, f"mixed/stride{stride}")
    found = golden.edge(plan, names, golden.group(arrays, "params"), mixed["x"], stride, gates)
    assert_close(found, mixed["output"])


def test_auxiliary_skips_are_off_unless_asked_for() -> None:
    """No parameters without them; only a network that has them takes a coefficient."""
    x, weights = jnp.zeros((2, 8, 8, 3)), uniform(RAGGED)
    plain, with_skips = Supernet(RAGGED, 3, 2, 3), Supernet(RAGGED, 3, 2, 3, auxiliary_skip=True)
    shapes = [jax.eval_shape(network.init, KEY, x, weights) for network in (plain, with_skips)]
    kernels = [
        sum(leaf.shape[0] for path, leaf in jax.tree.leaves_with_path(one["params"]) if "skip_connect" in str(path))
        for one in shapes
    ]
    assert kernels == [2 * 2, 2 * 6]  # two reduction cells: a candidate, and that with two more, of two kernels each
    with pytest.raises(InputError, match="auxiliary_skip: the network has no auxiliary skip connections; got 0.5"):
        jax.eval_shape(partial(plain.apply, auxiliary_skip=0.5), shapes[0], x, weights)
    with pytest.raises(InputError, match="auxiliary_skip: the network has auxiliary skip connections; got None"):
        jax.eval_shape(with_skips.apply, shapes[1], x, weights)


@pytest.mark.usefixtures("x64")
def test_partial_channels_and_edge_weights_are_those_of_pc_darts() -> None:
    """Xu et al.'s own network: scores, and the gradients in alpha and beta."""
    arrays, network, gradient = network_and_loss("pc_darts", DARTS)
    assert network.partial_channels == 4
    alpha, beta = golden.group(arrays, "alpha"), golden.group(arrays, "beta")
    assert_close(edge_weights(DARTS, beta), golden.group(arrays, "edge_weights"))
    found, scores = gradient(alpha, beta, None)
    assert_close(scores, arrays["valid_logits"])
    assert_close(found, (golden.group(arrays, "first_order"), golden.group(arrays, "first_order_beta")))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("stride", "cell", "number"), [(1, "normal", "0._ops.1"), (2, "reduce", "1._ops.0")])
def test_an_edge_of_pc_darts(stride: int, cell: str, number: str) -> None:
    arrays, _ = golden.read("pc_darts")
    operations = DARTS.operations(cell)[0]
    names = [f"cells.{number}._ops.{column}" for column in range(len(operations))]
    plan = CellPlan(1, tuple(Connection(0, 0, name) for name in operations), (1,), 1, parts=4, passes=((0, 0),))
    gates = [*arrays[f"weights/{cell}"][{"normal": 1, "reduce": 0}[cell]], 1.0]
    mixed = golden.group(arrays, f"mixed/stride{stride}")
    found = golden.edge(plan, names, golden.group(arrays, "params"), mixed["x"], stride, gates)
    assert_close(found, mixed["output"])


@pytest.mark.parametrize("groups", [2, 4])
def test_channel_shuffle(groups: int) -> None:
    shuffle = golden.group(golden.read("pc_darts")[0], "shuffle")
    found = layers.shuffle_channels(shuffle["input"].swapaxes(0, 1), groups).swapaxes(0, 1)
    np.testing.assert_array_equal(found, shuffle[f"output_{groups}"])


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2), (1, 1, 1, 1)])
def test_max_pool_2x2(shape: tuple[int, ...]) -> None:
    """By its definition; of equal values the first gets the derivative."""
    x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)
    expected, slopes = np.zeros((shape[0], -(-shape[1] // 2), -(-shape[2] // 2), shape[3])), np.zeros(shape)
    for c, i, j, b in np.ndindex(expected.shape):
        square = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, b]
        expected[c, i, j, b] = square.max()
        row, column = np.unravel_index(square.argmax(), square.shape)
        slopes[c, 2 * i + row, 2 * j + column, b] = 1
    np.testing.assert_array_equal(layers.max_pool_2x2(x), expected)
    np.testing.assert_array_equal(jax.grad(lambda x: layers.max_pool_2x2(x).sum())(x), slopes)


def test_everything_on_whole_edges_together() -> None:
    """Odd sizes, drop path of whole edges, every other part; and a fraction that divides nothing is refused."""
    x, weights = jnp.ones((2, 9, 7, 3)), uniform(RAGGED)
    both = Weights(weights, {cell: jnp.ones(2) for cell in RAGGED.cell_types})
    network = Supernet(RAGGED, 3, 4, 3, remat=1, auxiliary_skip=True, partial_channels=2)
    variables = jax.eval_shape(network.init, KEY, x, weights)
    apply = partial(network.apply, train=True, auxiliary_skip=0.5, drop_path=0.2, key=KEY, mutable=["batch_stats"])
    assert jax.eval_shape(apply, variables, x, both)[0].shape == (2, 3)
    for wrong in (3, 0, 8):
        with pytest.raises(InputError, match=f"partial_channels must divide the channels, 4; got {wrong}"):
            jax.eval_shape(Supernet(RAGGED, 3, 4, 3, partial_channels=wrong).init, KEY, x, weights)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("parts", [1, 2])
def test_constants_are_added_to_an_edges_whole_result(parts: int, batch: int) -> None:
    """Everywhere, to every channel, whatever else there is on the edge; a gate an image where drop path makes them."""
    edges = ((0, 0), (1, 0), (1, 1))
    connections = tuple(Connection(node, source, "skip_connect") for node, source in edges)
    plans = [CellPlan(2, connections, (1, 2), 1, parts, edges[: 3 * (parts > 1)], added) for added in ((), edges)]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 6, 3)), jnp.float32)
    gates = jnp.ones((3 * min(parts, 2), 1))
    numbers = jnp.arange(1.0, 1 + 3 * batch).reshape(3, batch)
    gates_with = jnp.concatenate([jnp.broadcast_to(gates, (len(gates), batch)), numbers])
    plain, found = (
        Cell(plan, 4, False, previous_reduction=False, affine=False, normalise_pools=False).apply(
            {}, x, x, g, True, None
        )
        for plan, g in zip(plans, (gates, gates_with), strict=True)
    )
    first, second = numbers[0], numbers[0] + numbers[1] + numbers[2]  # node 1 also reads node 0
    expected = np.repeat([first, second], 4, axis=0)[:, None, None]
    np.testing.assert_allclose(found - plain, np.broadcast_to(expected, found.shape), rtol=1e-5)


def test_constants_of_the_supernet() -> None:
    """At 0 they change no score; weights of edges multiply them."""
    network, x = Supernet(RAGGED, 3, 2, 3), jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    operations = uniform(RAGGED)
    variables = jax.jit(network.init)(KEY, x, operations)

    @jax.jit
    def scores(constants: Any, edges: Any) -> Any:
        weights = Weights(operations, {cell: edges for cell in RAGGED.cell_types}, constants)
        return network.apply(variables, x, weights, train=True, mutable=["batch_stats"])[0]

    zero = {cell: jnp.zeros(2) for cell in RAGGED.cell_types}
    ones = jnp.ones(2)
    plain = network.apply(variables, x, operations, train=True, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(scores(zero, ones), plain, rtol=1e-4, atol=1e-6)
    moved = {"normal": jnp.asarray([0.5, 0.0]), "reduce": jnp.zeros(2)}
    other = {"normal": jnp.asarray([0.0, 0.5]), "reduce": jnp.zeros(2)}  # one node: its edges' constants do the same
    assert np.abs(scores(moved, ones) - plain).max() > 1e-3
    np.testing.assert_allclose(scores(moved, ones), scores(other, ones), rtol=1e-4, atol=1e-6)
    half = {"normal": jnp.asarray([2.0, 0.0]), "reduce": jnp.zeros(2)}
    quarter = jnp.asarray([0.25, 1.0])
    np.testing.assert_allclose(scores(half, quarter), scores(other, quarter), rtol=1e-4, atol=1e-6)
