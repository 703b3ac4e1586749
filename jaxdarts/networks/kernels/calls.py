"""How is a kernel called?"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def call(
    name: str, results: Sequence[jax.Array | jax.ShapeDtypeStruct], arguments: Sequence[jax.Array], **attributes: int
) -> tuple[jax.Array, ...]:
    """Arrays of the shapes and dtypes of `results`; floats have one dtype. Under `vmap` one member after another."""
    floats = {argument.dtype for argument in arguments if jnp.issubdtype(argument.dtype, jnp.floating)}
    assert len(floats) == 1, name
    shapes = [jax.ShapeDtypeStruct(result.shape, result.dtype) for result in results]
    function = jax.ffi.ffi_call(f"jaxdarts_{name}", shapes, vmap_method="sequential")
    return tuple(function(*arguments, **{key: np.int64(value) for key, value in attributes.items()}))
