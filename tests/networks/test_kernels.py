"""Do the kernels give what the plain functions give, twice differentiated, and are they used where they should be?"""

from __future__ import annotations

import os
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

built = pytest.mark.skipif(kernels.described() == "none", reason="no kernels were built here")
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
        return kernels.mix(gates, arrays), ()

    def plain(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        return layers.mix(gates, jnp.concatenate(arrays)), ()

    agree(ours, plain, (gates, tuple(arrays)), 1e-12)


@built
def test_gates_stand_where_they_are_placed(x64: None) -> None:
    """A gate in two places, two that stand nowhere, a row that nobody takes, and a node that takes nothing."""
    gates, *arrays = normal((6, 1), (2, 3, 5, 4, 33), (3, 3, 5, 4, 33))
    places = np.array([[0, -1, -1, 4, -1], [-1, -1, 1, 4, -1], [-1, -1, -1, -1, -1], [3, -1, -1, -1, 0]])

    def ours(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        return kernels.mix(gates, arrays, places), ()

    def plain(gates: jax.Array, arrays: Any) -> tuple[jax.Array, Any]:
        matrix = jnp.where(places < 0, 0.0, gates[places, 0])
        return layers.mix(matrix[:, :, None], jnp.concatenate(arrays)), ()

    agree(ours, plain, (gates, tuple(arrays)), 1e-12)


# layers, input rows, channels, features, height, width, batch
POINTWISE = [(1, 1, 6, 4, 8, 8, 16), (3, 1, 4, 4, 7, 5, 33), (2, 2, 3, 7, 3, 4, 1)]


@built
@pytest.mark.parametrize("grid", [None, 0, 1])
@pytest.mark.parametrize("case", POINTWISE)
def test_pointwise_convolutions(case: tuple[int, ...], grid: int | None, x64: None) -> None:
    """Also of the even and the odd sub-grid, of odd sizes with the zeros that are missing."""
    rows, inputs, channels, features, *others = case

    def ours(x: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        return kernels.pointwise_norm(x, pointwise, grid)

    def plain(x: jax.Array, pointwise: jax.Array) -> tuple[jax.Array, Statistics]:
        x = layers.relu(x)
        read = x if grid is None else layers.factorized_halves(x)[grid]
        return standardise(layers.pointwise_conv(read, pointwise))

    agree(ours, plain, normal((inputs, channels, *others), (rows, features, channels)), 1e-12)


def gated_pair(names: tuple[str, ...]) -> tuple[Layer, Layer]:
    def ours(products: jax.Array, states: jax.Array, shares: jax.Array) -> tuple[jax.Array, Any]:
        return kernels.gated_activations(products, states, shares, names), ()

    def plain(products: jax.Array, states: jax.Array, shares: jax.Array) -> tuple[jax.Array, Any]:
        rows, hidden = len(shares), states.shape[1]
        gate, candidate = jnp.split(products.reshape(rows, -1, 2 * hidden), 2, axis=-1)
        own, c = states.reshape(rows, -1, hidden), jax.nn.sigmoid(gate)
        terms = [own + c * (ACTIVATIONS[name](candidate) - own) for name in names]
        return sum(jnp.einsum("r,rbh->bh", shares[:, n], term) for n, term in enumerate(terms)), ()

    return ours, plain


def gated_arguments(rows: int, examples: int, hidden: int, count: int, dtype: Any = np.float64) -> Any:
    products, states, shares = normal(
        (rows * examples, 2 * hidden), (rows * examples, hidden), (rows, count), dtype=dtype
    )
    return 3 * products, states, shares


# states, examples, hidden units
GATED = [(1, 1, 1), (8, 32, 64), (3, 33, 19), (2, 700, 17)]


@built
@pytest.mark.parametrize("names", [tuple(ACTIVATIONS), ("identity", "relu"), ("sigmoid",)])
@pytest.mark.parametrize("case", GATED)
def test_gated_activations(case: tuple[int, ...], names: tuple[str, ...], x64: None) -> None:
    agree(*gated_pair(names), gated_arguments(*case, len(names)), 1e-12)


@built
def test_exponentials_in_single_precision() -> None:
    """To a few last digits of the value itself, near zero and where they are nearly constant too."""
    x = np.concatenate([np.linspace(-100, 100, 4001), np.geomspace(1e-30, 1, 100), -np.geomspace(1e-30, 1, 100)])
    row = jnp.asarray(x, np.float32)[None]
    exact = np.asarray(row[0], np.float64)
    for name, expected in (("sigmoid", 1 / (1 + np.exp(-exact))), ("tanh", np.tanh(exact)), ("identity", exact)):
        # The gate is open: 1 / (1 + exp(-100)).
        products = jnp.concatenate([jnp.full_like(row, 100), row], axis=1)
        found = kernels.gated_activations(products, jnp.zeros_like(row), jnp.ones((1, 1)), (name,))
        seen = np.abs(exact) < 87 if name == "sigmoid" else slice(None)  # exp(-87) is the smallest
        np.testing.assert_allclose(found[0][seen], expected[seen], rtol=6e-7)
    nothing = jnp.full((1, 2), jnp.nan)
    for name in ACTIVATIONS:
        assert jnp.isnan(kernels.gated_activations(nothing, nothing[:, :1], jnp.ones((1, 1)), (name,))).all()


@built
def test_rows_of_more_than_one_part(x64: None) -> None:
    """Threads take parts of a row of 8192 entries, whose sums are added up after."""
    gates, x = normal((2, 3, 1), (3, 2, 9, 17, 65))
    by_kernel, by_sum = (
        jax.grad(lambda g, f=f: (jnp.sin(f(g))).sum())(gates)
        for f in (lambda g: kernels.mix(g, (x,)), lambda g: layers.mix(g, x))
    )
    np.testing.assert_allclose(by_kernel, by_sum, rtol=1e-11)


@built
def test_float32() -> None:
    for case in SEPARABLE[:3]:
        agree(*separable_pair(*case[-2:]), separable_arguments(case, np.float32), 2e-5)
    (x,) = normal((1, *POOLED[0]), dtype=np.float32)
    agree(*pool_pair(2, True), (x,), 2e-5)
    agree(*gated_pair(tuple(ACTIVATIONS)), gated_arguments(3, 33, 19, 4, np.float32), 2e-5)


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
    monkeypatch.setattr(build, "BUILT", tmp_path)
    monkeypatch.delenv(library.VARIABLE, raising=False)
    library.runnable.cache_clear()
    try:
        assert library.runnable() == () and kernels.described() == "none" and not kernels.usable(jnp.float32)
        for level in build.levels_of(os.uname().machine):
            build.library(level).write_bytes(b"no library")  # as if it were built for another system
        library.runnable.cache_clear()
        assert library._loaded.__wrapped__(library.runnable()) is None
    finally:
        library.runnable.cache_clear()


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
        "found = t.found_by(t.separable_pair(1, 1)[0], t.separable_arguments((1, 1, 9, 6, 7, 8, 33, 3, 1, 1), 'f4'))\n"
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
