"""How does a run's state survive the end of its process, bit for bit?

A checkpoint is one file: a line that names the format, the length of a header, the header as JSON (step, paths, dtypes
and shapes of the leaves, a checksum), and the bytes of all leaves. It is written as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import RunError, one_line_errors
from jaxdarts.json_files import write_atomically

_MAGIC = b"jaxdarts checkpoint 2\n"


class Leaf(NamedTuple):
    """One array, key or number of a pytree: where it stands, and what its bytes mean."""

    path: str
    type: str  # of the elements: a dtype, a kind of key, or a Python type
    shape: list[int]
    key_impl: str | None
    num_bytes: int


class Restored(NamedTuple):
    """What a checkpoint held."""

    step: int
    state: Any
    extra: Any


class Checkpoints:
    """The newest states of a run in a folder, and some older; each whole or absent whatever kills the process.

    A state is any pytree of JAX arrays of any dtype, typed PRNG keys, NumPy arrays and Python numbers. Checkpoints are
    numbered by the order in which they were saved, not by `step`, since a method may go back to an earlier state and
    continue from it.

    Args:
      folder: made when something is saved.
      keep: how many of the newest checkpoints stay.
    """

    def __init__(self, folder: str | Path, keep: int = 3) -> None:
        self.folder, self._keep = Path(folder).absolute(), keep
        self._steps: dict[int, int | None] = {}  # number -> step, of those that were looked at

    def save(self, step: int, state: Any, extra: Any = None, also_keep: Collection[int] = ()) -> None:
        """Saves a state, and removes those that are neither among the newest nor asked for.

        Args:
          step: of the run.
          state: see above.
          extra: a JSON value restored with it, for what is no array.
          also_keep: steps whose newest checkpoint stays, however old.

        Raises:
          RunError: the checkpoint cannot be written; those before it are untouched.
        """
        packed, leaves = pack(state)
        header = {"step": int(step), "leaves": leaves, "extra": extra}
        number = max(self._numbers(), default=0) + 1
        with one_line_errors("write a checkpoint to", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(number), _encode(header, packed))
        self._steps[number] = int(step)
        numbers = sorted(self._numbers())
        wanted = {*numbers[-self._keep :], *(self._newest_of(step) for step in also_keep)}
        for old in set(numbers) - wanted:
            self._path(old).unlink(missing_ok=True)

    def restore_latest(self, like: Any) -> Restored | None:
        """The newest checkpoint that can be read, or None if none was ever saved.

        A truncated or altered checkpoint is left out with a warning that names it and the one used instead.

        Args:
          like: a state with the same structure, shapes and dtypes; its values are not used. ShapeDtypeStructs will do.

        Raises:
          RunError: there are checkpoints but none can be read, or the newest one holds another kind of state.
        """
        broken: list[str] = []
        for number in sorted(self._numbers(), reverse=True):
            try:
                header, packed = self._read(number)
            except (OSError, ValueError, KeyError, TypeError) as error:
                broken.append(f"checkpoint {self._path(number).name} cannot be read ({error})")
                continue
            if broken:
                message = f"{'; '.join(broken)}; continuing from {self._path(number).name}, step {header['step']}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self._set_aside_after(number)
            return Restored(header["step"], unpack(packed, _leaves(header), like), header["extra"])
        if broken:
            raise RunError(f"no checkpoint in {str(self.folder)!r} can be read: {'; '.join(broken)}")
        return None

    def restore(self, step: int, like: Any) -> Restored:
        """The newest checkpoint of a step that `also_keep` has kept.

        Raises:
          RunError: there is none, it cannot be read, or it holds another kind of state than `like`.
        """
        number = self._newest_of(step)
        if number is None:
            raise RunError(f"there is no checkpoint of step {step} in {str(self.folder)!r}")
        try:
            header, packed = self._read(number)
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = self._path(number).name
            raise RunError(f"checkpoint {name} in {str(self.folder)!r} cannot be read: {error}") from error
        return Restored(header["step"], unpack(packed, _leaves(header), like), header["extra"])

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = []
        for entry in self.folder.iterdir():
            number = entry.stem.removeprefix("save_")
            if entry.name.startswith("save_") and number.isdigit():
                if entry.is_dir():
                    raise RunError(
                        f"the checkpoint {str(entry)!r} was written by an older version of jaxdarts, which alone can "
                        "continue the run"
                    )
                found.append(int(number))
        return found

    def _path(self, number: int) -> Path:
        return self.folder / f"save_{number:06d}.ckpt"

    def _newest_of(self, step: int) -> int | None:
        return max((number for number in self._numbers() if self._step_of(number) == step), default=None)

    def _step_of(self, number: int) -> int | None:
        if number not in self._steps:
            try:
                self._steps[number] = _step_alone(self._path(number))
            except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):  # damaged somehow
                self._steps[number] = None
        return self._steps[number]

    def _read(self, number: int) -> tuple[dict[str, Any], np.ndarray]:
        return _decode(self._path(number).read_bytes())

    def _set_aside_after(self, number: int) -> None:
        """Renames damaged checkpoints, so that they don't count among those to keep."""
        for newer in self._numbers():
            if newer > number:
                with contextlib.suppress(OSError):
                    shutil.move(self._path(newer), self.folder / f"damaged_{self._path(newer).name}")


def _encode(header: dict[str, Any], packed: bytes) -> bytes:
    text = json.dumps({**header, "sha256": _checksum(header, packed)}).encode()
    return b"".join((_MAGIC, len(text).to_bytes(8, "little"), text, packed))


def _decode(content: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """Raises ValueError, KeyError or TypeError for what `_encode` has not written."""
    start = len(_MAGIC) + 8
    if not content:
        raise ValueError("it is empty")
    if not content.startswith(_MAGIC) or len(content) < start:
        raise ValueError("it does not begin as a checkpoint does")
    end = start + int.from_bytes(content[len(_MAGIC) : start], "little")
    if end > len(content):
        raise ValueError("it is cut off")
    header = json.loads(content[start:end])
    packed = memoryview(content)[end:]
    if header.pop("sha256") != _checksum(header, packed):
        raise ValueError("its checksum does not fit")
    return header, np.frombuffer(packed, np.uint8)


def _checksum(header: dict[str, Any], packed: bytes | memoryview) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(packed)
    return digest.hexdigest()


def _step_alone(path: Path) -> int:
    """From the header, without the leaves: a run asks for the steps of all."""
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as a checkpoint does")
        size = int.from_bytes(file.read(8), "little")
        return int(json.loads(file.read(min(size, path.stat().st_size)))["step"])


def _leaves(header: dict[str, Any]) -> list[Leaf]:
    return [Leaf(*leaf) for leaf in header["leaves"]]


def pack(state: Any) -> tuple[bytes, list[Leaf]]:
    """The bytes of all leaves, and what is needed to take them apart.

    Raises:
      TypeError: a leaf that is no array, key or number.
    """
    parts, leaves = [], []
    paths_and_leaves = jax.tree_util.tree_leaves_with_path(state)
    for _, leaf in paths_and_leaves:
        if isinstance(leaf, jax.Array) and not _is_key(leaf):
            leaf.copy_to_host_async()  # all copies at once; a wait for each would add up
    for path, leaf in paths_and_leaves:
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if array.dtype.kind in "OSU":
            raise TypeError(f"a state holds arrays, keys and numbers only; {name} is {leaf!r}")
        parts.append(array.tobytes())
        key_impl = str(jax.random.key_impl(leaf)) if _is_key(leaf) else None
        leaves.append(Leaf(name, _type_name(leaf), list(np.shape(leaf)), key_impl, array.nbytes))
    return b"".join(parts), leaves


def unpack(packed: np.ndarray, leaves: list[Leaf], like: Any) -> Any:
    """The pytree that `pack` took apart, with the structure of `like` and its leaves' places on devices.

    Raises:
      RunError: `like` has other paths, types or shapes than the leaves; the message names the first.
    """
    paths_and_likes, treedef = jax.tree_util.tree_flatten_with_path(like)
    expected = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), _type_name(leaf), list(np.shape(leaf)))
        for path, leaf in paths_and_likes
    ]
    found = [(leaf.path, leaf.type, leaf.shape) for leaf in leaves]
    if found != expected:
        raise RunError(f"the checkpoint holds another kind of state: {_first_difference(found, expected)}")
    restored, start = [], 0
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
