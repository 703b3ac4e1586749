"""Where do the files of a run and of its stages lie, who writes them, and what stays of them when the run goes on?

The only place that writes: config.json, metrics.jsonl, checkpoints, and whatever a stage hands over by name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.errors import RunError, one_line_errors
from jaxdarts.json_files import append_line, as_json, keep_lines, read_lines, to_text, write_atomically
from jaxdarts.paths import is_file
from jaxdarts.runs import tensorboard
from jaxdarts.runs.checkpoint import Checkpoints, Restored
from jaxdarts.runs.config_json import CONFIG_FILE, RECORDED_BY_ALL, read_config
from jaxdarts.runs.processes import is_first, restore_in_all, shared_records

METRICS_FILE, EVENTS_FILE, CHECKPOINT_FOLDER = "metrics.jsonl", "events.json", "checkpoints"


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
