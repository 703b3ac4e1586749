"""How does a run's state survive the end of its process, bit for bit?"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxdarts.errors import RunError
from jaxdarts.runs.folder import one_line_errors
from jaxdarts.runs.packing import Leaf, pack, unpack

_ITEMS = ("state", "description")


class Restored(NamedTuple):
    """What `Checkpoints.restore_latest` found."""

    step: int
    state: Any
    extra: Any


class Checkpoints:
    """The newest states of a run in a folder, and some older; each whole or absent whatever kills the process.

    A state is any pytree of JAX arrays of any dtype, typed PRNG keys, NumPy arrays and Python numbers. Its leaves are
    packed into one array of bytes, with their paths, dtypes, shapes and a checksum beside it: orbax, which makes saving
    atomic and drops old checkpoints, needs a millisecond for every array, and a supernet has thousands.

    Checkpoints are numbered by the order in which they were saved, not by `step`, since a method may go back to an
    earlier state and continue from it. Saving 2 MB takes 0.2 to 0.3 s and returns when it is done.

    Args:
      folder: made if it does not exist.
      keep: how many of the newest checkpoints stay.
    """

    def __init__(self, folder: str | Path, keep: int = 3) -> None:
        self.folder = Path(folder).absolute()
        self._retention = _Retention(keep)
        self._steps: dict[int, int] = {}  # number -> step, of those that were looked at
        several = jax.process_count() > 1
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            step_prefix="save",
            step_format_fixed_length=6,
            create=not several,  # orbax makes no folder for one of several processes
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            )
            if several  # of which this one alone saves, and waits for no other
            else ocp.options.MultiprocessingOptions(),
        )
        with one_line_errors("open the checkpoints in", self.folder), _quiet():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.folder, item_names=_ITEMS, options=options)

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
        description = json.loads(json.dumps({"step": int(step), "leaves": leaves, "extra": extra}))
        description["sha256"] = _checksum(packed, description)
        number = max(self._numbers(), default=0) + 1
        self._steps[number] = int(step)
        self._retention.wanted = {self._newest_of(wanted) for wanted in also_keep}
        try:
            with _quiet():
                saved = self._manager.save(
                    number,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave({"bytes": packed}), description=ocp.args.JsonSave(description)
                    ),
                    force=True,
                )
        except Exception as error:  # orbax reports a full disk by several types
            raise RunError(f"cannot write a checkpoint to {str(self.folder)!r}: {_reason(error)}") from error
        if not saved:
            raise RunError(f"cannot write a checkpoint to {str(self.folder)!r}: number {number} exists")

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
                packed, description = self._read(number)
            except Exception as error:  # whatever a damaged file makes its reader raise
                broken.append(f"checkpoint {self._name(number)} cannot be read ({_reason(error)})")
                continue
            leaves = [Leaf(*leaf) for leaf in description["leaves"]]
            state = unpack(packed, leaves, like)
            if broken:
                message = f"{'; '.join(broken)}; continuing from {self._name(number)}, step {description['step']}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
                self._set_aside_after(number)
            return Restored(description["step"], state, description["extra"])
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
            packed, description = self._read(number)
        except Exception as error:
            name = self._name(number)
            raise RunError(f"checkpoint {name} in {str(self.folder)!r} cannot be read: {_reason(error)}") from error
        state = unpack(packed, [Leaf(*leaf) for leaf in description["leaves"]], like)
        return Restored(description["step"], state, description["extra"])

    def close(self) -> None:
        """Ends orbax's threads. Everything saved stays."""
        with _quiet():
            self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _numbers(self) -> list[int]:
        # Not the manager's own list, which passes over a folder whose marker file is damaged: that is to be reported.
        names = [entry.name for entry in self.folder.iterdir() if entry.is_dir()]
        return [int(name[5:]) for name in names if name.startswith("save_") and name[5:].isdigit()]

    def _newest_of(self, step: int) -> int | None:
        return max((number for number in self._numbers() if self._step_of(number) == step), default=None)

    def _step_of(self, number: int) -> int | None:
        if number not in self._steps:
            try:
                self._steps[number] = self._description(number)["step"]
            except Exception:  # whatever a damaged file makes its reader raise
                return None
        return self._steps[number]

    def _name(self, number: int) -> str:
        return f"save_{number:06d}"

    def _read(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        description = self._description(number)
        with _quiet():
            num_bytes = 1 + sum(Leaf(*leaf).num_bytes for leaf in description["leaves"])
            args = ocp.args.Composite(state=ocp.args.StandardRestore({"bytes": np.zeros(num_bytes, np.uint8)}))
            packed = self._manager.restore(number, args=args)["state"]["bytes"]
        if description.pop("sha256") != _checksum(packed, description):
            raise ValueError("its checksum does not fit")
        return packed, description

    def _description(self, number: int) -> dict[str, Any]:
        with _quiet():
            args = ocp.args.Composite(description=ocp.args.JsonRestore())
            description: dict[str, Any] = self._manager.restore(number, args=args)["description"]
        return description

    def _set_aside_after(self, number: int) -> None:
        """Renames damaged checkpoints, so that they don't count among those to keep."""
        for newer in self._numbers():
            if newer > number:
                aside = self.folder / f"damaged_{self._name(newer)}"
                shutil.rmtree(aside, ignore_errors=True)
                with contextlib.suppress(OSError):
                    (self.folder / self._name(newer)).rename(aside)
        with _quiet():
            self._manager.reload()


class _Retention:
    """Which checkpoints orbax keeps: the newest, and those wanted."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.wanted: set[int | None] = set()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        newest = sorted(info.step for info in checkpoints)[-self._keep :]
        return [info.step in newest or info.step in self.wanted for info in checkpoints]


def _checksum(packed: np.ndarray, description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode() + packed.tobytes()).hexdigest()


def _reason(error: Exception) -> str:
    """What the operating system said, if that is in the error, else the first line of what may be many."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        if os.strerror(code) in str(error):
            return os.strerror(code)
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's log lines and warnings off a command's output."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
