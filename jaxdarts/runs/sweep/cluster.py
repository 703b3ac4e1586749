"""How are a sweep's runs carried out on the machines of a Ray cluster?"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, RunError, one_line_errors
from jaxdarts.json_files import write_atomically
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.sweep.connection import check_machines, check_resources, connect, load_ray
from jaxdarts.runs.sweep.jobs import Ended, Event, Job, Lost, Started
from jaxdarts.runs.sweep.worker import TOKEN_FILE, Board, Place, Report, absolute, work

_WAIT_SECONDS = 0.5
_ANSWER_SECONDS = 60.0
# Every head node has this resource: the board stays where the cluster itself would end.
_HEAD = {"node:__internal_head__": 0.001}


class RayExecutor:
    """The machines of a Ray cluster, as many runs at a time as fit.

    A run is a task that starts the same processes as `LocalExecutor` does, on whatever machine Ray chooses. Where the
    machine is gone, or the run was killed from outside, it goes on elsewhere from its last checkpoint. The sweep's
    folder has to be on a file system that all machines share, and jaxdarts installed on them.

    Args:
      address: of a cluster that runs: `auto`, `HOST:PORT` or `ray://HOST:PORT`.
      cpus_per_run: how many CPUs Ray sets aside for a run.
      gpus_per_run: GPUs for a run, which sees no others; a part of one below 1, of whose memory the run takes that
        part of what JAX would take alone. None: 1 if the cluster has GPUs, else 0.
      attempts: how often a run is started before its loss is a failure. One that fails by itself is not repeated.
      jobs: how many runs at a time at most; None: what fits.

    Raises:
      InputError: a number is not possible, or Ray is not installed.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        cpus_per_run: float = 1,
        gpus_per_run: float | None = None,
        attempts: int = 3,
        jobs: int | None = None,
    ) -> None:
        for name, value in (("cpus_per_run", cpus_per_run), ("gpus_per_run", gpus_per_run)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} must be 0 or more; got {value}")
            if value is not None and value > 1 and value != int(value):
                raise InputError(f"{name} above 1 must be a whole number; got {value}")
        for name, count in (("attempts", attempts), ("jobs", jobs)):
            if count is not None and count < 1:
                raise InputError(f"{name} must be at least 1; got {count}")
        self._address, self._cpus, self._gpus = address, cpus_per_run, gpus_per_run
        self._attempts, self._jobs = attempts, jobs
        self._ray = load_ray()
        self._folder, self._is_ours = Path(), False

    def prepare(self, sweep_dir: Path) -> None:
        """As `Executor.prepare`: connects to the cluster, for good if it was connected before."""
        self._folder = sweep_dir.absolute()
        self._is_ours = not self._ray.is_initialized()
        connect(self._ray, self._address)

    def run(self, jobs: Sequence[Job], interrupt: Interrupt) -> Iterator[Event]:
        """As `Executor.run`.

        Raises:
          InputError: a machine does not see the sweep's folder; what was running has saved.
          RunError: the cluster does not answer any more. The runs on it save and end by themselves.
        """
        token = self._folder / TOKEN_FILE
        try:
            if not jobs:
                return
            gpus = self._gpus
            if gpus is None:
                gpus = 1 if self._ray.cluster_resources().get("GPU", 0) else 0
            place = Place(self._folder, uuid.uuid4().hex, Path.cwd(), gpus)
            with one_line_errors("write", token):
                write_atomically(token, place.token)
            check_machines(self._ray, check_resources(self._ray.nodes(), self._cpus, gpus), place)
            yield from _Cluster(self._ray, self._cpus, place, self._attempts, self._jobs).run(jobs, interrupt)
        finally:
            token.unlink(missing_ok=True)
            if self._is_ours:
                self._ray.shutdown()


class _Attempt:
    """A job handed to the cluster, which has begun or not."""

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.number = job, number
        self.key = f"{job.name} {number}"
        self.host: str | None = None  # None: it has not begun
        self.since = time.monotonic()


class _Cluster:
    """A connected cluster while it works on a sweep's jobs."""

    def __init__(self, ray: Any, cpus: float, place: Place, attempts: int, jobs: int | None) -> None:
        self._ray, self._attempts, self._most, self._place = ray, attempts, jobs, place
        self._board = (
            ray.remote(Board)
            .options(num_cpus=0, resources=_HEAD, max_restarts=-1, max_task_retries=-1)
            .remote()
        )  # fmt: skip

        def attend(job: Job, place: Place, key: str, board: Any) -> Report:
            import ray

            return work(job, place, lambda host: ray.get(board.report.remote(key, host)))

        # Runs last for hours: spread out they share memory and disks best. Ray's own retries would go unseen.
        self._task = ray.remote(attend).options(
            num_cpus=cpus, num_gpus=place.gpus, max_retries=0, scheduling_strategy="SPREAD"
        )
        self._running: dict[Any, _Attempt] = {}  # by reference

    def run(self, jobs: Sequence[Job], interrupt: Interrupt) -> Iterator[Event]:
        """As `RayExecutor.run`."""
        waiting, unusable = deque((job, 1) for job in jobs), None
        interrupt.at_once = lambda: f"ended at once; the cluster ends {len(self._running)} runs when it notices"
        try:
            while self._running or (waiting and not interrupt.requested and unusable is None):
                stopping = interrupt.requested or unusable is not None
                while waiting and not stopping and (self._most is None or len(self._running) < self._most):
                    self._submit(*waiting.popleft())
                for attempt in self._begun(stopping):
                    yield Started(attempt.job)
                if stopping:  # what has not begun by now will not begin
                    for reference in [r for r, attempt in self._running.items() if attempt.host is None]:
                        self._ray.cancel(reference, force=True)
                        del self._running[reference]
                for attempt, result in self._ended():
                    if isinstance(result, Report):
                        unusable = unusable or result.unusable
                        if attempt.host is None and not stopping:
                            yield Started(attempt.job)
                    yield from self._judge(attempt, result, stopping or unusable is not None, waiting)
            if unusable is not None:
                raise InputError(f"cluster: machine {unusable}; all others have saved, the same command continues")
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.kill(self._board)
                for reference in self._running:
                    self._ray.cancel(reference)

    def _submit(self, job: Job, number: int) -> None:
        attempt = _Attempt(job, number)
        self._running[self._task.remote(absolute(job), self._place, attempt.key, self._board)] = attempt

    def _begun(self, stopping: bool) -> Iterator[_Attempt]:
        """The attempts that have begun since the last call; if `stopping`, all are told to save and end."""
        method = self._board.stop if stopping else self._board.hosts
        try:
            hosts = self._ray.get(method.remote(), timeout=_ANSWER_SECONDS)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise RunError(f"cluster: {self._place.folder}: the cluster does not answer any more: {error}") from error
        for attempt in self._running.values():
            if attempt.host is None and attempt.key in hosts:
                attempt.host, attempt.since = hosts[attempt.key], time.monotonic()
                yield attempt

    def _ended(self) -> Iterator[tuple[_Attempt, Report | Exception]]:
        """The attempts that have ended, each with what its worker says, or why that says nothing."""
        references = list(self._running)
        if not references:
            return
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=_WAIT_SECONDS)
        for reference in ready:
            attempt = self._running.pop(reference)
            try:
                yield attempt, self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                yield attempt, error

    def _judge(
        self, attempt: _Attempt, result: Report | Exception, stopping: bool, waiting: deque[tuple[Job, int]]
    ) -> Iterator[Event]:
        """What is told of an attempt that has ended; one that was lost goes back among those that wait."""
        job, seconds = attempt.job, time.monotonic() - attempt.since
        if isinstance(result, Report):
            error, host, again = result.ended.error, result.host, result.killed
            if not again:
                yield result.ended._replace(job=job)
                return
        else:
            again = not isinstance(result, self._ray.exceptions.RayTaskError)  # else our own code failed there
            error, host = _reason(result), attempt.host or "a machine"
        if stopping and again:
            yield Ended(job, "stopped", seconds)
        elif again and attempt.number < self._attempts:
            waiting.append((job, attempt.number + 1))
            yield Lost(job, seconds, f"{error}, on {host}")
        else:
            times = f", attempt {attempt.number} of {self._attempts}" if again else ""
            yield Ended(job, "failed", seconds, f"{error}, on {host}{times}")


def _reason(error: Exception) -> str:
    """What Ray says of a lost task, in a few words."""
    known = {
        "OutOfMemoryError": "its worker was ended because memory ran out",
        "NodeDiedError": "its machine is gone",
        "LocalRayletDiedError": "its machine is gone",
        "WorkerCrashedError": "its worker is gone",
    }
    for kind in type(error).__mro__:
        if kind.__name__ in known:
            return known[kind.__name__]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
