"""How do several processes, on one machine or on many, make one run?

Every process computes with its own devices and has all of the data and of the state. The first one alone reads and
writes the run's folder, and what it reads there, and what it has measured, is what all go on with: so they come to the
same verdicts. The others write to a temporary folder that goes with them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.checkpoint import Checkpoints, Restored
from jaxdarts.runs.devices import DATA_AXIS
from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.packing import Leaf, pack, unpack


def is_first() -> bool:
    """Whether this process reads and writes the run's folder."""
    return jax.process_index() == 0


def from_first(make: Callable[[], Any]) -> Any:
    """What `make` gives in the first process, a JSON value, in all of them; it is called there only.

    An InputError or RunError that it raises is raised in all. Every process must come here at the same point.
    """
    if jax.process_count() == 1:
        return make()
    message: dict[str, Any] = {}
    if is_first():
        try:
            message = {"value": make()}
        except (InputError, RunError) as error:
            message = {"input" if isinstance(error, InputError) else "run": str(error)}
    text = json.dumps(message)
    text = text.ljust(max(1024, 1 << len(text).bit_length()))  # a power of two: few sizes, for each is a program
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    message = json.loads(_bytes_from_first(content, size).tobytes())
    if "input" in message:
        raise InputError(message["input"])
    if "run" in message:
        raise RunError(message["run"])
    return message["value"]


def _bytes_from_first(content: np.ndarray, size: int) -> np.ndarray:
    own = content if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(own), np.uint8)


class TemporaryRunFolder(RunFolder):
    """The folder of a process that is not the first."""

    @classmethod
    def new(cls) -> Path:
        """An empty one."""
        return Path(tempfile.mkdtemp(prefix="jaxdarts-"))

    def close(self) -> None:
        """Removes it."""
        super().close()
        shutil.rmtree(self.path, ignore_errors=True)


class SharedCheckpoints:
    """`Checkpoints` of the first process, restored in all; `own` None in the others. Saving needs no other process."""

    def __init__(self, own: Checkpoints | None) -> None:
        self._own = own

    def save(self, step: int, state: Any, extra: Any = None, also_keep: Collection[int] = ()) -> None:
        """As in Checkpoints."""
        if self._own is not None:
            self._own.save(step, state, extra, also_keep)
        else:
            pack(state)  # so that all processes compile the same programs

    def restore_latest(self, like: Any) -> Restored | None:
        """As in Checkpoints."""
        return self._shared(lambda own: own.restore_latest(like), like)

    def restore(self, step: int, like: Any) -> Restored:
        """As in Checkpoints."""
        restored = self._shared(lambda own: own.restore(step, like), like)
        assert restored is not None
        return restored

    def _shared(self, restore: Callable[[Checkpoints], Restored | None], like: Any) -> Restored | None:
        if jax.process_count() == 1:
            assert self._own is not None
            return restore(self._own)
        packed = np.zeros(0, np.uint8)

        def describe() -> Any:
            nonlocal packed
            assert self._own is not None
            found = restore(self._own)
            if found is None:
                return None
            packed, leaves = pack(found.state)
            return [found.step, leaves, found.extra, packed.size]

        description = from_first(describe)
        if description is None:
            return None
        step, leaves, extra, size = description
        state = unpack(_bytes_from_first(packed, size), [Leaf(*leaf) for leaf in leaves], like)
        return Restored(step, state, extra)

    def __enter__(self) -> SharedCheckpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._own is not None:
            self._own.close()


class SharedInterrupt:
    """Whether any process has been asked to stop: the same answer in all, at the same step."""

    def __init__(self, own: Interrupt, mesh: Mesh | None) -> None:
        self.own, self._mesh = own, mesh if jax.process_count() > 1 else None
        self._before: jax.Array | None = None
        if self._mesh is not None:
            self._any = jax.jit(lambda flags: flags.max(), out_shardings=NamedSharding(self._mesh, PartitionSpec()))

    def between_steps(self) -> bool:
        """As of the call before, with several processes: so no device waits for the host."""
        if self._mesh is None:
            return self.own.requested
        before, self._before = self._before, self._ask(self._mesh)
        return before is not None and bool(before)

    def now(self) -> bool:
        """As of this call."""
        return self.own.requested if self._mesh is None else bool(self._ask(self._mesh))

    def _ask(self, mesh: Mesh) -> jax.Array:
        here = len(mesh.local_devices)
        flags = np.full(here, self.own.requested, np.int32)
        return self._any(jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec(DATA_AXIS)), flags))
