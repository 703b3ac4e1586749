"""What happens to a sweep's run on a machine of a cluster?"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from jaxdarts.runs.exit_codes import INTERRUPTED
from jaxdarts.runs.sweep.jobs import POLL_SECONDS, Ended, Job, JobProcess, Stage

TOKEN_FILE = ".shared"  # in the sweep's folder while a cluster works on it; holds a random word
_ASK_SECONDS = 1.0
# A file server may take some time to show a new file to other machines.
_PATIENCE_SECONDS = 15.0
# The share of a GPU's memory that JAX takes where nothing else is said.
_JAX_MEMORY_SHARE = 0.75
# Runs a command that gets SIGTERM, and so saves its state, when the process that started it ends in whatever way.
# In Python's own process, for between fork and exec of a process with threads no Python code may run.
_DIES_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit('the worker has ended'); os.execv(sys.argv[2], sys.argv[2:])"
)


class Place(NamedTuple):
    """What a worker has to know besides the job."""

    folder: Path  # of the sweep, absolute
    token: str  # what TOKEN_FILE in it must hold
    cwd: Path  # where the sweep was started: what relative paths in a configuration mean
    gpus: float  # for a run


class Report(NamedTuple):
    """How an attempt at a job ended on a worker."""

    ended: Ended
    host: str
    killed: bool = False  # from outside: an attempt elsewhere may succeed
    unusable: str | None = None  # why no run can work on this machine


class Board:
    """Who works on what, and whether the sweep goes on: one object in a cluster, which all workers ask every second.

    It forgets nothing that they would not tell again, so that it may be moved or restarted.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, str] = {}
        self._stopping = False

    def report(self, attempt: str, host: str) -> bool:
        """Says that `host` is about to begin, or works on, an attempt; whether it should."""
        if not self._stopping:
            self._hosts[attempt] = host
        return not self._stopping

    def hosts(self) -> dict[str, str]:
        """The host of every attempt that has begun."""
        return self._hosts

    def stop(self) -> dict[str, str]:
        """From now on nothing begins, and what runs saves and ends. Returns `hosts`."""
        self._stopping = True
        return self._hosts


def work(job: Job, place: Place, goes_on: Callable[[str], bool]) -> Report:
    """Runs what is left of a job in processes on this machine until it ends or `goes_on(host)` says no.

    A run whose folder is in use, by a process that has not noticed yet that its worker is gone, is waited for.
    """
    host = socket.gethostname()
    # In a thread, for a task whose main thread waits for an answer would lend its CPUs to another one for good.
    with ThreadPoolExecutor(1) as asker:
        if not asker.submit(goes_on, host).result():
            return Report(Ended(job, "stopped", 0.0), host)
        unusable = unseen(place)
        if unusable is not None:
            return Report(Ended(job, "stopped", 0.0), host, unusable=f"{host} {unusable}")
        launcher = [sys.executable, "-c", _DIES_WITH_PARENT, str(os.getpid())] if sys.platform == "linux" else []
        cwd = place.cwd if place.cwd.is_dir() else place.folder
        process = JobProcess(job, run_environment(place.gpus, os.environ), launcher, cwd)
        try:
            answer: Future[bool] | None = None
            asked = time.monotonic()
            while (ended := process.poll()) is None:
                time.sleep(POLL_SECONDS)
                if answer is not None and answer.done():
                    if not answer.result():
                        process.stop()
                    answer, asked = None, time.monotonic()
                if answer is None and time.monotonic() - asked > _ASK_SECONDS:
                    answer = asker.submit(goes_on, host)
        finally:
            process.stop()
    code = process.exit_code
    # A machine that is shut down, or taken away, sends SIGTERM to everybody: the run has saved.
    killed = ended.outcome == "failed" and code is not None and (code < 0 or code == INTERRUPTED)
    return Report(ended, host, killed)


def run_environment(gpus: float, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run that has this many GPUs; what the machine sets itself stays."""
    environment = dict(inherited)
    if 0 < gpus < 1:  # else the first of the runs that share a GPU would take three quarters of its memory
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{_JAX_MEMORY_SHARE * gpus:.3f}")
    return environment


def unseen(place: Place, patience: float = _PATIENCE_SECONDS) -> str | None:
    """What is wrong if this machine does not see the sweep's folder, or sees another one of this name; else None."""
    until = time.monotonic() + patience
    while True:
        try:
            os.listdir(place.folder)  # makes a network file system look again
            found = (place.folder / TOKEN_FILE).read_text() == place.token
        except OSError:
            found = False
        if found:
            return None
        if time.monotonic() > until:
            return f"does not see the sweep's folder {str(place.folder)!r}"
        time.sleep(0.5)


def make_inspection() -> Callable[[], tuple[str, dict[str, str | None]]]:
    """A function that tells a machine's name and the versions it has, without needing anything installed there.

    It is a closure because those are sent as code, not as a name to be imported.
    """

    def inspect() -> tuple[str, dict[str, str | None]]:
        import importlib.metadata as metadata
        import socket as sockets

        versions: dict[str, str | None] = {}
        for name in ("jaxdarts", "jax"):
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        return sockets.gethostname(), versions

    return inspect


def absolute(job: Job) -> Job:
    """The job with absolute paths, for a process that was started elsewhere."""
    stages = []
    for config, folder in job.stages:
        if config.command == "evaluate":
            config = config.replace(genotype=os.path.abspath(config.genotype))
        stages.append(Stage(config, folder.absolute()))
    return Job(job.name, tuple(stages), job.log.absolute())
