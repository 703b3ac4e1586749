"""How does a pytree of arrays become bytes, and the same pytree again?"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import RunError


class Leaf(NamedTuple):
    """One array, key or number of a pytree: where it stands, and what its bytes mean."""

    path: str
    type: str  # of the elements: a dtype, a kind of key, or a Python type
    shape: list[int]
    key_impl: str | None
    num_bytes: int


def pack(state: Any) -> tuple[np.ndarray, list[Leaf]]:
    """All leaves as one array uint8[bytes], and what is needed to take it apart.

    Raises:
      TypeError: a leaf that is no array, key or number.
    """
    parts, leaves = [b"\0"], []  # one byte to start with, as orbax refuses an empty array
    paths_and_leaves = jax.tree_util.tree_leaves_with_path(state)
    for _, leaf in paths_and_leaves:
        if isinstance(leaf, jax.Array) and not _is_key(leaf):
            leaf.copy_to_host_async()  # all copies at once; a wait for each would add up
    for path, leaf in paths_and_leaves:
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        name = _path_name(path)
        if array.dtype.kind in "OSU":
            raise TypeError(f"a state holds arrays, keys and numbers only; {name} is {leaf!r}")
        parts.append(array.tobytes())
        key_impl = str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
        leaves.append(Leaf(name, _type_name(leaf), list(np.shape(leaf)), key_impl, array.nbytes))
    return np.frombuffer(b"".join(parts), np.uint8), leaves


def unpack(packed: np.ndarray, leaves: list[Leaf], like: Any) -> Any:
    """The pytree that `pack` took apart, with the structure of `like` and its leaves' places on devices.

    Raises:
      RunError: `like` has other paths, types or shapes than the leaves; the message names the first.
    """
    paths_and_likes, treedef = jax.tree_util.tree_flatten_with_path(like)
    expected = [(_path_name(path), _type_name(leaf), list(np.shape(leaf))) for path, leaf in paths_and_likes]
    found = [(leaf.path, leaf.type, leaf.shape) for leaf in leaves]
    if found != expected:
        raise RunError(f"the checkpoint holds another kind of state: {_first_difference(found, expected)}")
    restored, start = [], 1
    for leaf, (_, leaf_like) in zip(leaves, paths_and_likes, strict=True):
        restored.append(_restore_leaf(packed[start : start + leaf.num_bytes].tobytes(), leaf, leaf_like))
        start += leaf.num_bytes
    return jax.tree_util.tree_unflatten(treedef, restored)


def _restore_leaf(content: bytes, leaf: Leaf, like: Any) -> Any:
    if leaf.key_impl is not None:
        data = np.frombuffer(content, np.uint32).reshape(*leaf.shape, -1)
        return _like_placed(jax.random.wrap_key_data(jnp.array(data), impl=leaf.key_impl), like)
    if isinstance(like, bool | int | float | complex) and not isinstance(like, np.generic):
        return np.frombuffer(content, np.asarray(like).dtype)[0].item()
    array = np.frombuffer(content, jnp.dtype(leaf.type)).reshape(leaf.shape)
    if isinstance(like, np.ndarray | np.generic):
        return array.copy() if isinstance(like, np.ndarray) else array[()]
    return _like_placed(jnp.array(array), like)


def _like_placed(array: jax.Array, like: Any) -> jax.Array:
    # Only what was committed to devices is committed again: anything else would compile the step anew.
    return jax.device_put(array, like.sharding) if getattr(like, "committed", False) else array


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _type_name(leaf: Any) -> str:
    return str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__


def _path_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


_Described = tuple[str, str, list[int]]


def _first_difference(found: list[_Described], expected: list[_Described]) -> str:
    in_checkpoint = {path: (name, shape) for path, name, shape in found}
    for path, name, shape in expected:
        if path not in in_checkpoint:
            return f"it has no {path!r}"
        if in_checkpoint[path] != (name, shape):
            there = in_checkpoint[path]
            return f"{path!r} is {there[0]}{there[1]} in the checkpoint, {name}{shape} in this run"
    unknown = set(in_checkpoint) - {path for path, _, _ in expected}
    return f"this run has no {min(unknown)!r}" if unknown else "its parts are in another order"
