"""What is the projection of a symmetric operator onto a Krylov space?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxdarts.curvature.pytrees import MatVec, PyTree, check_positive, flat_matvec, flat_vector

# An off-diagonal coefficient this many roundings of the operator's size is an invariant subspace.
BREAKDOWN_ROUNDINGS = 10

_Carry = tuple[Array, Array, Array, Array, Array]


class LanczosResult(NamedTuple):
    """A = operator, Q = basis, T = the tridiagonal matrix: Q A Q^T = T, Q Q^T = I. With k = min(num_matvecs, n)."""

    diagonal: Array  # [k] of T
    off_diagonal: Array  # [k - 1] of T, not negative; 0 where an invariant subspace was complete and a new one begun
    basis: Array  # [k, n], one Lanczos vector a row, flat in the order of ravel_pytree(v0)
    remainder: Array  # scalar, the off-diagonal coefficient that would come next; 0 if the space is invariant


def lanczos(matvec: MatVec, v0: PyTree, num_matvecs: int, host_loop: bool = False) -> LanczosResult:
    """Lanczos' tridiagonalisation with full reorthogonalisation.

    Args:
        matvec: a symmetric linear function from pytrees like `v0` to pytrees like `v0`.
        v0: start, any length but zero (zero is replaced by a fixed pseudo-random vector); n numbers in all.
        num_matvecs: how many products to spend. In n dimensions n suffice, and no more than n are made.
        host_loop: call `matvec` from Python, one product after the other, instead of compiling a loop around it. For
            a `matvec` that is jitted already and is not to be compiled again as a part of that loop.

    Raises:
        InputError: num_matvecs below 1, `v0` empty or not floating point.

    When the Krylov space of the start becomes invariant early (a multiple of the identity after one product, in
    general after as many as there are distinct eigenvalues), the iteration starts again from a pseudo-random vector
    orthogonal to everything before. T then consists of separate blocks, and every eigenvalue of T still is a Ritz
    value of the operator: nothing is filled up with zeros, which would win over eigenvalues that are all negative.

    A non-finite product makes the result non-finite. Works under jit and vmap; not meant to be differentiated.

    Cost: min(num_matvecs, n) = k products, 6 k^2 n further multiplications, k n numbers of memory.
    Stability: three Gram-Schmidt passes per vector ("twice is enough", Parlett 1998, section 6.9, and once more for
    vectors begun anew), so orthogonality holds to rounding. Half precision `v0` is computed in float32.
    """
    num_matvecs = check_positive("num_matvecs", num_matvecs)
    start, unravel = flat_vector("v0", v0)
    product = flat_matvec(matvec, start, unravel)
    size, dtype = start.size, start.dtype
    steps = min(num_matvecs, size)

    def body(step: Array | int, carry: _Carry) -> _Carry:
        return _advance(step, carry, product(carry[3]))

    basis = jnp.zeros((steps, size), dtype)
    coefficients = jnp.zeros((steps,), dtype)
    first = _unit_orthogonal(start, basis, jnp.zeros((), jnp.int32), _norm(start) == 0)
    carry = (basis, coefficients, coefficients, first, jnp.zeros((), dtype))
    if host_loop:
        for step in range(steps):
            carry = body(step, carry)
    else:
        carry = jax.lax.fori_loop(0, steps, body, carry)
    basis, diagonal, off_diagonal, _, _ = carry
    return LanczosResult(diagonal, off_diagonal[:-1], basis, off_diagonal[-1])


@jax.jit
def _advance(step: Array | int, carry: _Carry, image: Array) -> _Carry:
    """One step, given the operator's product with the newest vector."""
    basis, diagonal, off_diagonal, vector, scale = carry
    basis = basis.at[step].set(vector)
    scale = jnp.maximum(scale, _norm(image))  # a lower bound of the operator's norm
    diagonal = diagonal.at[step].set(_dot(vector, image))
    # The rows of the basis that are not yet known are zero and take no part.
    residual = _orthogonal(image, basis)
    beta = _norm(residual)
    tolerance = BREAKDOWN_ROUNDINGS * float(jnp.finfo(image.dtype).eps)
    broken = beta <= tolerance * scale  # not `~(beta > …)`: nan must go on, not be mended
    off_diagonal = off_diagonal.at[step].set(jnp.where(broken, jnp.zeros_like(beta), beta))
    return basis, diagonal, off_diagonal, _unit_orthogonal(residual, basis, jnp.asarray(step) + 1, broken), scale


@jax.jit
def _unit_orthogonal(vector: Array, basis: Array, step: Array, broken: Array) -> Array:
    def fresh() -> Array:
        key = jax.random.fold_in(jax.random.key(0), step)
        return _unit(jax.random.normal(key, vector.shape, vector.dtype))

    candidate = jax.lax.cond(broken, fresh, lambda: _unit(vector))
    return _unit(_orthogonal(_orthogonal(candidate, basis), basis))


def ritz_pairs(result: LanczosResult) -> tuple[Array, Array]:
    """Eigenvalues of the tridiagonal matrix, ascending [k], and its unit eigenvectors, one a column [k, k].

    Ritz vector i is `coefficients[:, i] @ basis`; its residual |A y - theta y| is `remainder * |coefficients[-1, i]|`
    in exact arithmetic (Parlett 1998, section 13.2).
    """
    matrix = jnp.diag(result.diagonal) + jnp.diag(result.off_diagonal, 1) + jnp.diag(result.off_diagonal, -1)
    values, coefficients = jnp.linalg.eigh(matrix)
    return values, coefficients


def _orthogonal(vector: Array, basis: Array) -> Array:
    # HIGHEST: the default of some accelerators rounds the factors to ten bits, and orthogonality with them.
    return vector - _dot(_dot(basis, vector), basis)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def _norm(vector: Array) -> Array:
    """The Euclidean norm, without under- or overflow of the squares."""
    largest = jnp.max(jnp.abs(vector))
    safe = jnp.where(largest == 0, 1, largest)
    return largest * jnp.linalg.norm(vector / safe)


def _unit(vector: Array) -> Array:
    """The vector at length one; zero stays zero."""
    largest = jnp.max(jnp.abs(vector))
    scaled = vector / jnp.where(largest == 0, 1, largest)
    length = jnp.linalg.norm(scaled)
    return scaled / jnp.where(length == 0, 1, length)
