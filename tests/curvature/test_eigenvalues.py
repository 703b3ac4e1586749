"""Eigenvalues of prescribed spectra, of real alpha-Hessians from searches, and of a network's Hessian."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matfree import decomp, eig

from jaxdarts.curvature import (
    ExtremeEigenvalues,
    dominant_eigenvalue,
    dominant_eigenvalue_of_operator,
    extreme_eigenvalues,
    extreme_eigenvalues_of_operator,
    hessian,
    spectrum,
    top_eigenvalues,
    top_eigenvalues_of_operator,
)
from jaxdarts.errors import InputError

HESSIANS = Path(__file__).parents[1] / "golden" / "robustdarts_hessians.npz"
KEY = 7  # of the start vectors; jax.random.key at import would fix the backend before any test runs

SPECTRA = {
    "spread": np.linspace(-1, 2, 12),
    "clusters": np.repeat([-1.0, 0.5, 2.0], 4) + 1e-5 * np.arange(12),
    "repeated": np.repeat([-3.0, 1.0, 2.0], 4),
    "larger negative": np.r_[np.linspace(-0.1, 0.6, 11), -0.7],
    "all negative": -np.arange(1.0, 13.0),
    "all negative and equal": np.full(12, -0.001),
    "zero": np.zeros(12),
    "size 1": np.array([-2.0]),
    "size 2": np.array([-2.0, -1.0]),
}


def operator(matrix: jax.Array) -> Any:
    return lambda v: jnp.matmul(matrix, v, precision="highest")


@partial(jax.jit, static_argnums=1)
def extremes(matrix: jax.Array, num_matvecs: int, key: int = KEY) -> ExtremeEigenvalues:
    return extreme_eigenvalues_of_operator(operator(matrix), matrix[0], jax.random.key(key), num_matvecs)


def tolerance(dtype: Any) -> float:
    return 20 * float(jnp.finfo(dtype).eps)


def check_ends(matrix: np.ndarray, dtype: Any) -> None:
    true = np.linalg.eigvalsh(matrix)
    # 40 > n: the surplus products must not add values; all ends are exact then
    found = extremes(jnp.asarray(matrix, dtype), 40)
    atol = tolerance(dtype) * np.abs(true).max()
    np.testing.assert_allclose(found.smallest, true[0], atol=atol, rtol=0)
    np.testing.assert_allclose(found.largest, true[-1], atol=atol, rtol=0)
    np.testing.assert_allclose(found.largest_magnitude, true[np.argmax(np.abs(true))], atol=atol, rtol=0)
    assert (found.residual <= atol).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra_float32(symmetric: Any, name: str) -> None:
    check_ends(symmetric(SPECTRA[name]), jnp.float32)


@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra_float64(symmetric: Any, name: str, x64: None) -> None:
    check_ends(symmetric(SPECTRA[name]), jnp.float64)


@pytest.mark.parametrize("name", ["clusters", "repeated", "all negative and equal", "zero"])
def test_few_products_suffice_for_few_distinct_eigenvalues(symmetric: Any, name: str) -> None:
    matrix = symmetric(SPECTRA[name])
    found = extremes(jnp.asarray(matrix, jnp.float32), 6)
    np.testing.assert_allclose(found.largest, np.linalg.eigvalsh(matrix)[-1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.smallest, np.linalg.eigvalsh(matrix)[0], rtol=1e-5, atol=1e-7)


def test_hessians_of_real_searches_in_float32() -> None:
    """alpha-Hessians that RobustDARTS published, + 1e-3 I included; four of the whole set are 1e-3 I alone."""
    with np.load(HESSIANS) as stored:
        hessians = {name: stored[name] for name in stored.files}
    assert len(hessians) == 9
    for name, matrix in hessians.items():
        true = np.linalg.eigvalsh(matrix)
        for key in range(3):
            found = extremes(jnp.asarray(matrix, jnp.float32), 20, key)
            assert float(found.largest) == pytest.approx(true[-1], rel=1e-5), name
            assert float(found.largest_magnitude) == pytest.approx(true[np.argmax(np.abs(true))], rel=1e-5), name
            # The end nearer to zero: as good as its residual says.
            error = np.abs(float(found.smallest) - true).min()
            assert error <= found.residual[0] + 1e-6 * np.abs(true).max(), name


def test_which_and_shift() -> None:
    matrix = jnp.diag(jnp.array([-0.7, -0.1, 0.2, 0.6]))

    @partial(jax.jit, static_argnums=0)
    def value(which: str, shift: float) -> jax.Array:
        key = jax.random.key(KEY)
        return dominant_eigenvalue_of_operator(operator(matrix), jnp.zeros(4), key, 4, which, shift).value

    assert value("LA", 0.0) == pytest.approx(0.6, rel=1e-5)
    assert value("LM", 0.0) == pytest.approx(-0.7, rel=1e-5)
    assert value("LA", 1e-3) == pytest.approx(0.601, rel=1e-5)
    assert value("LM", 0.1) == pytest.approx(0.7, rel=1e-5)  # the shift decides which end is dominant


def test_the_eigenpair_of_a_network(mixed_network: Any, x64: None) -> None:
    f, alpha = mixed_network(dtype=jnp.float64)
    matrix = jax.jit(lambda a: hessian(f, a))(alpha)
    measure = jax.jit(lambda a, key: dominant_eigenvalue(f, a, key, 6))
    found = measure(alpha, jax.random.key(KEY))
    vector = ravel_pytree(found.vector)[0]
    assert jax.tree.structure(found.vector) == jax.tree.structure(alpha)
    assert float(vector @ vector) == pytest.approx(1, rel=1e-13)
    # six products do not converge, so that the residual is more than rounding
    assert float(jnp.linalg.norm(matrix @ vector - found.value * vector)) == pytest.approx(
        float(found.residual), rel=1e-6
    )
    assert found.residual > 1e-9
    again = measure(alpha, jax.random.key(KEY))
    jax.tree.map(np.testing.assert_array_equal, found, again)
    assert measure(alpha, jax.random.key(KEY + 1)).value != found.value


def test_all_questions_agree_on_a_network(mixed_network: Any) -> None:
    f, alpha = mixed_network()
    size = sum(leaf.size for leaf in jax.tree.leaves(alpha))

    @jax.jit
    def ask(alpha: Any, key: jax.Array) -> Any:
        return (
            spectrum(f, alpha, shift=0.5),
            extreme_eigenvalues(f, alpha, key, size, shift=0.5),
            top_eigenvalues(f, alpha, key, 3, size, shift=0.5),
        )

    values, ends, top = ask(alpha, jax.random.key(KEY))
    assert values.shape == (size,)
    np.testing.assert_allclose([ends.smallest, ends.largest], values[jnp.array([0, -1])], rtol=1e-5)
    np.testing.assert_allclose(top.value, values[::-1][:3], rtol=1e-5)
    assert jax.tree.map(jnp.shape, top.vector) == jax.tree.map(lambda leaf: (3, *leaf.shape), alpha)


def test_top_eigenvalues_with_multiplicities_and_by_magnitude(symmetric: Any, x64: None) -> None:
    matrix = jnp.asarray(symmetric([-5.0, -1.0, 0.0, 2.0, 2.0, 3.0, 3.0, 3.0]))
    ask = jax.jit(
        lambda which: top_eigenvalues_of_operator(operator(matrix), matrix[0], jax.random.key(KEY), 5, 8, which),
        static_argnums=0,
    )
    np.testing.assert_allclose(ask("LA").value, [3, 3, 3, 2, 2], rtol=1e-12)
    by_magnitude = ask("LM")
    np.testing.assert_allclose(by_magnitude.value, [-5, 3, 3, 3, 2], rtol=1e-12)
    np.testing.assert_allclose(matrix @ by_magnitude.vector.T, by_magnitude.value * by_magnitude.vector.T, atol=1e-12)
    np.testing.assert_allclose(by_magnitude.vector @ by_magnitude.vector.T, np.eye(5), atol=1e-12)


def test_equals_matfree(symmetric: Any, x64: None) -> None:
    matrix = jnp.asarray(symmetric(np.linspace(-1, 3, 30) ** 3))
    start = jax.random.normal(jax.random.key(KEY), (30,))
    theirs, _ = jax.jit(lambda v: eig.eigh_partial(decomp.tridiag_sym(9))(operator(matrix), v))(start)
    ours = extremes(matrix, 9)
    np.testing.assert_allclose([ours.smallest, ours.largest], theirs[jnp.array([0, -1])], rtol=1e-11)


def test_vmap_over_x_equals_a_loop(mixed_network: Any) -> None:
    f, alpha = mixed_network()
    points = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), alpha)
    keys = jax.random.split(jax.random.key(KEY), 2)
    measure = jax.jit(lambda a, key: extreme_eigenvalues(f, a, key, 8))
    together = jax.jit(jax.vmap(measure))(points, keys)
    for i in range(2):
        alone = measure(jax.tree.map(lambda leaf, i=i: leaf[i], points), keys[i])
        np.testing.assert_allclose(together.largest[i], alone.largest, rtol=1e-5)
        np.testing.assert_allclose(together.smallest[i], alone.smallest, rtol=1e-5)


def test_a_diverged_network_gives_nan_not_a_number() -> None:
    found = extremes(jnp.full((3, 3), jnp.nan), 3)
    assert np.isnan([found.smallest, found.largest, found.largest_magnitude]).all()


def test_bad_input_is_refused_before_tracing() -> None:
    def never(x: Any) -> jax.Array:
        raise AssertionError("traced")

    x, key = jnp.ones(3), jax.random.key(KEY)
    with pytest.raises(InputError, match="unknown which 'SM'; choose from LA, LM"):
        dominant_eigenvalue(never, x, key, which="SM")
    for call in (
        lambda: dominant_eigenvalue(never, x, key, num_matvecs=0),
        lambda: extreme_eigenvalues(never, x, key, num_matvecs=0),
        lambda: top_eigenvalues(never, x, key, 1, num_matvecs=0),
    ):
        with pytest.raises(InputError, match="num_matvecs must be an integer of at least 1, not 0"):
            call()
    with pytest.raises(InputError, match="k must be at most 3"):
        top_eigenvalues(never, x, key, 4)
    with pytest.raises(InputError, match="k must be an integer of at least 1"):
        top_eigenvalues(never, x, key, 0)
    with pytest.raises(InputError, match="x holds no numbers"):
        dominant_eigenvalue(never, {}, key)
    with pytest.raises(InputError, match="x has dtype int32"):
        extreme_eigenvalues(never, jnp.ones(3, jnp.int32), key)
