"""Where do a run's files lie, who may write there, and what do they say when the run goes on?

The only place that writes: config.json, metrics.jsonl, checkpoints, and whatever a stage hands over by name.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, RunError, one_line_errors, shorten
from jaxdarts.json_files import (
    append_line,
    as_json,
    is_temporary,
    keep_lines,
    read_json,
    read_lines,
    remove_temporary,
    to_text,
    write_atomically,
)
from jaxdarts.paths import check_name, exists, is_file, is_folder
from jaxdarts.recorded import name_the_same
from jaxdarts.runs import tensorboard
from jaxdarts.runs.checkpoint import Checkpoints, Restored
from jaxdarts.runs.lock import LOCK_FILE, lock_folder
from jaxdarts.runs.processes import is_first, restore_in_all, shared_records

CONFIG_FILE, METRICS_FILE, EVENTS_FILE = "config.json", "metrics.jsonl", "events.json"
CHECKPOINT_FOLDER = "checkpoints"


class Store:
    """The files of a stage of a run: the run's own folder, or one below it. A context manager.

    In other processes than the first nothing is written, and records are kept in memory only.
    """

    def __init__(self, path: Path, root: Path, keep: int, lock: int | None = None, writes: bool | None = None) -> None:
        self.path, self.root = path, root  # of the stage, and of the run
        self.records: list[dict[str, Any]] = []  # metrics.jsonl, which is only output
        self._lock, self._keep = lock, keep
        self._writes = is_first() if writes is None else writes
        self._is_kept = writes is not False
        self._checkpoints = Checkpoints(path / CHECKPOINT_FOLDER, keep)

    @classmethod
    def in_memory(cls, run: Store) -> Store:
        """Of a stage that leaves no files."""
        return cls(run.path, run.root, 1, writes=False)

    def part(self, name: str, settings: Mapping[str, Any]) -> Store:
        """The files of a part of this run, in a folder below this one; its config.json is written if it has none."""
        path = self.path / name
        part = Store(path, self.root, self._keep)
        if self._writes:
            with one_line_errors("create", path):
                path.mkdir(parents=True, exist_ok=True)
            if not is_file(path / CONFIG_FILE):
                # What was recorded of the run: a continued one may have other versions than the part began with.
                recorded = {n: v for n, v in self.read_config().items() if n in RECORDED_BY_ALL}
                part_of = os.path.relpath(self.root, path)
                part.write_json(CONFIG_FILE, {**recorded, **settings, "part_of": part_of})
        return part

    def read_config(self) -> dict[str, Any]:
        """What config.json holds."""
        return read_config(self.path) if self._writes else {}

    def write_text(self, name: str, text: str) -> None:
        """Writes the file `name` in the folder; after a crash it holds the old text or the new, never a part."""
        if self._writes:
            path = self.path / name
            with one_line_errors("write", path):
                path.parent.mkdir(exist_ok=True)
                write_atomically(path, text)

    def write_json(self, name: str, value: Any) -> None:
        """As `write_text`, for a JSON value; what is not finite becomes null."""
        self.write_text(name, to_text(value))

    def write_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """What methods have decided; without any there is no such file."""
        if events:
            self.write_json(EVENTS_FILE, events)
        elif self._writes:
            (self.path / EVENTS_FILE).unlink(missing_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        line: dict[str, Any] = as_json(record)
        if self._writes:
            with one_line_errors("write", self.path / METRICS_FILE):
                append_line(self.path / METRICS_FILE, line)
        self.records.append(line)

    def write_scalars(self, record: Mapping[str, Any]) -> None:
        """An epoch's numbers for TensorBoard."""
        if self._writes:
            with one_line_errors("write", self.path / tensorboard.FOLDER):
                tensorboard.write_scalars(self.path, record)

    def load(self) -> None:
        """Reads the lines that are there, in all processes from the first."""
        self.records[:] = shared_records(lambda: read_lines(self.path / METRICS_FILE) if self._is_kept else [])

    def forget(self, epoch: int) -> None:
        """Brings metrics.jsonl and genotypes/ to what a checkpoint knows: nothing of this epoch and later ones.

        Raises:
          RunError: metrics.jsonl lacks an epoch before.
        """
        if not self._is_kept:
            return
        self.load()
        found = [record.get("epoch") for record in self.records[:epoch]]
        missing = next((number for number in range(epoch) if found[number : number + 1] != [number]), None)
        if missing is not None:
            raise RunError(
                f"{str(self.path / METRICS_FILE)!r} lacks epoch {missing} (counted from 0), and the checkpoint is at "
                f"the end of epoch {epoch - 1}: the run cannot go on; bring the file back, or start another"
            )
        del self.records[epoch:]
        if self._writes:
            with one_line_errors("write", self.path / METRICS_FILE):
                keep_lines(self.path / METRICS_FILE, epoch)
            for path in (self.path / "genotypes").glob("epoch_*.json"):
                number = path.stem.removeprefix("epoch_")
                if number.isdecimal() and int(number) >= epoch:
                    path.unlink(missing_ok=True)

    def save(self, step: int, state: Any, extra: Any = None, also_keep: Collection[int] = ()) -> None:
        """As `Checkpoints.save`; by the first process alone."""
        if self._writes:
            self._checkpoints.save(step, state, extra, also_keep)

    def restore_latest(self, like: Any) -> Restored | None:
        """As `Checkpoints.restore_latest`; in all processes what the first one has."""
        return restore_in_all(lambda: self._checkpoints.restore_latest(like), like) if self._is_kept else None

    def restore(self, step: int, like: Any) -> Restored:
        """As `Checkpoints.restore`; in all processes what the first one has."""
        restored = restore_in_all(lambda: self._checkpoints.restore(step, like), like)
        assert restored is not None
        return restored

    def close(self) -> None:
        """Lets other processes use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# What config.json holds beside settings: of every part the same, and of each its own.
RECORDED_BY_ALL = (
    "versions",
    "device",
    "started_in",
    "search_space",
    "class_names",
    "data_digest",
    "vocabulary_size",
    "tokens",
    "pydoc_python",
)
RECORDED_FACTS = (
    "command",
    *RECORDED_BY_ALL,
    "architecture",
    "parameters",
    "multiply_adds",
    "members",
    "stage",
    "stages",
    "part_of",
)


# May change between a run and its continuation: they do not touch the result, `devices` no more than by rounding.
CHANGEABLE = (
    "preset",
    "data_dir",
    "benchmark",
    "download",
    "checkpoint_every_minutes",
    "checkpoints_to_keep",
    "tensorboard",
    "devices",
)


def create(
    run_dir: Path | None, name: str, settings: Mapping[str, Any], facts: Mapping[str, Any], device: str, keep: int
) -> Store:
    """A new run's folder holding config.json: the settings, versions, the device and `facts`.

    To be called when everything else about the run has been checked, so that bad input leaves no folder behind.

    Args:
      run_dir: None makes a new folder below `runs/`, whose name begins with `name`.
      name: such as what is searched.
      settings: with the `command`.
      facts: what a reader or a continuation may want to know beside.
      device: as a person would name it.
      keep: how many of the newest checkpoints stay.

    Raises:
      InputError: the folder holds files or belongs to a running process.
      RunError: the folder cannot be written.
    """
    check_creatable(run_dir)
    with one_line_errors("create the run folder", run_dir or "runs"):
        path, is_new = _make_folder(run_dir, name, settings)
    store = None
    try:
        store = Store(path, path, keep, lock_folder(path))
        check_creatable(path)  # again, under the lock: another process may have been faster
        store.write_json(CONFIG_FILE, {**settings, **run_facts(device), "started_in": os.getcwd(), **facts})
    except BaseException:
        if store is not None and is_new:
            (path / LOCK_FILE).unlink(missing_ok=True)
        if store is not None:
            store.close()
        if is_new:
            with contextlib.suppress(OSError):  # not empty: it became another process's
                path.rmdir()
        raise
    return store


def reopen(run_dir: Path, keep: int) -> Store:
    """The folder of an earlier run, to continue it; to be called after `check_resumable`.

    Raises:
      InputError: it is still running.
    """
    store = Store(run_dir, run_dir, keep, lock_folder(run_dir))
    with one_line_errors("write", run_dir):
        remove_temporary(run_dir, is_foreign=lambda folder: (folder / LOCK_FILE).exists())
    return store


def check_creatable(run_dir: Path | None) -> None:
    """Raises InputError if a new run must not start in this folder; makes nothing."""
    if run_dir is None:
        return
    check_spelling(run_dir, "run_dir")
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


def check_spelling(path: Path, argument: str) -> None:
    """Raises InputError for what no run's folder can be called, and for links that lead nowhere."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # it could be written into no file
        text = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(f"{argument}: the name '{text}' is not UTF-8; choose one that is") from None
    check_name(path, argument)
    for link in () if exists(path) else (path, *path.parents):
        if link.is_symlink() and not exists(link):
            raise InputError(
                f"{argument}: {str(link)!r} is a link to {os.readlink(link)!r}, which does not exist; make that "
                "folder, or choose another"
            )


def check_resumable(run_dir: Path, command: str, part: bool = False) -> dict[str, Any]:
    """What the config.json of a run says that this command could continue.

    Raises:
      InputError: there is no such run.
    """
    check_spelling(run_dir, "resume")
    if not exists(run_dir):
        raise InputError(f"resume: there is no folder {str(run_dir)!r}; leave out --resume to start a run there")
    if not is_file(run_dir / CONFIG_FILE):
        raise InputError(f"resume: {str(run_dir)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    recorded = read_config(run_dir, "resume")
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
    return recorded


def read_config(folder: Path, argument: str = "run_dir") -> dict[str, Any]:
    """A run's config.json as it is.

    Raises:
      InputError: not the folder of a run, or the file cannot be read.
    """
    check_name(folder, argument)
    if not is_folder(folder):
        raise InputError(f"{argument}: there is no folder {str(folder)!r}; name the folder that a run wrote")
    if not is_file(folder / CONFIG_FILE):
        raise InputError(f"{argument}: {str(folder)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    config = read_json(folder / CONFIG_FILE, argument)
    if not isinstance(config, dict):
        raise InputError(f"{argument}: {str(folder / CONFIG_FILE)!r} does not hold a configuration")
    return config


def run_command(recorded: Mapping[str, Any]) -> str:
    """The name of the command that wrote a config.json."""
    return str(recorded.get("command", "search"))


def check_same_settings(
    settings: Mapping[str, Any], recorded: Mapping[str, Any], run_dir: Path, changeable: Collection[str]
) -> None:
    """Raises InputError naming every setting in which a continuation may not differ from what was recorded."""
    started_in = recorded.get("started_in")
    differences = [
        f"{name} ({recorded[name]!r} in the run, {value!r} now)"
        for name, value in as_json(settings).items()
        if name in recorded and name not in changeable and not name_the_same(name, value, recorded[name], started_in)
    ]
    if differences:
        raise InputError(
            f"resume: the configuration differs from {str(run_dir / CONFIG_FILE)!r} in {', '.join(differences)}; "
            "leave these as they were or start another run"
        )


def check_same_data(recorded: Mapping[str, Any], facts: Mapping[str, Any], dataset: str) -> None:
    """Raises InputError if other data lie behind the recorded name now."""
    before, now = recorded.get("data_digest"), facts.get("data_digest")
    if before is not None and now is not None and before != now:
        raise InputError(
            f"resume: the data of {dataset!r} have changed since the run began (digest {before[:12]} then, {now[:12]} "
            "now); bring them back, or start another run"
        )


def run_facts(device: str) -> dict[str, Any]:
    """What a reader of the result may want to know beside the settings; `device` as a person would name it."""
    versions = {"python": platform.python_version()}
    for package in ("jaxdarts", "jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"versions": versions, "device": device}


def _make_folder(run_dir: Path | None, name: str, settings: Mapping[str, Any]) -> tuple[Path, bool]:
    if run_dir is not None:
        is_new = not exists(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        return run_dir, is_new
    when = time.strftime("%Y%m%d-%H%M%S")
    name = f"{name}-{slug(str(settings.get('dataset', '')))}-seed{settings.get('seed', 0)}-{when}"
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path, True
        except FileExistsError:
            number += 1


def slug(name: str) -> str:
    """`path/to/my space.toml` -> `my_space`, `npz:/data/x.npz` -> `x`, `s1` -> `s1`."""
    stem = Path(name.partition(":")[2] or name).stem
    return shorten(re.sub(r"[^A-Za-z0-9_.]+", "_", stem), 60).replace("...", "") or "data"


def _is_ours_and_empty(name: str) -> bool:
    """Left by a run that was killed before it had written anything: still counts as an empty folder."""
    return name == LOCK_FILE or is_temporary(name)
