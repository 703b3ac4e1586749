"""Where do a run's files lie, and who may write there?"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, RunError, shorten
from jaxdarts.paths import check_name, exists, is_file, is_folder
from jaxdarts.runs.checks import field_names
from jaxdarts.runs.evaluate.config import EVALUATE_PRESETS, EvaluateConfig, TrainingConfig
from jaxdarts.runs.files import write_atomically
from jaxdarts.runs.search.config import CHANGEABLE_FIELDS, PRESETS, SearchConfig
from jaxdarts.runs.table.config import TABULATE_PRESETS, TabulateConfig

CONFIG_FILE = "config.json"
LOCK_FILE = "lock"
# What config.json holds beside the fields.
RECORDED_FACTS = (
    "command",
    "versions",
    "device",
    "search_space",
    "class_names",
    "architecture",
    "parameters",
    "multiply_adds",
    "members",
    "part_of",
)

RunConfig = SearchConfig | TrainingConfig
_PRESETS: dict[str, Mapping[str, RunConfig]] = {
    SearchConfig.command: PRESETS,
    EvaluateConfig.command: EVALUATE_PRESETS,
    TabulateConfig.command: TABULATE_PRESETS,
}


class RunFolder:
    """A run's folder, held by this process alone until `close`, or until the process ends in whatever way.

    Made by `RunFolder.create` or `RunFolder.reopen`; also a context manager. `path` is the folder.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(
        cls,
        config: RunConfig,
        run_dir: Path | None = None,
        *,
        device: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """A new folder holding `config.json` (the fields, the versions, the device and `facts`).

        `run_dir` None picks a new name.

        To be called when everything else about the run has been checked, so that bad input leaves no folder behind.

        Raises:
          InputError: the folder holds files or belongs to a running process.
          RunError: the folder cannot be written.
        """
        check_creatable(run_dir)
        with one_line_errors("create the run folder", run_dir or "runs"):
            path, is_new = _make_folder(config, run_dir)
        folder = None
        try:
            folder = cls(path, lock_folder(path))
            check_creatable(path)  # again, under the lock: another process may have been faster
            recorded = {"command": config.command, **dataclasses.asdict(config), **run_facts(device), **(facts or {})}
            folder.write_json(CONFIG_FILE, recorded)
        except BaseException:
            if folder is not None and is_new:
                (path / LOCK_FILE).unlink(missing_ok=True)
            if folder is not None:
                folder.close()
            if is_new:
                with contextlib.suppress(OSError):  # not empty: it became another process's
                    path.rmdir()
            raise
        return folder

    @classmethod
    def reopen(cls, config: RunConfig, run_dir: Path, part: bool = False) -> RunFolder:
        """The folder of an earlier run, to continue it; of a `part` of another run if that is what continues it.

        Raises:
          InputError: there is no such run, it is still running or another command's, or `config` differs from the
            recorded one in a field that the result depends on; the message names the fields with both values.
        """
        check_resumable(run_dir, config.command, part)
        check_same_config(config, run_dir)
        folder = cls(run_dir, lock_folder(run_dir))
        for torn in run_dir.rglob(".*.tmp"):  # a write that was killed
            torn.unlink(missing_ok=True)
        return folder

    def write_text(self, name: str, text: str) -> None:
        """Writes the file `name` in the folder; after a crash it holds the old text or the new, never a part."""
        path = self.path / name
        with one_line_errors("write", path):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, text)

    def write_json(self, name: str, value: Any) -> None:
        """As `write_text`, for a JSON value."""
        self.write_text(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def close(self) -> None:
        """Lets other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_creatable(run_dir: Path | None) -> None:
    """Raises InputError if a new run must not start in this folder; makes nothing."""
    if run_dir is None:
        return
    check_name(run_dir, "run_dir")
    if not exists(run_dir):
        return
    if not is_folder(run_dir):
        raise InputError(f"run_dir must be a folder; {str(run_dir)!r} is a file")
    with one_line_errors("read", run_dir):
        content = {entry.name for entry in run_dir.iterdir()}
    if CONFIG_FILE in content:
        raise InputError(f"run_dir: {str(run_dir)!r} holds a run; add --resume to continue it or choose another folder")
    if any(not _is_ours_and_empty(name) for name in content):
        raise InputError(f"run_dir: {str(run_dir)!r} is not empty; choose a folder that is empty or does not exist")


def check_resumable(run_dir: Path, command: str = SearchConfig.command, part: bool = False) -> None:
    """Raises InputError if there is no run of this command in the folder that could be continued."""
    if not exists(run_dir):
        raise InputError(
            f"resume: there is no folder {shorten(repr(str(run_dir)), 200)}; leave out --resume to start a run there"
        )
    if not is_file(run_dir / CONFIG_FILE):
        raise InputError(f"resume: {str(run_dir)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    recorded = _recorded(run_dir)
    found = run_command(recorded)
    if "part_of" in recorded and not part:
        raise InputError(
            f"resume: {str(run_dir)!r} is a part of the run in {os.path.normpath(run_dir / recorded['part_of'])!r}; "
            "continue that"
        )
    if found != command:
        raise InputError(
            f"resume: the run in {str(run_dir)!r} is not one of python -m jaxdarts.{command}; "
            f"continue it with python -m jaxdarts.{found}"
        )


def run_command(recorded: Mapping[str, Any]) -> str:
    """The name of the command that wrote a config.json."""
    return str(recorded.get("command", SearchConfig.command))


def check_same_config(config: RunConfig, run_dir: Path) -> None:
    """Raises InputError naming every field in which `config` and the run's recorded configuration may not differ."""
    recorded = stored_config(run_dir)
    differences = [
        f"{name} ({recorded[name]!r} in the run, {getattr(config, name)!r} now)"
        for name in field_names(type(config))
        if name in recorded and name not in CHANGEABLE_FIELDS and recorded[name] != getattr(config, name)
    ]
    if differences:
        raise InputError(
            f"resume: the configuration differs from {str(run_dir / CONFIG_FILE)!r} in {', '.join(differences)}; "
            "leave these as they were or start another run"
        )


def stored_config(run_dir: Path) -> dict[str, Any]:
    """The fields in a run's config.json; one that an older version did not know has its preset's value.

    Raises:
      InputError: the file cannot be read.
    """
    recorded = _recorded(run_dir)
    presets = _PRESETS.get(run_command(recorded), PRESETS)
    defaults = dataclasses.asdict(presets.get(str(recorded.get("preset")), presets["quick"]))
    return defaults | {name: value for name, value in recorded.items() if name in defaults}


def _recorded(run_dir: Path) -> dict[str, Any]:
    path = run_dir / CONFIG_FILE
    try:
        recorded = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"resume: cannot read {str(path)!r}: {error}") from error
    if not isinstance(recorded, dict):
        raise InputError(f"resume: {str(path)!r} does not hold a configuration")
    return recorded


def run_facts(device: str) -> dict[str, Any]:
    """What a reader of the result may want to know beside the configuration; `device` as a person would name it."""
    versions = {"python": platform.python_version()}
    for package in ("jaxdarts", "jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"versions": versions, "device": device}


@contextlib.contextmanager
def one_line_errors(action: str, path: str | Path) -> Iterator[None]:
    """Turns an OSError into a RunError of one line: "cannot <action> <path>: No space left on device"."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot {action} {str(path)!r}: {error.strerror or error}") from error


def _make_folder(config: RunConfig, run_dir: Path | None) -> tuple[Path, bool]:
    if run_dir is not None:
        is_new = not exists(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        return run_dir, is_new
    name = f"{_subject(config)}-{_slug(config.dataset)}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path, True
        except FileExistsError:
            number += 1


def _subject(config: RunConfig) -> str:
    if isinstance(config, EvaluateConfig):
        return f"evaluate-{_slug(config.genotype)}"
    if isinstance(config, TabulateConfig):
        return f"table-{_slug(config.space)}"
    assert isinstance(config, SearchConfig)
    return _slug(config.space)


def _slug(name: str) -> str:
    """`path/to/my space.toml` -> `my_space`, `npz:/data/x.npz` -> `x`, `s1` -> `s1`."""
    stem = Path(name.partition(":")[2] or name).stem
    return re.sub(r"[^A-Za-z0-9_.]+", "_", stem)[:80] or "data"  # a genotype may stand as text in a name's place


def _is_ours_and_empty(name: str) -> bool:
    """Left by a run that was killed before it had written anything: still counts as an empty folder."""
    return name == LOCK_FILE or (name.startswith(".") and name.endswith(".tmp"))


def lock_folder(path: Path, argument: str = "run_dir") -> int | None:
    """Locks a folder until the descriptor is closed or the process ends; None on a file system without locks.

    Raises:
      InputError: another process holds it; `argument` is what the message calls the folder.
      RunError: the lock cannot be written.
    """
    # The kernel drops the lock when the process ends, also after kill -9, so a lock file left behind locks nothing.
    with one_line_errors("write", path / LOCK_FILE):
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return lock
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise InputError(
            f"{argument}: {str(path)!r} is in use by process {owner}; choose another --{argument.replace('_', '-')}"
        ) from None
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            warnings.warn(f"{str(path)!r} is on a file system without locks; start no second run there", stacklevel=3)
            return None
        raise RunError(f"cannot lock {str(path)!r}: {error.strerror}") from error
