"""How do several processes, on one machine or on many, make one run?

Every process computes with its own devices and has all of the data and of the state. The first one alone reads and
writes the run's folder, and what it reads there, and what it has measured, is what all go on with: so they come to the
same verdicts. The others write nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.checkpoint import Leaf, Restored, pack, unpack
from jaxdarts.runs.exit_codes import FAILED
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.messages import say_error
from jaxdarts.sharding import DATA_AXIS

AUTO = "auto"  # instead of an address: as the cluster says
_GRACE_SECONDS = 60  # that JAX waits longer than asked, so that the last word is ours
_SHUTDOWN_SECONDS = 30  # that an ended process waits for the others; one that failed alone ends them then


class Options(Protocol):
    """Which process of how many this is, and where they meet; see the flags of the same names."""

    @property
    def coordinator(self) -> str | None: ...

    @property
    def process_id(self) -> int | None: ...

    @property
    def process_count(self) -> int | None: ...

    @property
    def coordinator_timeout(self) -> int: ...


def connect(options: Options, settings: Mapping[str, Any]) -> None:
    """Makes this process one of several, if it is to be one. To be called before JAX looks for its devices.

    What `options` leave out is asked of the cluster that JAX finds itself in: Slurm, Open MPI, Kubernetes and others.

    Args:
      options: see above.
      settings: JSON values that must be the same in all, by name.

    Raises:
      InputError: an option cannot be used, or the settings differ, which all processes raise.
      RunError: JAX says that the processes cannot meet. Where one does not come in time, this one says so and ends.
    """
    _check(options)
    if options.coordinator is None:
        return
    address = None if options.coordinator == AUTO else options.coordinator
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    late = f"coordinator: the processes did not meet at {options.coordinator!r} within {options.coordinator_timeout} s"
    try:
        with _ended_after(options.coordinator_timeout, late):
            jax.distributed.initialize(
                address,
                options.process_count,
                options.process_id,
                initialization_timeout=options.coordinator_timeout + _GRACE_SECONDS,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
    except ValueError as error:  # nothing given, and no cluster that would say it
        raise InputError(
            "coordinator: no cluster says which process of how many this is; give --coordinator HOST:PORT, "
            f"--process-id and --process-count ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        raise RunError(f"coordinator: cannot meet at {options.coordinator!r}: {_first_line(error)}") from error
    check_same({"process_count": options.process_count, **settings})


def check_same(settings: Mapping[str, Any]) -> None:
    """Raises InputError, in all processes, if one of them has other settings than the first."""
    if jax.process_count() == 1:
        return
    here = json.loads(json.dumps(dict(settings), default=str))
    first = from_first(lambda: here)
    differing = [name for name in {**first, **here} if first.get(name) != here.get(name)]
    everywhere = np.ravel(multihost_utils.process_allgather(np.int32(bool(differing))))
    processes = [str(process) for process in np.flatnonzero(everywhere)]
    if differing:
        name = differing[0]
        raise InputError(
            f"{name} must be the same in all processes; got {first.get(name)!r} in process 0 and "
            f"{here.get(name)!r} in process {jax.process_index()}"
        )
    if processes:
        raise InputError(
            f"the settings must be the same in all processes; those of process {', '.join(processes)} differ from "
            "those of process 0"
        )


def _check(options: Options) -> None:
    process, count = options.process_id, options.process_count
    if options.coordinator is None:
        if process is not None or count is not None:
            raise InputError("process_id and process_count need --coordinator HOST:PORT, where the processes meet")
        return
    host, _, port = options.coordinator.rpartition(":")
    if options.coordinator != AUTO and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise InputError(f"coordinator must be HOST:PORT or auto; got {options.coordinator!r}")
    if count is not None and count < 1:
        raise InputError(f"process_count must be at least 1; got {count}")
    if process is not None and not 0 <= process < (process + 1 if count is None else count):
        limit = "" if count is None else f" and less than process_count {count}"
        raise InputError(f"process_id must be at least 0{limit}; got {process}")
    if options.coordinator_timeout < 1:
        raise InputError(f"coordinator_timeout must be at least 1 second; got {options.coordinator_timeout}")


@contextlib.contextmanager
def _ended_after(seconds: int, why: str) -> Iterator[None]:
    """Ends the process with one line if the block lasts longer: JAX would abort it with a page of C++."""

    def end() -> None:
        say_error(f"error: {why}")
        os._exit(FAILED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


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


def shared_records(read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the first process has read, in all of them."""
    return list(from_first(read))


def restore_in_all(restore: Callable[[], Restored | None], like: Any) -> Restored | None:
    """What the first process restores, in all of them: it alone reads, and sends the bytes."""
    if jax.process_count() == 1:
        return restore()
    packed = b""

    def describe() -> Any:
        nonlocal packed
        found = restore()
        if found is None:
            return None
        packed, leaves = pack(found.state)
        return [found.step, leaves, found.extra, len(packed)]

    description = from_first(describe)
    if description is None:
        return None
    step, leaves, extra, size = description
    content = _bytes_from_first(np.frombuffer(packed, np.uint8), size)
    return Restored(step, unpack(content, [Leaf(*leaf) for leaf in leaves], like), extra)


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
