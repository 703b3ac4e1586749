"""What is the Hessian of a scalar function times a vector, or as a dense matrix?

All products are forward-over-reverse: the directional derivative of the gradient (Pearlmutter 1994). They are exact,
and need no finite-difference radius.

A trap with layers that define their own derivative by `jax.custom_vjp`: such a function has no forward rule.
`jax.grad` inside replaces it by its two rules, which are then differentiated forward, but only where the layer depends
on what `jax.grad` differentiates. The products here differentiate twice by the *same* argument, so a layer depends on
it in both derivatives or in neither, and both work. A *mixed* product, d/dw of the gradient in alpha, is different: a
stem that depends on w but not on alpha is met bare by the forward derivative and raises "can't apply forward-mode
autodiff to a custom_vjp function". There, differentiate by both, `jax.grad(loss, (0, 1))(...)[1]`; what isn't used is
dropped by the compiler. For curvature in w and alpha together, pass them as one pytree.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxdarts.curvature.pytrees import (
    MatVec,
    PyTree,
    batched_map,
    check_positive,
    check_vector,
    flat_matvec,
    flat_vector,
)
from jaxdarts.errors import InputError

ScalarFunction = Callable[[PyTree], Array]


def hvp(f: ScalarFunction, x: PyTree, v: PyTree) -> PyTree:
    """Hessian of `f` at `x` times `v`.

    Args:
        f: scalar function of one pytree.
        x: where; a pytree of floating point arrays.
        v: the vector; same structure, shapes and dtypes as `x`.

    Returns:
        A pytree like `x`.

    Raises:
        InputError: `x` is empty or not floating point, `v` does not look like `x`, or `f` does not give a scalar.

    Cost: about two gradients.
    """
    check_vector("x", x)
    _check_like(x, v, batch_axes=0)
    return jax.jvp(_gradient(f), (x,), (v,))[1]


def batched_hvp(f: ScalarFunction, x: PyTree, v: PyTree, batch_size: int | None = None) -> PyTree:
    """Hessian of `f` at `x` times several vectors, stacked along the first axis of every leaf of `v`.

    `batch_size` of them go through the network together (None: all of them). The gradient at `x` is evaluated once, and
    each product then costs about one gradient or less; memory grows with `batch_size`.

    Returns:
        A pytree like `v`. Raises InputError as `hvp`, and for a `batch_size` below 1.
    """
    flat, unravel = flat_vector("x", x)
    _check_like(x, v, batch_axes=1)
    rows = jax.vmap(lambda tree: flat_vector("v", tree)[0])(v)
    matvec = flat_matvec(hvp_function(f, x), flat, unravel)
    return jax.vmap(unravel)(batched_map(matvec, rows, batch_size))


def hvp_function(f: ScalarFunction, x: PyTree, *, linearize: bool = True) -> MatVec:
    """The function v -> Hessian of `f` at `x` times v, for use many times at the same point.

    Args:
        f, x: as for `hvp`.
        linearize: evaluate the gradient at `x` once and keep what its derivative needs, so that each product costs
            about one gradient instead of two; memory as for a backward pass through the gradient. False: anew for each.

    Returns:
        A linear function from pytrees like `x` to pytrees like `x`. Raises InputError as `hvp`.
    """
    check_vector("x", x)
    gradient = _gradient(f)
    if linearize:
        return jax.linearize(gradient, x)[1]
    return lambda v: jax.jvp(gradient, (x,), (v,))[1]


def hessian(f: ScalarFunction, x: PyTree, batch_size: int | None = 8) -> Array:
    """The dense Hessian of `f` at `x`.

    Args:
        f, x: as for `hvp`; x has n numbers in all.
        batch_size: how many rows are computed at a time. None: all n, as `jax.hessian` does, whose memory is n times
            that of a product. On a CPU more than eight together were no faster per product.

    Returns:
        [n, n]. Rows and columns follow `ravel_pytree`: dict keys sorted, arrays row-major, so for the alpha of a cell
        space all of "normal" (edge by edge) and then all of "reduce". It is what the products give, symmetric up to
        rounding only. Raises InputError as `hvp`, and for a `batch_size` below 1.

    Cost: one gradient, and n products of about one gradient each, or less thanks to batching.
    """
    if batch_size is not None:
        check_positive("batch_size", batch_size)
    flat, unravel = flat_vector("x", x)
    matvec = flat_matvec(hvp_function(f, x), flat, unravel)
    return batched_map(matvec, jnp.eye(flat.size, dtype=flat.dtype), batch_size)


def _gradient(f: ScalarFunction) -> Callable[[PyTree], PyTree]:
    def scalar(x: PyTree) -> Array:
        value = f(x)
        if not is_scalar(value):
            shapes = jax.tree.map(jnp.shape, value)
            raise InputError(
                f"f must return one scalar, the function whose Hessian is meant; it returns shapes {shapes}"
            )
        return value

    return jax.grad(scalar)


def is_scalar(value: PyTree) -> bool:
    """Whether a function's value is one number and nothing beside it."""
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(value)) and jnp.shape(value) == ()


def _check_like(x: PyTree, v: PyTree, batch_axes: int) -> None:
    structure, expected = str(jax.tree.structure(v)), str(jax.tree.structure(x))
    if structure != expected:
        raise InputError(f"v has the structure {structure}, but x has {expected}")
    for (path, like), leaf in zip(jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(v), strict=True):
        shape = jnp.shape(leaf)
        if len(shape) < batch_axes or shape[batch_axes:] != jnp.shape(like):
            stacked = " after its first axis" if batch_axes else ""
            name = "v" + jax.tree_util.keystr(path)
            raise InputError(f"{name} has shape {shape}, but must have shape {jnp.shape(like)}{stacked}, as x has")
