"""Flattening checks its input; a batched map compiles its function once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.curvature.pytrees import batched_map, flat_vector
from jaxdarts.errors import InputError


def test_flat_vector_orders_dict_keys_and_goes_back() -> None:
    tree = {"reduce": jnp.array([[3.0, 4.0]]), "normal": jnp.array([1.0, 2.0], jnp.bfloat16)}
    vector, unravel = flat_vector("x", tree)
    np.testing.assert_array_equal(vector, [1, 2, 3, 4])
    back = unravel(vector)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), back) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), tree
    )


def test_half_precision_is_computed_in_single() -> None:
    vector, unravel = flat_vector("x", jnp.ones(3, jnp.bfloat16))
    assert vector.dtype == jnp.float32
    assert unravel(vector).dtype == jnp.bfloat16


@pytest.mark.parametrize("tree", [{}, (), jnp.zeros((0, 3)), None])
def test_an_empty_tree_is_refused(tree: object) -> None:
    with pytest.raises(InputError, match="x holds no numbers"):
        flat_vector("x", tree)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, jnp.bool_])
def test_other_numbers_are_refused_by_name(dtype: jnp.dtype) -> None:
    with pytest.raises(InputError, match=rf"x\['a'\] has dtype {jnp.dtype(dtype).name}"):
        flat_vector("x", {"a": jnp.ones(2, dtype), "b": jnp.ones(2)})


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 100, None])
def test_batched_map_equals_vmap(batch_size: int | None) -> None:
    rows = jnp.arange(14.0).reshape(7, 2)
    calls = []

    def function(row: jax.Array) -> tuple[jax.Array, jax.Array]:
        calls.append(None)
        return row**2, row.sum()

    result = batched_map(function, rows, batch_size)
    assert len(calls) == 1
    np.testing.assert_array_equal(result[0], rows**2)
    np.testing.assert_array_equal(result[1], rows.sum(1))


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_batch_size_is_checked(batch_size: object) -> None:
    with pytest.raises(InputError, match="batch_size must be"):
        batched_map(lambda row: row, jnp.ones((2, 2)), batch_size)  # type: ignore[arg-type]
