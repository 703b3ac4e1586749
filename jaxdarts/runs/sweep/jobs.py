"""How are a sweep's runs carried out, several at a time, each in its own process?"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from jaxdarts.plans.evaluate import RESULT_FILE
from jaxdarts.runs.config_json import CONFIG_FILE, read_config
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.lock import is_in_use
from jaxdarts.runs.sweep.file import SweepPoint
from jaxdarts.runs.sweep.states import EVALUATE_FOLDER
from jaxdarts.settings import Settings
from jaxdarts.spaces.files import GENOTYPE_FILE

POLL_SECONDS = 0.1


class Stage(NamedTuple):
    """A search or an evaluation of a job; what its folder holds says how far it is."""

    config: Settings
    folder: Path

    @property
    def is_finished(self) -> bool:
        """Whether it has its result."""
        return (self.folder / (RESULT_FILE if self.config.command == "evaluate" else GENOTYPE_FILE)).is_file()

    def arguments(self) -> list[str]:
        """The command line behind `python`: a new run or, if there is one in the folder, its continuation."""
        config, resume = self.config, (self.folder / CONFIG_FILE).is_file()
        flags = []
        for name, value in config.given.items():
            flag = name.replace("_", "-")
            if name == "genotype" and resume:
                continue
            if isinstance(value, bool):
                flags.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                flags.append(f"--{flag}={'none' if value is None else value}")
        tail = ["--resume"] if resume else []
        return ["-m", f"jaxdarts.{config.command}", "--run-dir", str(self.folder), *flags, *tail]

    def recorded(self) -> Settings:
        """The settings with the genotype's path as a run in the folder recorded it: the sweep may have moved."""
        if self.config.command != "evaluate":
            return self.config
        return self.config.replace(genotype=read_config(self.folder)["genotype"])


class Job(NamedTuple):
    """One run of a sweep: its stages in order, and the file that gets what they print."""

    name: str
    stages: tuple[Stage, ...]
    log: Path

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return all(stage.is_finished for stage in self.stages)


class Started(NamedTuple):
    """A job has begun, or goes on."""

    job: Job


class Ended(NamedTuple):
    """A job will not go on in this sweep. `error` says in one line why it failed."""

    job: Job
    outcome: Literal["done", "failed", "stopped"]
    seconds: float
    error: str | None = None


class Lost(NamedTuple):
    """A started job has lost its machine or was killed from outside, which `error` tells; it will start again."""

    job: Job
    seconds: float
    error: str


Event = Started | Ended | Lost


class Executor(Protocol):
    """Where jobs run. One for other machines needs `Stage.arguments` and a folder that all of them see."""

    def prepare(self, sweep_dir: Path) -> None:
        """Called once before `run`, when nothing has been written. Raises InputError if jobs could not run."""

    def run(self, jobs: Sequence[Job], interrupt: Interrupt) -> Iterator[Event]:
        """Runs all unfinished stages and says what happens; after a requested interrupt all running jobs save and end.

        Every job that was started ends; those that an interrupt kept from starting are not mentioned.
        """


def make_job(point: SweepPoint, sweep_dir: Path) -> Job:
    """The search of a point and, if it asks for one, the evaluation."""
    folder = sweep_dir / point.name
    stages = [Stage(point.search, folder)]
    if point.evaluate is not None:
        stages.append(Stage(point.evaluate.replace(genotype=str(folder)), folder / EVALUATE_FOLDER))
    return Job(point.name, tuple(stages), sweep_dir / "logs" / f"{point.name}.txt")


class LocalExecutor:
    """Processes on this machine, `jobs` at a time.

    They are process groups of their own, so that Ctrl-C reaches them once, through this one. A run whose folder is in
    use, by a process that outlived an earlier sweep, is waited for and then continued.
    """

    def __init__(self, jobs: int = 1) -> None:
        self._jobs = jobs

    def prepare(self, sweep_dir: Path) -> None:
        """Nothing: there is nothing to connect to."""

    def run(self, jobs: Sequence[Job], interrupt: Interrupt) -> Iterator[Event]:
        """As `Executor.run`."""
        waiting, running = deque(jobs), list[JobProcess]()
        # On a GPU the first process would otherwise take three quarters of the memory.
        extra = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if self._jobs > 1 else {}
        interrupt.at_once = lambda: _kill(running)
        try:
            while running or (waiting and not interrupt.requested):
                while waiting and len(running) < self._jobs and not interrupt.requested:
                    running.append(JobProcess(waiting.popleft(), extra | dict(os.environ)))
                    yield Started(running[-1].job)
                for one in list(running):
                    if interrupt.requested:
                        one.stop()
                    ended = one.poll()
                    if ended is not None:
                        running.remove(one)
                        yield ended
                time.sleep(POLL_SECONDS)
        finally:
            interrupt.at_once = None
            for one in running:
                one.stop()


class JobProcess:
    """A job between its first process and its end.

    Its processes have this environment, are started by the command `launcher`, which their own follows, and in `cwd`.
    """

    def __init__(
        self, job: Job, environment: dict[str, str], launcher: Sequence[str] = (), cwd: Path | None = None
    ) -> None:
        self.job, self._environment, self._launcher, self._cwd = job, environment, launcher, cwd
        self.exit_code: int | None = None  # of the last process that ended; negative: the signal that killed it
        self._process: subprocess.Popen[bytes] | None = None
        self._since, self._log_start, self._stopping = time.monotonic(), 0, False

    def poll(self) -> Ended | None:
        """Starts the next stage where one has ended; None while there is something left to wait for."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return None
            self._process, self.exit_code = None, code
            stage = self._stage
            if not stage.is_finished:
                if self._stopping:
                    return self._end("stopped")
                return self._end("failed", self._error(code))
        left = next((stage for stage in self.job.stages if not stage.is_finished), None)
        if left is None:
            return self._end("done")
        if self._stopping:
            return self._end("stopped")
        if not is_in_use(left.folder):
            self._start(left)
        return None

    def stop(self) -> None:
        """Asks the process, once, to save and end."""
        if not self._stopping and self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._stopping = True

    def kill(self) -> bool:
        """Ends the process at once, with what it has started; whether there was one."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return True

    def _start(self, stage: Stage) -> None:
        self._stage = stage
        self.job.log.parent.mkdir(exist_ok=True)
        with open(self.job.log, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [*self._launcher, sys.executable, *stage.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                process_group=0,
            )

    def _end(self, outcome: Literal["done", "failed", "stopped"], error: str | None = None) -> Ended:
        return Ended(self.job, outcome, time.monotonic() - self._since, error)

    def _error(self, code: int) -> str:
        """The line with which a command says what went wrong; else its last, and how it ended."""
        with open(self.job.log, "rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(("error: ", "interrupted: "))]
        if said:
            return said[-1].removeprefix("error: ")
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{lines[-1]} ({how})" if lines and code >= 0 else how


def _kill(running: Sequence[JobProcess]) -> str:
    killed = sum([one.kill() for one in list(running)])
    return f"ended at once with {killed} runs; the same command continues them from their last checkpoints"
