"""Many arrays as one and back, each by one operation: XLA's code for that is as much as there are arrays."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from jaxdarts.networks.kernels.calls import call


def join(arrays: Sequence[jax.Array]) -> jax.Array:
    """The entries of all arrays, which have one dtype, one after the other: float[their number].

    It has no derivative. Cost: one copy.
    """
    size = sum(array.size for array in arrays)
    return call("Join", [jax.ShapeDtypeStruct((size,), arrays[0].dtype)], arrays)[0]


def split(joined: jax.Array, like: Sequence[jax.Array]) -> list[jax.Array]:
    """The inverse of `join`: arrays of these shapes. It has no derivative. Cost: one copy."""
    return list(call("Split", [jax.ShapeDtypeStruct(array.shape, joined.dtype) for array in like], [joined]))
