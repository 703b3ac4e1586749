"""Do the kernels give what the plain functions give, twice differentiated, and are they used where they should be?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import Supernet, kernels, layers, softmax_weights
from jaxdarts.networks.kernels import build, library
from jaxdarts.networks.layers import Statistics, standardise
from jaxdarts.networks.operations import OPERATIONS
from jaxdarts.networks.recurrent import ACTIVATIONS
from jaxdarts.networks.separable import Kernels, separable_convs
from jaxdarts.spaces import SearchSpace

built = pytest.mark.skipif(kernels.described() == "none", reason=f"kernels none: {kernels.why_none()}")
Layer = Callable[..., tuple[jax.Array, Statistics]]

# layers, input rows, channels, features, height, width, batch, kernel size, stride, dilation
SEPARABLE = [
    (3, 1, 4, 4, 8, 8, 16, 3, 1, 1),
    (3, 3, 4, 4, 8, 8, 16, 3, 1, 1),
    (2, 1, 5, 6, 7, 5, 33, 5, 1, 2),
    (2, 2, 3, 7, 7, 6, 1, 3, 2, 2),
    (4, 1, 4, 4, 9, 8, 5, 5, 2, 1),
    (1, 1, 8, 8, 4, 4, 64, 7, 1, 1),
    (2, 2, 4, 4, 6, 6, 7, 7, 2, 1),
    (2, 1, 4, 4, 3, 3, 33, 5, 2, 2),
]
# layers, input rows, channels, features, height, width, batch, stride, shift
POINTWISE = [
    (1, 1, 6, 4, 5, 4, 33, 1, 0),
    (2, 2, 3, 7, 4, 4, 1, 1, 0),
    (3, 1, 4, 2, 7, 5, 16, 2, 0),
    (1, 1, 9, 4, 7, 5, 33, 2, 1),
    (2, 2, 4, 4, 6, 8, 16, 2, 1),
    (2, 1, 2, 3, 3, 2, 1, 2, 1),
]
# channels, height, width, batch
POOLED = [(3, 8, 8, 16), (2, 7, 5, 33), (1, 4, 6, 1), (2, 3, 1, 5), (1, 2, 2, 70)]


def normal(*shapes: tuple[int, ...], dtype: Any = np.float64) -> tuple[jax.Array, ...]:
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)


def found_by(layer: Layer, arguments: tuple[Any, ...]) -> Any:
    """Values, the gradient of a function of y, and its derivative forward over reverse."""

    def objective(*arguments: Any) -> jax.Array:
        y = layer(*arguments)[0]
        return (jnp.sin(y) * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()

    every = tuple(range(len(arguments)))
    along = jax.tree.map(lambda x: jnp.cos(3 * x), arguments)
    product = jax.jvp(lambda *a: jax.grad(objective, every)(*a), arguments, along)
    return layer(*arguments), product


def agree(ours: Layer, plain: Layer, arguments: tuple[Any, ...], tolerance: float) -> None:
    found, expected = (
        jax.jit(found_by, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})(layer, arguments)
        for layer in (ours, plain)
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * (float(jnp.abs(other).max()) + 1e-3))


def separable_pair(stride: int, dilation: int) -> tuple[Layer, Layer]:
    def ours(x: jax.Array, depthwise: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        return kernels.separable_norm(x, depthwise, pointwise, stride, dilation)

    def plain(x: jax.Array, depthwise: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        return standardise(separable_convs(layers.relu(x), [Kernels(depthwise, pointwise, dilation)], stride))

    return ours, plain


def pool_pair(stride: int, largest: bool) -> tuple[Layer, Layer]:
    def ours(x: jax.Array) -> tuple[jax.Array, Statistics]:
        return kernels.pool_norm(x, stride, largest)

    def plain(x: jax.Array) -> tuple[jax.Array, Statistics]:
        pool = layers.max_pool_3x3 if largest else layers.avg_pool_3x3
        return standardise(pool(x[0], stride)[None])

    return ours, plain


def separable_arguments(case: tuple[int, ...], dtype: Any = np.float64) -> tuple[jax.Array, ...]:
    rows, inputs, channels, features, height, width, batch, size, _, _ = case
    shapes = (inputs, channels, height, width, batch), (rows, channels, size, size), (rows, features, channels)
    return normal(*shapes, dtype=dtype)


@built
@pytest.mark.parametrize("case", SEPARABLE)
def test_separable_convolutions(case: tuple[int, ...], x64: None) -> None:
    agree(*separable_pair(*case[-2:]), separable_arguments(case), 1e-12)


def pointwise_pair(stride: int, shift: int) -> tuple[Layer, Layer]:
    def ours(x: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        return kernels.pointwise_norm(x, pointwise, stride, shift)

    def plain(x: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        read = layers.factorized_halves(x)[shift] if stride == 2 else x
        return standardise(layers.pointwise_conv(layers.relu(read), pointwise))

    return ours, plain


def pointwise_arguments(case: tuple[int, ...], dtype: Any = np.float64) -> tuple[jax.Array, ...]:
    rows, inputs, channels, features, height, width, batch, _, _ = case
    return normal((inputs, channels, height, width, batch), (rows, features, channels), dtype=dtype)


@built
@pytest.mark.parametrize("case", POINTWISE)
def test_pointwise_convolutions(case: tuple[int, ...], x64: None) -> None:
    agree(*pointwise_pair(*case[-2:]), pointwise_arguments(case), 1e-12)


@built
@pytest.mark.parametrize("wanted", range(3))
def test_derivatives_that_nothing_needs_are_not_computed(wanted: int, x64: None) -> None:
    """Each derivative alone is what it is beside the others, to the last bit, and the kernel makes nothing else."""
    ours, _ = separable_pair(1, 1)
    arguments = separable_arguments(SEPARABLE[0])

    def product(*arguments: Any) -> Any:
        gradient = jax.grad(lambda *a: jnp.sin(ours(*a)[0]).sum(), (0, 1, 2))
        return jax.jvp(gradient, arguments, jax.tree.map(jnp.cos, arguments))

    def one(*arguments: Any) -> Any:
        return product(*arguments)[1][wanted]

    together = jax.jit(product)(*arguments)[1][wanted]
    for function, given in ((one, arguments), (jax.vmap(one), tuple(x[None] for x in arguments))):
        lowered = jax.jit(function).lower(*given)
        assert re.findall(r"SeparableBackward.*wanted = (\d+)", lowered.as_text()) == [str(1 << wanted)]
        np.testing.assert_array_equal(lowered.compile()(*given).reshape(together.shape), together)


@built
def test_gated_sums_without_derivatives_of_gates(x64: None) -> None:
    gates, x = normal((2, 3, 1), (3, 2, 4, 3, 5))
    alone = jax.jit(jax.grad(lambda x: jnp.sin(jnp.stack(kernels.mix(gates, (x,)))).sum()))
    assert "wanted = 2 " in alone.lower(x).as_text()
    np.testing.assert_array_equal(
        alone(x), jax.grad(lambda g, x: jnp.sin(jnp.stack(kernels.mix(g, (x,)))).sum(), 1)(gates, x)
    )


@built
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("shape", POOLED)
def test_pools_with_ties(shape: tuple[int, ...], largest: bool, stride: int, x64: None) -> None:
    (x,) = normal((1, *shape))
    agree(*pool_pair(stride, largest), (jnp.round(x, 1),), 1e-12)


@built
@pytest.mark.parametrize(("nodes", "rows"), [(4, (4, 1, 3)), (1, (1,)), (5, (2, 7))])
def test_gated_sums(nodes: int, rows: tuple[int, ...], x64: None) -> None:
    gates, *arrays = normal((nodes, sum(rows), 1), *((count, 3, 5, 4, 33) for count in rows))

    def ours(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        return jnp.stack(kernels.mix(gates, arrays)), ()

    def plain(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        return layers.mix(gates, jnp.concatenate(arrays)), ()

    agree(ours, plain, (gates, tuple(arrays)), 1e-12)


@built
def test_gates_stand_where_they_are_placed(x64: None) -> None:
    """A gate in two places, two that stand nowhere, a row that nobody takes, and a node that takes nothing."""
    gates, *arrays = normal((6, 1), (2, 3, 5, 4, 33), (3, 3, 5, 4, 33))
    places = np.array([[0, -1, -1, 4, -1], [-1, -1, 1, 4, -1], [-1, -1, -1, -1, -1], [3, -1, -1, -1, 0]])

    def ours(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        return jnp.stack(kernels.mix(gates, arrays, places)), ()

    def plain(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        matrix = jnp.where(places < 0, 0.0, gates[places, 0])
        return layers.mix(matrix[:, :, None], jnp.concatenate(arrays)), ()

    agree(ours, plain, (gates, tuple(arrays)), 1e-12)


def text_pair(names: tuple[str, ...], length: int, own: bool) -> tuple[Layer, Layer]:
    """A relaxed recurrent cell over a text; of its outputs those count that are before `length`."""

    def ours(*arguments: jax.Array) -> tuple[jax.Array, Any]:
        *moved, keep, moments = arguments
        given = {"keep": keep, "length": jnp.int32(length), "moments": None if own else jnp.exp(moments)}
        found = kernels.read_relaxed(*moved, names, **given)
        assert (len(found.outputs), len(found.variances)) == (len(moved[0]),) * 2
        return found.outputs[:length], (found.means[:length], found.variances[:length])

    def plain(*arguments: jax.Array) -> tuple[jax.Array, Any]:
        inputs, hidden, weights, shares, keep, moments = arguments
        keep, moments = jax.lax.stop_gradient((keep, jnp.exp(moments)))
        outputs, means, variances = [], [], []

        def node(states: jax.Array, n: int, shares: jax.Array, names: tuple[str, ...], x: Any = 0) -> jax.Array:
            gate, candidate = jnp.split((states * keep) @ weights[n] + x, 2, axis=-1)
            moved = (states + jax.nn.sigmoid(gate) * (ACTIVATIONS[name](candidate) - states) for name in names)
            total = sum(jnp.einsum("s,sbh->bh", shares[:, f], values) for f, values in enumerate(moved))
            mean, variance = (total.mean(0), total.var(0)) if own else moments
            means.append(mean), variances.append(variance)
            return (total - mean) * jax.lax.rsqrt(variance + 1e-5)

        for x in inputs[:length]:
            states = node(hidden[None], 0, jnp.ones((1, 1)), ("tanh",), x)[None]
            for n in range(1, len(weights)):
                first = n * (n - 1) // 2
                states = jnp.concatenate([states, node(states, n, shares[first : first + n], names)[None]])
            hidden = states[1:].mean(0)
            outputs.append(hidden)
        shape = (length, len(weights), hidden.shape[1])
        moments_seen = tuple(jax.lax.stop_gradient(jnp.stack(seen)).reshape(shape) for seen in (means, variances))
        return jnp.stack(outputs), moments_seen

    return ours, plain


def text_arguments(case: tuple[int, ...], activations: int, dtype: Any = np.float64) -> tuple[jax.Array, ...]:
    steps, examples, hidden, nodes = case
    inputs, state, weights, shares, keep, moments = normal(
        (steps, examples, 2 * hidden), (examples, hidden), (nodes + 1, hidden, 2 * hidden),
        (nodes * (nodes + 1) // 2, activations), (examples, hidden), (2, hidden), dtype=dtype,
    )  # fmt: skip
    # Of a size at which nothing grows from state to state, or differences do too.
    return inputs, state, weights / hidden**0.5, jax.nn.softmax(shares), 1.0 * (keep > -0.5), moments / 4


# time steps, examples, hidden units, nodes; then those of the time steps that count
TEXTS = [((1, 1, 1, 1), 1), ((2, 33, 19, 2), 2), ((3, 8, 17, 1), 2), ((1, 20, 64, 3), 1)]


@built
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("case", "length"), TEXTS)
def test_recurrent_cells(case: tuple[int, ...], length: int, own: bool, x64: None) -> None:
    agree(*text_pair(tuple(ACTIVATIONS), length, own), text_arguments(case, 4), 1e-12)


@built
@pytest.mark.parametrize("names", [("identity", "relu"), ("sigmoid",)])
def test_recurrent_cells_of_some_activations(names: tuple[str, ...], x64: None) -> None:
    agree(*text_pair(names, 2, True), text_arguments(TEXTS[1][0], len(names)), 1e-12)


@built
def test_derivatives_in_the_kernels_of_a_text_are_computed_where_they_are_wanted(x64: None) -> None:
    read, _ = text_pair(tuple(ACTIVATIONS), 2, True)
    arguments = text_arguments(TEXTS[1][0], 4)
    along = tuple(jnp.cos(x) for x in arguments)

    def gradient(which: tuple[int, ...]) -> Callable[..., Any]:
        return jax.grad(lambda *a: jnp.sin(read(*a)[0]).sum(), which)

    def product(*arguments: jax.Array) -> jax.Array:  # the rows of the shares, as in a step on alpha
        return jax.jvp(lambda *a: gradient((2, 3))(*a)[1], arguments, along)[1]

    expected = jax.jit(gradient((2, 3)))(*arguments)[1], jax.jvp(gradient((2, 3)), arguments, along)[1][1]
    for function, wanted in ((gradient((3,)), expected[0]), (product, expected[1])):
        compiled = jax.jit(function).lower(*arguments).compile()
        calls = re.findall(r"jaxdarts_RecurrentBackward.*", compiled.as_text())
        assert calls and not any(re.search(r"wanted = [23]", call) for call in calls)
        np.testing.assert_allclose(jax.tree.leaves(compiled(*arguments))[0], wanted, rtol=1e-12, atol=1e-13)
    alone = jax.jit(gradient((2,))).lower(*arguments).compile()
    assert re.findall(r"jaxdarts_RecurrentBackward.*wanted = (\d)", alone.as_text()) == ["2"]
    np.testing.assert_array_equal(alone(*arguments)[0], jax.jit(gradient((2, 3)))(*arguments)[0])


@built
def test_exponentials_in_single_precision() -> None:
    """To a few last digits of the value itself, near zero and where they are nearly constant too."""
    x = np.concatenate([np.linspace(-100, 100, 4001), np.geomspace(1e-30, 1, 100), -np.geomspace(1e-30, 1, 100)])
    row = jnp.asarray(x, np.float32)[:, None]  # examples of one unit
    exact = np.asarray(row[:, 0], np.float64)

    def through(name: str, row: jax.Array, gate: float = 100.0) -> jax.Array:
        """An activation of inputs whose gate is open, 1 / (1 + exp(-100)): of tanh the first state, else the second."""
        units = row.shape[1]
        # Moments that change nothing, and products that pass on what they read: the first state is its tanh.
        moments = jnp.stack([jnp.zeros(units), jnp.full(units, 1 - 1e-5)]).astype(np.float32)
        weights = jnp.zeros((2, units, 2 * units), np.float32)
        inputs = jnp.concatenate([jnp.full_like(row, gate), row], axis=1)[None]
        given = {"length": jnp.int32(1), "keep": jnp.ones_like(row), "moments": moments}
        return kernels.read_relaxed(
            inputs, jnp.zeros_like(row), weights, jnp.asarray([[1.0]]), (name,), **given
        ).outputs[0, :, 0]

    # The second state is s + sigmoid(0) (0 - s) where all its products are zero: half of the first.
    np.testing.assert_allclose(2 * through("identity", row), np.tanh(exact), rtol=6e-7)
    # With a candidate whose tanh is 1 the first state is the gate: the logistic function.
    one = jnp.full_like(row, 100)
    for value in (-80.0, -20.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 90.0):
        np.testing.assert_allclose(2 * through("relu", one, value)[0], 1 / (1 + np.exp(-value)), rtol=6e-7)
    assert jnp.isnan(through("sigmoid", jnp.full((1, 1), jnp.nan))).all()


@built
def test_rows_of_more_than_one_part(x64: None) -> None:
    """Threads take parts of a row of 8192 entries, whose sums are added up after."""
    gates, x = normal((2, 3, 1), (3, 2, 9, 17, 65))
    by_kernel, by_sum = (
        jax.grad(lambda g, f=f: (jnp.sin(f(g))).sum())(gates)
        for f in (lambda g: jnp.stack(kernels.mix(g, (x,))), lambda g: layers.mix(g, x))
    )
    np.testing.assert_allclose(by_kernel, by_sum, rtol=1e-11)


@built
def test_float32() -> None:
    for case in SEPARABLE[:3]:
        agree(*separable_pair(*case[-2:]), separable_arguments(case, np.float32), 2e-5)
    for case in POINTWISE[:4]:
        agree(*pointwise_pair(*case[-2:]), pointwise_arguments(case, np.float32), 2e-5)
    (x,) = normal((1, *POOLED[0]), dtype=np.float32)
    agree(*pool_pair(2, True), (x,), 2e-5)
    agree(*text_pair(tuple(ACTIVATIONS), 2, True), text_arguments((2, 33, 19, 2), 4, np.float32), 2e-4)


@built
def test_variance_of_values_far_from_zero() -> None:
    """A large mean takes no digits from the variance."""
    _, depthwise, pointwise = separable_arguments(SEPARABLE[0], np.float32)
    x = 1000 + normal((1, 4, 8, 8, 16), dtype=np.float32)[0]
    centre = jnp.zeros_like(depthwise).at[:, :, 1, 1].set(1)
    one = jnp.broadcast_to(jnp.eye(4, dtype=np.float32), pointwise.shape)
    _, found = kernels.separable_norm(x, centre, one, 1, 1)
    expected = np.asarray(x[0], np.float64).reshape(4, -1)
    np.testing.assert_allclose(found.mean[2], expected.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.variance[2], expected.var(axis=1), rtol=1e-4)


@built
def test_constant_channels_have_finite_derivatives(x64: None) -> None:
    x, depthwise, pointwise = separable_arguments(SEPARABLE[0])
    ours, plain = separable_pair(1, 1)
    agree(ours, plain, (jnp.zeros_like(x), depthwise, pointwise), 1e-12)


@built
def test_members_of_a_population(x64: None) -> None:
    case = SEPARABLE[0]
    ours, _ = separable_pair(1, 1)
    arguments = separable_arguments(case)
    members = jax.tree.map(lambda x: jnp.stack([x, 2 * x, x**2]), arguments)
    together = jax.vmap(lambda *a: found_by(ours, a))(*members)
    for member in range(3):
        alone = found_by(ours, tuple(x[member] for x in members))
        jax.tree.map(lambda a, b, m=member: np.testing.assert_array_equal(a[m], b), together, alone)


@built
def test_linear_in_tangents(x64: None) -> None:
    """`jax.linearize` keeps what does not depend on tangents, as the Neumann series does."""
    case = SEPARABLE[4]
    ours, _ = separable_pair(*case[-2:])
    arguments = separable_arguments(case)
    gradient = jax.grad(lambda *a: jnp.sin(ours(*a)[0]).sum(), (0, 1, 2))
    along = jax.tree.map(jnp.cos, arguments)
    _, product = jax.linearize(gradient, *arguments)
    once, direct = product(*along), jax.jvp(gradient, arguments, along)[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), once, direct)
    twice = product(*jax.tree.map(lambda x: 2 * x, along))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-12), twice, once)


@built
@pytest.mark.parametrize("normal_only", [True, False])
def test_networks_of_all_operations(normal_only: bool, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supernet with every operation has the same scores, statistics, gradients and mixed products without kernels."""
    space = SearchSpace.uniform("all", tuple(sorted(OPERATIONS)), num_nodes=2)
    net = Supernet(space, 3, 2, 1 if normal_only else 3)
    images, labels = normal((5, 9, 8, 3))[0], jnp.arange(5) % 3
    alpha = {cell: normal(space.alpha_shape(cell))[0] for cell in space.cell_types}
    key = jax.random.key(1)
    variables = jax.jit(net.init)(key, images, softmax_weights(space, alpha))
    params = jax.tree.map(lambda w: w.astype(float), variables["params"])

    def loss(params: Any, alpha: Any) -> tuple[jax.Array, Any]:
        scores, state = net.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            softmax_weights(space, alpha),
            train=True,
            key=key,
            mutable=["batch_stats"],
        )
        return -jax.nn.log_softmax(scores)[jnp.arange(5), labels].mean(), (scores, state)

    def everything(params: Any, alpha: Any) -> Any:
        gradient = lambda p: jax.grad(loss, (0, 1), has_aux=True)(p, alpha)  # noqa: E731
        (found, product) = jax.jvp(gradient, (params,), (jax.tree.map(lambda w: jnp.cos(9 * w), params),))
        return found, product[0]

    results, texts = [], []
    for choice in ("on", "off"):
        monkeypatch.setenv(library.VARIABLE, choice)
        lowered = jax.jit(lambda p, a: everything(p, a)).lower(params, alpha)
        texts.append(lowered.as_text())
        results.append(lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(params, alpha))
    assert "jaxdarts_SeparableBackwardTangent" in texts[0] and "jaxdarts_PoolBackward" in texts[0]
    assert "jaxdarts_" not in texts[1]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * (float(jnp.abs(other).max()) + 1e-3))


@built
def test_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(library.VARIABLE, raising=False)
    assert kernels.usable(jnp.float32) and kernels.usable(np.float64, "cpu")
    assert not kernels.usable(jnp.bfloat16) and not kernels.usable(jnp.float32, "cuda")
    with layers.batch_apart():
        assert not kernels.usable(jnp.float32)
    monkeypatch.setenv(library.VARIABLE, "off")
    assert not kernels.usable(jnp.float32) and kernels.described() == "none"
    monkeypatch.setenv(library.VARIABLE, "maybe")
    with pytest.raises(InputError, match=r"^JAXDARTS_KERNELS must be on, off, .*; got 'maybe'$"):
        kernels.usable(jnp.float32)


def test_without_any_library_plain_functions_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And people are told which of the reasons it is: what to do about it differs."""
    monkeypatch.setattr(build, "BUILT", tmp_path)
    monkeypatch.delenv(library.VARIABLE, raising=False)
    for function in ("_found", "_loaded"):  # as in a process of its own
        monkeypatch.setattr(library, function, getattr(library, function).__wrapped__)

    def reason() -> str | None:
        assert kernels.described() == "none" and not kernels.usable(jnp.float32)
        return kernels.why_none()

    monkeypatch.setenv("CXX", "no-such-compiler")
    assert reason() == "not built, there is no C++ compiler 'no-such-compiler'; CXX names another"
    monkeypatch.setenv("CXX", sys.executable)
    assert reason() == f"not built, {library.BUILD} does it"
    levels = build.levels_of(os.uname().machine)
    build.library("another").touch()
    assert reason() == f"built from other sources, {library.BUILD} builds them anew"  # or nobody knows from which
    (tmp_path / "digest").write_text(build.digest())
    assert reason() == f"built for another processor, {library.BUILD} builds them anew"
    for level in levels:
        build.library(level).write_bytes(b"no library")  # as if it were built for another system
    assert library.runnable()[0] == levels[0]
    told = reason()
    assert told is not None and re.fullmatch(rf"could not be loaded \(.*\), {library.BUILD} builds them anew", told)
    (tmp_path / "digest").write_text("of other sources")
    assert reason() == f"built from other sources, {library.BUILD} builds them anew"
    monkeypatch.setenv(library.VARIABLE, levels[0])
    with pytest.raises(InputError, match=r"must be on, off; got '.*' \(built from other sources, .*\)$"):
        kernels.usable(jnp.float32)
    monkeypatch.setenv(library.VARIABLE, "off")
    assert reason() == "JAXDARTS_KERNELS is off"


@built
def test_libraries_are_of_their_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change of any of them is noticed, also that of a header or of how they are compiled."""
    assert build.built_from() == build.digest() and kernels.why_none() is None
    shutil.copytree(build.SOURCE, tmp_path / "source")
    monkeypatch.setattr(build, "SOURCE", tmp_path / "source")
    assert build.digest() == build.built_from()
    (tmp_path / "source" / "rows.h~").touch()  # what an editor left
    assert build.digest() == build.built_from()
    with (tmp_path / "source" / "rows.h").open("a") as file:
        file.write("// other\n")
    assert build.digest() != build.built_from()


def test_building_says_why_it_cannot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "BUILT", tmp_path / "built")
    monkeypatch.setenv("CXX", "no-such-compiler -O0")
    assert build.compile_all() == "there is no C++ compiler 'no-such-compiler'; CXX names another"
    monkeypatch.setenv("CXX", "false")
    assert build.compile_all() == "false failed"
    assert not build.BUILT.exists()


@built
@pytest.mark.parametrize("level", library.runnable()[:-1])
def test_plainer_processors(level: str) -> None:
    """The libraries for narrower vectors, each in a process of its own: this one has the widest."""
    program = (
        "import jax; jax.config.update('jax_enable_x64', True)\n"
        "from tests.networks import test_kernels as t\n"
        f"assert t.kernels.described() == {level!r}\n"
        "for case in t.SEPARABLE[2:5]: t.agree(*t.separable_pair(*case[-2:]), t.separable_arguments(case), 1e-12)\n"
        "t.agree(*t.pool_pair(2, True), t.normal((1, *t.POOLED[1])), 1e-12)\n"
        "t.agree(*t.text_pair(tuple(t.ACTIVATIONS), 2, True), t.text_arguments((2, 13, 19, 2), 4), 1e-12)\n"
    )
    environment = os.environ | {library.VARIABLE: level}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@built
def test_how_many_threads_there_are_changes_no_bit() -> None:
    """With fewer layers than threads a layer's stages are divided, otherwise a layer is one thread's."""
    program = (
        "from tests.networks import test_kernels as t\n"
        "import hashlib, jax, numpy as np\n"
        "assert t.kernels.described() != 'none'\n"
        "case = (1, 1, 9, 6, 7, 8, 33, 3, 1, 1)\n"
        "found = [t.found_by(t.separable_pair(1, 1)[0], t.separable_arguments(case, 'f4'))]\n"
        "found += [t.found_by(t.text_pair(('tanh', 'relu'), 3, True)[0], t.text_arguments((3, 33, 40, 3), 2, 'f4'))]\n"
        "leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]\n"
        "print(hashlib.sha256(b''.join(leaf.tobytes() for leaf in leaves)).hexdigest())\n"
    )
    flags = os.environ.get("XLA_FLAGS", "")
    prints = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"NPROC": threads, "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "5")
    }
    assert len(prints) == 1
