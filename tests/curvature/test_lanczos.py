"""The projection is exact, orthogonal, without spurious values when the Krylov space ends early; matfree agrees."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matfree import decomp

from jaxdarts.curvature import LanczosResult, lanczos, ritz_pairs
from jaxdarts.errors import InputError

SPECTRA = {
    "spread": np.linspace(-1, 2, 12),
    "clusters": np.repeat([-1.0, 0.5, 2.0], 4) + 1e-5 * np.arange(12),
    "repeated": np.repeat([-3.0, 1.0, 2.0], 4),
    "all negative": -np.arange(1.0, 13.0),
    "one negative value": np.full(12, -0.5),
    "identity": np.ones(12),
    "zero": np.zeros(12),
    "rank one": np.r_[np.zeros(11), 4.0],
    "size 1": np.array([-2.0]),
    "size 2": np.array([-2.0, -1.0]),
    "wide": np.logspace(-6, 0, 12),
    "tiny": 1e-30 * np.arange(1.0, 13.0),
    "huge": 1e30 * np.arange(1.0, 13.0),
}


@partial(jax.jit, static_argnums=2)
def compiled(matrix: jax.Array, start: jax.Array, num_matvecs: int) -> LanczosResult:
    return lanczos(lambda v: jnp.matmul(matrix, v, precision="highest"), start, num_matvecs)


def decompose(matrix: np.ndarray, num_matvecs: int, dtype: Any, start: Any = None) -> LanczosResult:
    if start is None:
        start = np.random.default_rng(3).normal(size=len(matrix))
    return compiled(jnp.asarray(matrix, dtype), jnp.asarray(start, dtype), num_matvecs)


def check(result: LanczosResult, matrix: np.ndarray, eps: float) -> None:
    """Q Q^T = I, Q A Q^T = T, and the Ritz values lie within the spectrum."""
    scale = np.abs(np.linalg.eigvalsh(matrix)).max()
    basis = np.asarray(result.basis, np.float64)
    diagonal, off_diagonal = (np.asarray(part, np.float64) for part in (result.diagonal, result.off_diagonal))
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=20 * eps)
    tridiagonal = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    np.testing.assert_allclose(basis @ matrix @ basis.T, tridiagonal, atol=50 * eps * scale)
    ritz = np.linalg.eigvalsh(tridiagonal)
    true = np.linalg.eigvalsh(matrix)
    assert ritz[-1] <= true[-1] + 50 * eps * scale
    assert ritz[0] >= true[0] - 50 * eps * scale


@pytest.mark.parametrize("num_matvecs", [1, 5, 12, 40])
@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra_float32(symmetric: Any, name: str, num_matvecs: int) -> None:
    matrix = symmetric(SPECTRA[name])
    result = decompose(matrix, num_matvecs, jnp.float32)
    assert result.diagonal.shape == (min(num_matvecs, len(matrix)),)
    assert result.diagonal.dtype == jnp.float32
    check(result, matrix, float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("name", SPECTRA)
def test_prescribed_spectra_float64(symmetric: Any, name: str, x64: None) -> None:
    matrix = symmetric(SPECTRA[name])
    for num_matvecs in (4, 12):
        result = decompose(matrix, num_matvecs, jnp.float64)
        check(result, matrix, float(np.finfo(np.float64).eps))
        if num_matvecs == 12:
            scale = max(np.abs(SPECTRA[name]).max(), np.finfo(float).tiny)
            np.testing.assert_allclose(ritz_pairs(result)[0] / scale, np.sort(SPECTRA[name]) / scale, atol=1e-14)


def test_an_invariant_space_is_left_for_a_new_block(symmetric: Any, x64: None) -> None:
    result = decompose(symmetric(SPECTRA["repeated"]), 12, jnp.float64)
    assert result.off_diagonal[2] == 0  # three distinct eigenvalues
    assert np.count_nonzero(result.off_diagonal < 1e-12) >= 3


def test_a_start_in_an_invariant_space_still_finds_the_rest(x64: None) -> None:
    matrix = np.diag([-5.0, -4.0, -3.0, -2.0, -1.0])
    result = decompose(matrix, 5, jnp.float64, start=np.eye(5)[0])
    np.testing.assert_allclose(ritz_pairs(result)[0], np.diag(matrix), atol=1e-13)


def test_a_zero_start_is_replaced() -> None:
    result = decompose(np.diag([-3.0, -1.0]), 2, jnp.float32, start=np.zeros(2))
    np.testing.assert_allclose(ritz_pairs(result)[0], [-3, -1], rtol=1e-6)


def test_equals_matfree(symmetric: Any, x64: None) -> None:
    matrix = jnp.asarray(symmetric(np.linspace(-1, 3, 30) ** 3))
    v0 = jnp.asarray(np.random.default_rng(0).normal(size=30))
    ours = compiled(matrix, v0, 10)
    basis, tridiagonal, *_ = jax.jit(decomp.tridiag_sym(10), static_argnums=0)(lambda v: matrix @ v, v0)
    np.testing.assert_allclose(ours.diagonal, jnp.diag(tridiagonal), atol=1e-11)
    np.testing.assert_allclose(ours.off_diagonal, jnp.diag(tridiagonal, 1), atol=1e-11)
    np.testing.assert_allclose(ours.basis, basis if basis.shape == (10, 30) else basis.T, atol=1e-11)


def test_the_remainder_closes_the_recursion(symmetric: Any, x64: None) -> None:
    matrix = symmetric(np.linspace(-1, 1, 20))
    result = decompose(matrix, 6, jnp.float64)
    basis = np.asarray(result.basis)
    last = basis @ matrix @ basis[-1]
    assert np.linalg.norm(matrix @ basis[-1] - basis.T @ last) == pytest.approx(float(result.remainder), rel=1e-12)


def test_pytree_start_and_noisy_products(symmetric: Any) -> None:
    """Rounding noise in the products of a multiple of the identity is not a direction of its own."""
    scale = jnp.float32(1e-3)
    noise = jnp.asarray(np.random.default_rng(9).normal(size=(84, 84)) * 1e-9, jnp.float32)

    def matvec(tree: Any) -> Any:
        flat = jnp.concatenate([tree["normal"].ravel(), tree["reduce"]])
        image = scale * flat + (noise + noise.T) @ flat
        return {"normal": image[:42].reshape(6, 7), "reduce": image[42:]}

    start = {"normal": jnp.ones((6, 7)), "reduce": jnp.arange(42.0)}
    result = jax.jit(lambda v0: lanczos(matvec, v0, 20))(start)
    np.testing.assert_allclose(ritz_pairs(result)[0], 1e-3, rtol=1e-4)
    np.testing.assert_allclose(result.basis @ result.basis.T, np.eye(20), atol=3e-6)


def test_vmap_over_operators_of_different_kinds(symmetric: Any) -> None:
    names = ("spread", "zero", "identity", "all negative", "repeated")
    matrices = np.stack([symmetric(SPECTRA[name]) for name in names])
    start = jnp.asarray(np.random.default_rng(3).normal(size=12), jnp.float32)
    together = jax.jit(jax.vmap(lambda a: compiled(a, start, 6)))(jnp.asarray(matrices, jnp.float32))
    for i, matrix in enumerate(matrices):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], together), matrix, float(np.finfo(np.float32).eps))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_products_are_not_hidden(bad: float) -> None:
    result = decompose(np.diag([1.0, bad, 1.0]), 3, jnp.float32)
    assert not np.isfinite(ritz_pairs(result)[0]).any()


@pytest.mark.parametrize("num_matvecs", [0, -2, 1.0, True])
def test_num_matvecs_is_checked(num_matvecs: Any) -> None:
    with pytest.raises(InputError, match="num_matvecs must be an integer of at least 1"):
        lanczos(lambda v: v, jnp.ones(3), num_matvecs)


def test_the_start_is_checked() -> None:
    with pytest.raises(InputError, match="v0 holds no numbers"):
        lanczos(lambda v: v, [], 3)
    with pytest.raises(InputError, match="v0 has dtype int32"):
        lanczos(lambda v: v, jnp.ones(3, jnp.int32), 3)


def test_products_are_at_the_highest_precision() -> None:
    """Else an accelerator may round the vectors to ten bits, and orthogonality with them."""
    program = str(jax.make_jaxpr(lambda v: lanczos(lambda x: 2 * x, v, 3))(jnp.ones(4)))
    assert program.count("dot_general[") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") > 0
