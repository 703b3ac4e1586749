"""The density is one, has the operator's moments, and lies where the eigenvalues are."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.curvature import SpectralDensity, hvp_function, spectral_density
from jaxdarts.errors import InputError


@partial(jax.jit, static_argnums=(2, 3))
def measure(matrix: jax.Array, key: jax.Array, num_matvecs: int, num_probes: int, sigma: Any = None) -> SpectralDensity:
    matvec = lambda v: jnp.matmul(matrix, v, precision="highest")  # noqa: E731
    return spectral_density(matvec, matrix.shape[0], key, num_matvecs, num_probes, sigma=sigma, batch_size=3)


def spacing(result: SpectralDensity) -> float:
    return float(result.grid[-1] - result.grid[0]) / (result.grid.size - 1)


def total(result: SpectralDensity) -> float:
    return moment(result, 0)


def moment(result: SpectralDensity, power: int) -> float:
    return float((result.density * result.grid**power).sum()) * spacing(result)


def test_integral_and_moments(symmetric: Any, x64: None) -> None:
    """With +1/-1 probes a diagonal matrix has exact moments: v^T D^p v = tr D^p for every probe."""
    eigenvalues = np.linspace(-1, 3, 40) ** 3 / 9
    result = measure(jnp.diag(jnp.asarray(eigenvalues)), jax.random.key(0), 8, 4)
    assert total(result) == pytest.approx(1, abs=2e-6)
    assert (result.density >= 0).all()
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, rtol=1e-12)
    for power in range(16):  # 2 * 8 - 1 is the quadrature's degree
        quadrature = (result.weights * result.nodes**power).sum(axis=1)
        np.testing.assert_allclose(quadrature, np.mean(eigenvalues**power), rtol=1e-10)
    sigma = 0.01 * float(result.nodes.max() - result.nodes.min())
    assert moment(result, 1) == pytest.approx(eigenvalues.mean(), abs=1e-5)
    assert moment(result, 2) == pytest.approx((eigenvalues**2).mean() + sigma**2, rel=1e-4)


def test_a_rotated_matrix_in_float32(symmetric: Any) -> None:
    eigenvalues = np.r_[np.full(90, 0.1), np.full(10, 2.0)]
    result = measure(jnp.asarray(symmetric(eigenvalues), jnp.float32), jax.random.key(1), 10, 32)
    assert total(result) == pytest.approx(1, abs=1e-4)
    upper = float(result.density[result.grid > 1].sum()) * spacing(result)
    assert upper == pytest.approx(0.1, abs=0.02)
    assert float(result.density[(result.grid > 0.5) & (result.grid < 1.5)].sum()) * spacing(result) < 1e-3


@pytest.mark.parametrize("value", [0.0, -0.001, 5.0])
def test_multiples_of_the_identity(value: float) -> None:
    result = measure(value * jnp.eye(12), jax.random.key(2), 20, 3)
    assert total(result) == pytest.approx(1, abs=1e-4)
    assert moment(result, 1) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("sigma", [1e-6, 0.3])
def test_any_sigma_keeps_the_total(sigma: float) -> None:
    result = measure(jnp.diag(jnp.linspace(0.0, 1.0, 12)), jax.random.key(3), 12, 3, sigma)
    assert total(result) == pytest.approx(1, abs=1e-4)


def test_pytrees_and_determinism(mixed_network: Any) -> None:
    f, alpha = mixed_network()
    ask = jax.jit(lambda a, key: spectral_density(hvp_function(f, a), a, key, 6, 2, grid_points=64))
    first, second = ask(alpha, jax.random.key(0)), ask(alpha, jax.random.key(0))
    assert first.grid.shape == first.density.shape == (64,)
    assert first.nodes.shape == first.weights.shape == (2, 6)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert (first.nodes != ask(alpha, jax.random.key(1)).nodes).any()


def test_of_a_function_it_is_that_of_its_hessian() -> None:
    """As `dominant_eigenvalue` is called; sum of scale x^3 has the Hessian 6 scale x."""
    scale, x, key = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.5, 1.0, 2.0]), jax.random.key(0)
    found = spectral_density(lambda x: jnp.sum(scale * x**3), x, key, 3, 2)
    np.testing.assert_allclose(found.nodes, [[-12, 3, 36]] * 2, rtol=1e-5)
    operator = spectral_density(lambda v: 6 * scale * x * v, x, key, 3, 2)
    np.testing.assert_allclose(operator.nodes, found.nodes, rtol=1e-5)


@pytest.mark.parametrize(
    ("f", "x", "message"),
    [
        (lambda x: (jnp.sum(x), None), jnp.ones(3), r"f must return one scalar .* returns shapes \(\(\), None\)"),
        (lambda x: x[:2], jnp.ones(3), r"f must return one scalar .* returns shapes \(2,\), x has \(3,\)"),
        (lambda x: x**2, jnp.ones(()), "x must have an axis"),
    ],
)
def test_neither_a_function_nor_an_operator(f: Any, x: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spectral_density(f, x, jax.random.key(0))


@pytest.mark.parametrize(
    "change",
    [{"num_matvecs": 0}, {"num_probes": 0}, {"grid_points": 1}, {"sigma": 0.0}, {"batch_size": 0}, {"x": 0}],
)
def test_bad_input_is_refused(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"x": 3, "key": jax.random.key(0)}
    with pytest.raises(InputError, match=f"{next(iter(change))}.* must be"):
        spectral_density(lambda v: v, **(arguments | change))
