"""How does a sweep go from its file to its tables, and go on after it was stopped?"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxdarts.errors import InputError, RunError, RunInterrupted, one_line_errors, unknown_choice
from jaxdarts.json_files import write_atomically
from jaxdarts.paths import exists, is_file, is_folder
from jaxdarts.runs.config_json import CHANGEABLE, CONFIG_FILE, check_same_settings
from jaxdarts.runs.folder import check_resumable, check_spelling
from jaxdarts.runs.interrupt import catch_interrupts
from jaxdarts.runs.lock import LOCK_FILE, lock_folder
from jaxdarts.runs.messages import Messages, say
from jaxdarts.runs.progress import format_seconds
from jaxdarts.runs.sweep.file import VARIANT, Sweep, read_sweep
from jaxdarts.runs.sweep.jobs import Ended, Executor, Job, LocalExecutor, Lost, Started, make_job
from jaxdarts.runs.sweep.states import SWEEP_FILE, read_states


class SweepResult(NamedTuple):
    """How a sweep ended."""

    sweep_dir: Path
    states: Mapping[str, Mapping[str, Any]]  # of every run by its name, as in sweep.json


def run_sweep(
    path: str | Path,
    sweep_dir: str | Path | None = None,
    *,
    jobs: int = 1,
    retry: bool = False,
    variants: Collection[str] | None = None,
    executor: Executor | None = None,
    stream: TextIO | None = None,
    told: Callable[[Path], list[str]] = lambda folder: [],
    on_result: Callable[[Path], object] = lambda folder: None,
) -> SweepResult:
    """All runs of a sweep file that have not finished yet, then the tables.

    Args:
      path: the sweep file, see `read_sweep`.
      sweep_dir: where the runs' folders go; None: `runs/` and the file's name.
      jobs: how many runs at a time, where no executor is given.
      retry: also continue the runs that failed earlier.
      variants: carry out only the runs of these variants of the file now; None: all runs.
      executor: where they run, e.g. a `RayExecutor`; None: `LocalExecutor(jobs)`.
      stream: where progress is shown; standard output if None.
      told: what is worth telling of the folder of a run that has finished.
      on_result: writes the sweep's tables, from its folder.

    Raises:
      InputError: something given cannot be used, or a run in the folder has another configuration; nothing was started.
      RunInterrupted: SIGINT or SIGTERM came; the running ones saved their state first.
      RunError: sweep.json or a table could not be written. A run that fails raises nothing.
    """
    if jobs < 1:
        raise InputError(f"jobs must be at least 1; got {jobs}")
    sweep = read_sweep(path)
    known = list(sweep.tables.get("variants", {}))
    if variants and not known:
        raise InputError(f"variants: {str(path)!r} has none; got {', '.join(variants)}")
    for name in variants or ():
        if name not in known:
            raise unknown_choice("variant", name, known)
    folder = (
        Path("runs") / (re.sub(r"[^A-Za-z0-9_.-]+", "_", sweep.path.stem)) if sweep_dir is None else Path(sweep_dir)
    )
    all_jobs = [make_job(point, folder) for point in sweep.points]
    _check_folder(folder, all_jobs)
    executor = executor or LocalExecutor(jobs)
    executor.prepare(folder)
    with one_line_errors("create the sweep's folder", folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder, "sweep_dir")
    try:
        return _Sweep(sweep, folder, all_jobs, retry, variants, Messages(stream), told, on_result).run(executor)
    finally:
        if lock is not None:
            os.close(lock)


def _check_folder(folder: Path, jobs: list[Job]) -> None:
    """Refuses a folder that is no sweep's, and runs in it that are not those of the file."""
    check_spelling(folder, "sweep_dir")
    if exists(folder) and not is_folder(folder):
        raise InputError(f"sweep_dir must be a folder; {str(folder)!r} is a file")
    if is_folder(folder) and not is_file(folder / SWEEP_FILE):
        content = [
            entry.name for entry in folder.iterdir() if entry.name != LOCK_FILE and not entry.name.startswith(".")
        ]
        if content:
            raise InputError(f"sweep_dir: {str(folder)!r} holds other files; choose a folder that is empty or new")
    for job in jobs:
        for stage in job.stages:
            if (stage.folder / CONFIG_FILE).is_file():
                recorded = check_resumable(stage.folder, stage.config.command)
                check_same_settings(stage.recorded().flat(), recorded, stage.folder, CHANGEABLE)


class _Sweep:
    """A sweep while it holds its folder."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        jobs: list[Job],
        retry: bool,
        variants: Collection[str] | None,
        stream: Messages,
        told: Callable[[Path], list[str]],
        on_result: Callable[[Path], object],
    ) -> None:
        self.told, self.on_result = told, on_result
        self.sweep, self.folder, self.jobs, self.stream = sweep, folder, jobs, stream
        self.chosen = [
            job for point, job in zip(sweep.points, jobs, strict=True)
            if variants is None or point.values[VARIANT] in variants
        ]  # fmt: skip
        earlier = read_states(folder) if (folder / SWEEP_FILE).is_file() else {}
        self.states: dict[str, dict[str, Any]] = {}
        for job in jobs:
            before = earlier.get(job.name, {})
            failed = before.get("state") == "failed" and not job.is_finished and not retry
            state = "done" if job.is_finished else "failed" if failed else "pending"
            error = before.get("error") if failed else None
            self.states[job.name] = {"state": state, "error": error, "seconds": before.get("seconds", 0.0)}

    def run(self, executor: Executor) -> SweepResult:
        """Until nothing is left to do of the chosen variants."""
        left = [job for job in self.chosen if self.states[job.name]["state"] == "pending"]
        counts = [f"{len(self.jobs)} runs", f"{len(left)} to do"]
        if len(self.chosen) < len(self.jobs):
            counts.insert(1, f"{len(self.chosen)} of the chosen variants")
        failed_before = self._count("failed")
        counts += [f"{failed_before} failed before (--retry runs them again)"] if failed_before else []
        self._say(f"sweep {self.sweep.path} in {self.folder}: {', '.join(counts)}")
        self._write()
        times: list[float] = []
        with catch_interrupts() as interrupt:
            for event in executor.run(left, interrupt):
                if isinstance(event, Started):
                    self.states[event.job.name]["state"] = "running"
                elif isinstance(event, Lost):
                    self._lost(event)
                else:
                    self._ended(event, times)
                self._write()
        if any(entry["state"] == "done" for entry in self.states.values()):
            self.on_result(self.folder)
        if interrupt.requested and self._count("pending"):
            raise RunInterrupted(f"{self._count('pending')} runs are left; the same command continues them")
        return SweepResult(self.folder, self.states)

    def _lost(self, event: Lost) -> None:
        state = self.states[event.job.name]
        state["state"], state["seconds"] = "pending", state["seconds"] + event.seconds
        self._say(f"lost     {event.job.name}: {event.error}; it goes on from its last checkpoint")

    def _ended(self, event: Ended, times: list[float]) -> None:
        state = self.states[event.job.name]
        at_a_time = max(1, self._count("running"))
        state["state"] = "pending" if event.outcome == "stopped" else event.outcome
        state["error"], state["seconds"] = event.error, state["seconds"] + event.seconds
        if event.outcome == "stopped":
            self._say(f"stopped  {event.job.name}")
            return
        if event.outcome == "done":
            times.append(event.seconds)
        left = self._count("pending") + self._count("running")
        parts = [f"{len(self.chosen) - left}/{len(self.chosen)}", event.job.name]
        if event.error is not None:
            parts.append(f"failed: {event.error} ({event.job.log})")
        else:
            parts += self.told(event.job.stages[0].folder)
        parts.append(f"in {format_seconds(event.seconds)}")
        if left and times:
            # Those that run now are counted whole: a guess on the safe side.
            rounds = max(1.0, left / at_a_time)
            parts.append(f"{format_seconds(sum(times) / len(times) * rounds)} left")
        self._say("  ".join(parts))

    def _count(self, state: str) -> int:
        """How many of the chosen runs are in this state."""
        return sum(self.states[job.name]["state"] == state for job in self.chosen)

    def _say(self, text: str) -> None:
        say(text, self.stream)

    def _write(self) -> None:
        runs = [
            {
                "name": job.name,
                "values": dict(point.values),
                **self.states[job.name],
                "commands": [shlex.join(["python", *stage.arguments()]) for stage in job.stages],
            }
            for point, job in zip(self.sweep.points, self.jobs, strict=True)
        ]
        content = {"file": str(self.sweep.path), **self.sweep.tables, "fields": self.sweep.fields, "runs": runs}
        with one_line_errors("write", self.folder / SWEEP_FILE):
            write_atomically(self.folder / SWEEP_FILE, json.dumps(content, indent=2, default=str) + "\n")


def raise_for_failures(result: SweepResult) -> None:
    """Raises RunError if a run of the sweep failed, in this call or an earlier one."""
    failed = [name for name, entry in result.states.items() if entry["state"] == "failed"]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(result.states)} runs failed, the first of them {failed[0]}; "
            f"see {result.sweep_dir / SWEEP_FILE}, and --retry continues them"
        )
