"""How is a pytree seen as one flat vector, and a function mapped over rows in batches?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxdarts.errors import InputError
from jaxdarts.values import whole

PyTree = Any
MatVec = Callable[[PyTree], PyTree]
FlatMatVec = Callable[[Array], Array]
Unravel = Callable[[Array], PyTree]


def flat_vector(argument: str, tree: PyTree) -> tuple[Array, Unravel]:
    """A pytree as one vector, in the order of `ravel_pytree` (dict keys sorted, arrays row-major).

    Returns:
        The vector, at least float32 (half precision is too coarse for orthogonality), and the function back to the
        pytree, which restores shapes and dtypes.

    Raises:
        InputError: as `check_vector`.
    """
    check_vector(argument, tree)
    # Leaves may be of several precisions, which one of JAX' guards lets nobody mix without a word.
    with jax.numpy_dtype_promotion("standard"):
        vector, unravel = ravel_pytree(tree)
        stored = vector.dtype
        wide = jnp.promote_types(stored, jnp.float32)
    return vector.astype(wide), lambda flat: unravel(flat.astype(stored))


def check_vector(argument: str, tree: PyTree) -> None:
    """Raises InputError if the tree holds no numbers, or a leaf is not real floating point. `argument` is its name."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = argument + jax.tree_util.keystr(path)
            raise InputError(f"{where} has dtype {dtype}; curvature needs real floating point arrays")
    if not any(jnp.size(leaf) for leaf in jax.tree.leaves(tree)):
        raise InputError(f"{argument} holds no numbers: {jax.tree.structure(tree)}; give at least one non-empty array")


def flat_matvec(matvec: MatVec, vector: Array, unravel: Unravel) -> FlatMatVec:
    """`matvec` on flat vectors of `vector`'s dtype instead of pytrees."""

    def product(flat: Array) -> Array:
        image = matvec(unravel(flat))
        with jax.numpy_dtype_promotion("standard"):
            return ravel_pytree(image)[0].astype(vector.dtype)

    return product


def batched_map(function: Callable[[Array], PyTree], rows: Array, batch_size: int | None) -> PyTree:
    """`function` of every row, `batch_size` rows at a time under `vmap`, one batch after the other; None: all at once.

    Differs from `jax.lax.map(..., batch_size=...)`: the last batch is filled up with copies, so that `function` is
    compiled once and not a second time for the remainder, which for a supernet takes longer than the spare products.
    """
    if batch_size is not None:
        check_positive("batch_size", batch_size)
    count = rows.shape[0]
    if batch_size is None or batch_size >= count:
        return jax.vmap(function)(rows)
    batches = -(-count // batch_size)
    size = -(-count // batches)
    filling = jnp.broadcast_to(rows[:1], (batches * size - count, *rows.shape[1:]))
    stacked = jnp.concatenate([rows, filling]).reshape(batches, size, *rows.shape[1:])
    mapped = jax.lax.map(jax.vmap(function), stacked)
    return jax.tree.map(lambda leaf: leaf.reshape(batches * size, *leaf.shape[2:])[:count], mapped)


def check_positive(argument: str, value: int) -> int:
    """The value as an int. Raises InputError unless it is a whole number of at least 1."""
    found = whole(value)
    if found is None or found < 1:
        raise InputError(f"{argument} must be an integer of at least 1, not {value!r}")
    return found
