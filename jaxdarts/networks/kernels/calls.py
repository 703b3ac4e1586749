"""How is a kernel called?"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """All in the widest of their dtypes."""
    dtype = jnp.result_type(*arrays)
    return tuple(array if array.dtype == dtype else array.astype(dtype) for array in arrays)


def call(
    name: str,
    results: Sequence[jax.Array | jax.ShapeDtypeStruct],
    arguments: Sequence[jax.Array],
    **attributes: int | Sequence[int],
) -> tuple[jax.Array, ...]:
    """Arrays of the shapes and dtypes of `results`; arguments have one dtype. Under `vmap` one member after another."""
    assert len({argument.dtype for argument in arguments}) == 1, name
    shapes = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    function = jax.ffi.ffi_call(f"jaxdarts_{name}", shapes, vmap_method="sequential")
    return tuple(function(*arguments, **{key: np.asarray(value, np.int64)[()] for key, value in attributes.items()}))
