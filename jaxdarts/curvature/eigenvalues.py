"""What are the eigenvalues of a Hessian: the dominant one, both ends, the first k, or all?

Each question has two forms: of the Hessian of `f` at `x`, and `..._of_operator` for any symmetric linear function.
All are deterministic given the key, and work under jit and vmap. Outside jit every call traces `f` anew, so wrap what
is repeated: `jax.jit(lambda params, alpha, key: extreme_eigenvalues(lambda a: loss(params, a), alpha, key))`.

The start vector is random, so it has some part in every eigenvector, and the extreme eigenvalues converge first, at a
rate set by their gap to the next. 20 products give the largest eigenvalue of the alpha-Hessians of real searches (56
and 84 numbers) to 1e-6 in float32. The end nearer to zero converges more slowly: there look at the residual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdarts.curvature.hvp import ScalarFunction, hessian, hvp_function
from jaxdarts.curvature.lanczos import LanczosResult, lanczos, ritz_pairs
from jaxdarts.curvature.pytrees import MatVec, PyTree, Unravel, check_positive, check_vector, flat_vector
from jaxdarts.errors import InputError, unknown_choice

# What "dominant" may mean: the key by which the largest is taken.
ORDERS: dict[str, Callable[[Array], Array]] = {
    "LA": lambda values: values,  # largest algebraic, the choice of RobustDARTS
    "LM": jnp.abs,  # largest magnitude, which for an alpha-Hessian may be negative
}


class EigenResult(NamedTuple):
    """One eigenpair; `top_eigenvalues` puts a leading axis of k on every leaf."""

    value: Array  # scalar, shift included
    vector: PyTree  # like x, Euclidean length 1 over all leaves together; the sign is arbitrary
    residual: Array  # scalar, |A vector - value vector|: an eigenvalue is at most this far from value, up to rounding


class ExtremeEigenvalues(NamedTuple):
    """Both ends of a spectrum, shift included."""

    smallest: Array  # scalar, algebraically
    largest: Array  # scalar, algebraically
    largest_magnitude: Array  # scalar, with its sign: whichever end is further from zero
    residual: Array  # [2] for smallest and largest, as in EigenResult


def dominant_eigenvalue(
    f: ScalarFunction, x: PyTree, key: Array, num_matvecs: int = 20, which: str = "LA", shift: float | Array = 0.0
) -> EigenResult:
    """The dominant eigenpair of the Hessian of `f` at `x`.

    Args:
        f: scalar function of one pytree; in a search `lambda alpha: valid_loss(params, alpha, batch)[0]`.
        x: where; a pytree of floating point arrays, n numbers in all.
        key: for the start vector.
        num_matvecs: Hessian-vector products to spend; no more than n are made.
        which: "LA" largest algebraic, "LM" largest magnitude.
        shift: s in Hessian + s I. RobustDARTS differentiates the loss with its L2 term, s = weight decay of alpha.

    Raises:
        InputError: num_matvecs below 1, unknown `which`, `x` empty or not floating point.

    Cost: one gradient, and num_matvecs products of about one gradient each.
    Differs from RobustDARTS: Lanczos on exact products, not `eigvals` of a dense Hessian.
    """
    _check(x, num_matvecs, which)
    return dominant_eigenvalue_of_operator(hvp_function(f, x), x, key, num_matvecs, which, shift)


def dominant_eigenvalue_of_operator(
    matvec: MatVec, like: PyTree, key: Array, num_matvecs: int = 20, which: str = "LA", shift: float | Array = 0.0
) -> EigenResult:
    """As `dominant_eigenvalue`, for a symmetric linear function of pytrees like `like`."""
    first = top_eigenvalues_of_operator(matvec, like, key, 1, num_matvecs, which, shift)
    return jax.tree.map(lambda leaf: leaf[0], first)


def extreme_eigenvalues(
    f: ScalarFunction, x: PyTree, key: Array, num_matvecs: int = 20, shift: float | Array = 0.0
) -> ExtremeEigenvalues:
    """Smallest, largest and largest-magnitude eigenvalue of the Hessian of `f` at `x`, from one Lanczos run.

    Arguments, errors and cost as for `dominant_eigenvalue`.
    """
    _check(x, num_matvecs)
    return extreme_eigenvalues_of_operator(hvp_function(f, x), x, key, num_matvecs, shift)


def extreme_eigenvalues_of_operator(
    matvec: MatVec,
    like: PyTree,
    key: Array,
    num_matvecs: int = 20,
    shift: float | Array = 0.0,
    host_loop: bool = False,
) -> ExtremeEigenvalues:
    """As `extreme_eigenvalues`, for a symmetric linear function of pytrees like `like`; `host_loop` as in `lanczos`."""
    _check(like, num_matvecs)
    result, _ = _random_lanczos(matvec, like, key, num_matvecs, host_loop)
    values, coefficients = ritz_pairs(result)
    ends = jnp.array([0, -1])
    smallest, largest = values[ends] + shift
    residual = result.remainder * jnp.abs(coefficients[-1, ends])
    magnitude = jnp.where(jnp.abs(smallest) > jnp.abs(largest), smallest, largest)
    return ExtremeEigenvalues(smallest, largest, magnitude, residual)


def top_eigenvalues(
    f: ScalarFunction,
    x: PyTree,
    key: Array,
    k: int,
    num_matvecs: int = 20,
    which: str = "LA",
    shift: float | Array = 0.0,
) -> EigenResult:
    """The first `k` eigenpairs of the Hessian of `f` at `x`, in descending order of `which`; every leaf [k, ...].

    A repeated eigenvalue is counted once as long as the Krylov space lasts: with num_matvecs below n, take the list as
    distinct eigenvalues; with num_matvecs >= n it is the spectrum with multiplicities. Later ones converge later: look
    at `residual`, and spend about 2 k products or more.

    Arguments, errors and cost as for `dominant_eigenvalue`; InputError also for k above min(num_matvecs, n).
    """
    _check(x, num_matvecs, which, k)
    return top_eigenvalues_of_operator(hvp_function(f, x), x, key, k, num_matvecs, which, shift)


def top_eigenvalues_of_operator(
    matvec: MatVec,
    like: PyTree,
    key: Array,
    k: int,
    num_matvecs: int = 20,
    which: str = "LA",
    shift: float | Array = 0.0,
    host_loop: bool = False,
) -> EigenResult:
    """As `top_eigenvalues`, for a symmetric linear function of pytrees like `like`; `host_loop` as in `lanczos`."""
    _check(like, num_matvecs, which, k)
    result, unravel = _random_lanczos(matvec, like, key, num_matvecs, host_loop)
    values, coefficients = ritz_pairs(result)
    values = values + shift
    chosen = jnp.argsort(ORDERS[which](values), descending=True)[:k]
    flat = jnp.matmul(coefficients[:, chosen].T, result.basis, precision=jax.lax.Precision.HIGHEST)
    residual = result.remainder * jnp.abs(coefficients[-1, chosen])
    return EigenResult(values[chosen], jax.vmap(unravel)(flat), residual)


def spectrum(f: ScalarFunction, x: PyTree, shift: float | Array = 0.0, batch_size: int | None = 8) -> Array:
    """All n eigenvalues of the Hessian of `f` at `x`, ascending, by a dense eigendecomposition.

    Arguments as for `hessian`; `shift` as for `dominant_eigenvalue`. Cost: that of `hessian`, and O(n^3). For n up to a
    few thousand; beyond, see `spectral_density`.
    """
    return jnp.linalg.eigvalsh(hessian(f, x, batch_size)) + shift


def _check(x: PyTree, num_matvecs: int, which: str = "LA", k: int = 1) -> None:
    """Raises InputError; before the function is traced, which takes long for a supernet."""
    check_vector("x", x)
    check_positive("num_matvecs", num_matvecs)
    check_positive("k", k)
    if which not in ORDERS:
        raise unknown_choice("which", which, ORDERS)
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(x))
    if k > min(num_matvecs, size):
        limits = f"{size} numbers and num_matvecs={num_matvecs}"
        raise InputError(f"k must be at most {min(num_matvecs, size)} with {limits}, not {k}")


def _random_lanczos(
    matvec: MatVec, like: PyTree, key: Array, num_matvecs: int, host_loop: bool = False
) -> tuple[LanczosResult, Unravel]:
    flat, unravel = flat_vector("x", like)
    # In the dtype of the leaves; the length doesn't matter.
    start = unravel(jax.random.normal(key, flat.shape, flat.dtype))
    return lanczos(matvec, start, num_matvecs, host_loop), unravel
