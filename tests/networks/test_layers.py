"""Do the primitives compute what PyTorch's do, and are their own derivative rules the true ones?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.networks import layers
from jaxdarts.networks.layers import Statistics

SIZES = [(4, 4), (5, 4), (3, 7), (1, 2)]


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def windows(x: np.ndarray, stride: int) -> list[list[np.ndarray]]:
    """The values under a 3x3 window with padding 1, cut at the border, for one map [H, W]."""
    height, width = x.shape
    return [
        [x[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] for j in range(0, width, stride)]
        for i in range(0, height, stride)
    ]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("pool", "of_window"), [(layers.max_pool_3x3, np.max), (layers.avg_pool_3x3, np.mean)])
def test_pools(pool: Any, of_window: Any, size: tuple[int, int], stride: int, x64: None) -> None:
    x = np.asarray(normal(0, 3, *size, 2)) - 3  # negative: zero padding would show
    y = pool(jnp.asarray(x), stride)
    for channel in range(3):
        for image in range(2):
            expected = [[of_window(w) for w in row] for row in windows(x[channel, :, :, image], stride)]
            np.testing.assert_allclose(y[channel, :, :, image], expected, rtol=1e-14)


def test_max_pool_gives_a_tie_to_the_first_in_row_major_order() -> None:
    for tied, winner in [([(0, 1), (1, 0)], (0, 1)), ([(1, 0), (1, 2)], (1, 0)), ([(0, 2), (2, 0)], (0, 2))]:
        x = jnp.zeros((3, 3)).at[tuple(zip(*tied, strict=True))].set(1.0)
        gradient = jax.grad(lambda x: layers.max_pool_3x3(x[None, :, :, None], 1)[0, 1, 1, 0])(x)
        np.testing.assert_array_equal(gradient, jnp.zeros((3, 3)).at[winner].set(1.0))


def test_relu_has_no_slope_at_zero() -> None:
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(layers.relu(x), [0, 0, 2])
    np.testing.assert_array_equal(jax.grad(lambda x: layers.relu(x).sum())(x), [0, 0, 1])


def test_pointwise_conv(x64: None) -> None:
    kernel = normal(1, 3, 5, 4)
    for rows in (1, 3):
        x = normal(0, rows, 4, 3, 3, 2)
        y = layers.pointwise_conv(x, kernel)
        assert y.shape == (3, 5, 3, 3, 2)
        for row in range(3):
            expected = np.tensordot(kernel[row], x[min(row, rows - 1)], 1)
            np.testing.assert_allclose(y[row], expected, rtol=1e-12)


def test_conv(x64: None) -> None:
    x, kernel = normal(0, 1, 2, 5, 6, 1), normal(1, 2, 3, 1, 2, 3)
    y = layers.conv(x, kernel, (2, 1))
    assert y.shape == (2, 3, 3, 6, 1)
    padded = np.pad(x[0, :, :, :, 0].transpose(1, 2, 0), ((1, 1), (0, 0), (0, 0)))
    for row in range(2):
        expected = sum(padded[i : i + 5 : 2] @ kernel[row, i, 0] for i in range(3))
        np.testing.assert_allclose(y[row, :, :, :, 0], expected.transpose(2, 0, 1), rtol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation"),
    [
        ((5, 6), (3, 3), 1, 1),
        ((5, 6), (3, 3), 2, 1),
        ((6, 5), (5, 5), 2, 2),
        ((1, 2), (3, 3), 2, 2),
        ((4, 4), (1, 7), 1, 1),
    ],
)
def test_dense_conv_to_second_order(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, dilation: int, x64: None
) -> None:
    padding = tuple(dilation * (length // 2) for length in kernel)

    def plain(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            weights,
            (stride, stride),
            [(p, p) for p in padding],
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    agree_to_second_order(
        lambda x, weights: layers.dense_conv(x, weights, (stride, stride), padding, dilation),
        plain,
        (normal(0, 2, *size, 3), normal(1, *kernel, 3, 2)),
    )


@pytest.mark.parametrize("size", SIZES)
def test_factorized_halves(size: tuple[int, int]) -> None:
    x = normal(0, 1, 3, *size, 2)
    even, odd = layers.factorized_halves(x)
    half = (-(-size[0] // 2), -(-size[1] // 2))
    assert even.shape == odd.shape == (1, 3, *half, 2)
    np.testing.assert_array_equal(even, x[:, :, ::2, ::2])
    np.testing.assert_array_equal(odd[:, :, : size[0] // 2, : size[1] // 2], x[:, :, 1::2, 1::2])
    assert not odd[:, :, size[0] // 2 :].any() and not odd[:, :, :, size[1] // 2 :].any()


def plain_standardise(x: jax.Array) -> jax.Array:
    mean = x.mean(axis=(2, 3, 4), keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=(2, 3, 4), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def plain_mix(gates: jax.Array, outputs: jax.Array) -> jax.Array:
    return jnp.stack([sum(g * y for g, y in zip(row, outputs, strict=True)) for row in gates])


def agree_to_second_order(ours: Callable[..., Any], plain: Callable[..., Any], arguments: Any) -> None:
    """Value, gradient, forward over reverse and reverse over reverse of a nonlinear function of the result."""

    def measures(function: Callable[..., Any]) -> Any:
        def objective(arguments: Any) -> jax.Array:
            y = function(*arguments)
            return jnp.sum(jnp.sin(1.7 * y) * jnp.cos(jnp.arange(y.size)).reshape(y.shape))

        gradient = jax.grad(objective)
        along = jax.tree.map(jnp.cos, arguments)

        def slope(arguments: Any) -> jax.Array:
            return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient(arguments), along)), jnp.zeros(()))

        return (
            objective(arguments),
            gradient(arguments),
            jax.jvp(gradient, (arguments,), (along,))[1],
            jax.grad(slope)(arguments),
        )

    quickly = partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
    found, expected = quickly(measures)(ours), quickly(measures)(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found[2], found[3])


def test_standardise_to_second_order(x64: None) -> None:
    agree_to_second_order(lambda x: layers.standardise(x)[0], plain_standardise, (3 + normal(0, 2, 3, 2, 2, 4),))


@pytest.mark.parametrize("gate_batch", [1, 3])
def test_mix_to_second_order(gate_batch: int, x64: None) -> None:
    agree_to_second_order(layers.mix, plain_mix, (normal(9, 2, 4, gate_batch), normal(0, 4, 2, 2, 2, 3)))


def test_batch_statistics_are_products_at_the_highest_precision() -> None:
    """Else an accelerator may round images to ten bits in the mean, and more in the variance."""
    slope = jax.grad(lambda x: (layers.standardise(x)[0] ** 2).sum())
    program = str(jax.make_jaxpr(slope)(jnp.ones((2, 3, 2, 2, 4))))
    assert program.count("dot_general[") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 4


def test_standardise_statistics() -> None:
    x = 5 + 2 * normal(0, 2, 3, 4, 4, 8)
    y, statistics = layers.standardise(x)
    np.testing.assert_allclose(statistics.mean, np.mean(x, axis=(2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, np.var(x, axis=(2, 3, 4)), rtol=1e-4)
    np.testing.assert_allclose(layers.batch_norm(x, statistics), y, atol=1e-5)


def test_constant_input_is_no_trouble() -> None:
    x = jnp.full((1, 1, 2, 2, 2), 4.0)
    y, statistics = layers.standardise(x)
    np.testing.assert_allclose(y, 0, atol=1e-3)
    assert np.isfinite(jax.grad(lambda x: layers.standardise(x)[0].sum())(x)).all()
    assert statistics.variance == pytest.approx(0, abs=1e-9)


def test_running_statistics_are_pytorchs(x64: None) -> None:
    x = np.asarray(normal(0, 1, 3, 2, 2, 2))
    running = Statistics(jnp.full((1, 3), 2.0), jnp.full((1, 3), 5.0))
    _, batch = layers.standardise(jnp.asarray(x))
    mean, variance = layers.update_running_statistics(running, batch, count=8)
    np.testing.assert_allclose(mean[0], 0.9 * 2 + 0.1 * x.mean(axis=(0, 2, 3, 4)))
    np.testing.assert_allclose(variance[0], 0.9 * 5 + 0.1 * x.var(axis=(0, 2, 3, 4), ddof=1))


def test_running_variance_of_one_value_is_finite() -> None:
    _, batch = layers.standardise(jnp.ones((1, 2, 1, 1, 1)))
    running = layers.update_running_statistics(Statistics(jnp.zeros((1, 2)), jnp.ones((1, 2))), batch, count=1)
    assert np.isfinite(running.variance).all()


@pytest.mark.parametrize("rows", [[0], [2, 3, 4], [1, 1, 1], [0, 1, 2, 2, 2, 3, 3], [3, 1, 1, 0, 4], [4, 4, 2, 3]])
def test_rows_are_taken_in_their_order(rows: list[int]) -> None:
    x = jnp.arange(30.0).reshape(5, 3, 2)
    np.testing.assert_array_equal(layers.take_rows(x, rows), np.asarray(x)[rows])
