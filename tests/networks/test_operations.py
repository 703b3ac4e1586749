"""Does every operation of the registry keep the contract: shapes, derivatives, statistics, edges computed together?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS
from jaxdarts.networks.layers import relu

NAMES = sorted(OPERATIONS)
COMPUTING = [name for name in NAMES if name != "none"]
EDGES, BATCH, CHANNELS = 3, 2, 2
KEY = jax.random.key(7)


def images(height: int = 5, width: int = 6, channels: int = CHANNELS, batch: int = BATCH) -> jax.Array:
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(1, batch, height, width, channels)), jnp.float32)


def initial(name: str, x: jax.Array, **fields: Any) -> Any:
    return jax.jit(lambda x: OPERATIONS[name](**fields).init(jax.random.key(0), x, relu(x), True, KEY))(x)


def train(name: str, variables: Any, x: jax.Array, key: jax.Array | None = KEY, **fields: Any) -> Any:
    apply = partial(OPERATIONS[name](**fields).apply, mutable=["batch_stats"])
    return jax.jit(lambda v, x, key: apply(v, x, relu(x), True, key))(variables, x, key)


def evaluate(name: str, variables: Any, x: jax.Array, key: jax.Array | None = KEY, **fields: Any) -> Any:
    return jax.jit(lambda v, x, key: OPERATIONS[name](**fields).apply(v, x, relu(x), False, key))(variables, x, key)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, stride: int) -> None:
    for height, width, channels in [(8, 8, 4), (9, 11, 3), (1, 2, 1), (2, 1, 5)]:
        x = images(height, width, channels)
        fields: dict[str, Any] = {"edges": EDGES, "stride": stride, "normalise_pools": True}
        variables = jax.eval_shape(partial(initial, name, **fields), x)
        trained, _ = jax.eval_shape(partial(train, name, **fields), variables, x)
        evaluated = jax.eval_shape(partial(evaluate, name, **fields), variables, x)
        for y in (trained, evaluated):
            if name == "none":
                assert y is None
                continue
            assert y.shape[1:] == (BATCH, -(-height // stride), -(-width // stride), channels)
            assert y.shape[0] in (1, EDGES)
            assert y.dtype == jnp.float32


@pytest.mark.parametrize("name", NAMES)
def test_affine_flag(name: str) -> None:
    def leaves(**fields: Any) -> set[str]:
        tree = jax.eval_shape(partial(initial, name, **fields), images())
        return {str(path[-1].key) for path, _ in jax.tree_util.tree_leaves_with_path(tree.get("params", {}))}

    for normalise_pools in (False, True):
        with_affine = leaves(affine=True, stride=2, normalise_pools=normalise_pools)
        without = leaves(affine=False, stride=2, normalise_pools=normalise_pools)
        assert not without & {"scale", "bias"}
        # The batch norm after a pool never is affine.
        is_affine = name not in ("none", "noise", "max_pool_3x3", "avg_pool_3x3")
        assert with_affine - without == ({"scale", "bias"} if is_affine else set())


@pytest.mark.parametrize("name", COMPUTING)
def test_first_and_second_derivatives_are_finite(name: str) -> None:
    x = images().at[:, :, 1].set(0.0)  # ReLU at its kink, pools with ties
    fields: dict[str, Any] = {"edges": 2, "stride": 2, "affine": True, "normalise_pools": True}
    variables = initial(name, x, **fields)
    params = variables.pop("params", {})

    def loss(inputs: Any) -> jax.Array:
        params, x = inputs
        y = train(name, {"params": params, **variables}, x, **fields)[0]
        return jnp.sum(jnp.sin(y) + y**2)

    gradient = jax.grad(loss)
    products = jax.jit(lambda p: jax.jvp(gradient, (p,), (jax.tree.map(jnp.ones_like, p),)))
    first, second = products((params, x))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((first, second)))
    moved = any(leaf.any() for leaf in jax.tree.leaves(first))
    assert moved == (name != "noise")


@pytest.mark.parametrize("name", COMPUTING)
def test_evaluation_is_deterministic_and_image_by_image(name: str) -> None:
    x = images(batch=3)
    fields: dict[str, Any] = {"edges": 2, "stride": 1, "affine": False, "normalise_pools": True}
    variables = initial(name, x, **fields)
    first, again = evaluate(name, variables, x, **fields), evaluate(name, variables, x, **fields)
    np.testing.assert_array_equal(first, again)
    if name != "noise":
        alone = evaluate(name, variables, x[:, 1:2], key=None, **fields)
        np.testing.assert_allclose(alone[:, 0], first[:, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in COMPUTING if name != "noise"])
def test_edges_together_equal_edges_apart(name: str, stride: int, x64: None) -> None:
    x = images(height=4, width=5).astype(jnp.float64)
    fields: dict[str, Any] = {"stride": stride, "affine": True, "normalise_pools": True}
    variables = initial(name, x, edges=EDGES, **fields)
    together, updated = train(name, variables, x, edges=EDGES, **fields)
    for edge in range(EDGES):
        own = jax.tree.map(lambda leaf, edge=edge: leaf[edge : edge + 1], variables)
        apart, own_updated = train(name, own, x, edges=1, **fields)
        np.testing.assert_allclose(together[min(edge, len(together) - 1)], apart[0], rtol=1e-9, atol=1e-11)
        jax.tree.map(
            lambda a, b, edge=edge: np.testing.assert_allclose(a[edge : edge + 1], b, rtol=1e-9), updated, own_updated
        )


@pytest.mark.parametrize("name", COMPUTING)
def test_normalised_output_has_mean_0_and_variance_1(name: str) -> None:
    if name in ("noise", "skip_connect"):
        return
    x = 3 + 2 * images(8, 8)
    fields: dict[str, Any] = {"edges": 2, "stride": 2, "affine": False, "normalise_pools": True}
    y, _ = train(name, initial(name, x, **fields), x, **fields)
    np.testing.assert_allclose(np.mean(y, axis=(1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(y, axis=(1, 2, 3)), 1, atol=2e-2)  # epsilon


@pytest.mark.parametrize("name", COMPUTING)
def test_initial_values_are_pytorchs(name: str) -> None:
    """Kernels uniform within 1/sqrt(fan in); statistics 0 and 1."""
    channels = 16
    variables = initial(name, images(channels=channels), edges=4, stride=1, affine=True, normalise_pools=True)
    size = {"sep_conv_5x5": 5, "dil_conv_5x5": 5, "sep_conv_7x7": 7, "conv_7x1_1x7": 7}.get(name, 3)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get("params", {})):
        kind = str(path[-1].key)
        if kind in ("scale", "bias"):
            np.testing.assert_array_equal(leaf, float(kind == "scale"))
            continue
        fan_in = {"depthwise": size**2, "pointwise": channels, "kernel": size * channels}[kind]
        assert np.abs(leaf).max() <= fan_in**-0.5
        assert np.abs(leaf).max() > 0.9 * fan_in**-0.5
        assert abs(float(np.mean(leaf))) < 0.2 * fan_in**-0.5
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {})):
        np.testing.assert_array_equal(leaf, float("var" in str(path[-1].key)))


def test_identity_is_the_input() -> None:
    x = images()
    np.testing.assert_array_equal(evaluate("skip_connect", {}, x, edges=2), x)


def test_noise() -> None:
    x = images(32, 32)
    first, _ = train("noise", {}, x, edges=2, stride=2)
    assert first.shape == (2, BATCH, 16, 16, CHANNELS)
    assert float(first.mean()) == pytest.approx(0, abs=0.1)
    assert float(first.std()) == pytest.approx(1, abs=0.1)
    assert not np.allclose(first[0], first[1])
    other, _ = train("noise", {}, x, key=jax.random.key(8), edges=2, stride=2)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(train("noise", {}, 0 * x, edges=2, stride=2)[0], first)
    with pytest.raises(InputError, match="noise.*needs a random key"):
        train("noise", {}, x, key=None)
