"""What becomes of jobs on a cluster whose machines come and go? With a stand-in for Ray, and with Ray itself."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import read_lines
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.sweep import connection as sweep_connection
from jaxdarts.runs.sweep.cluster import RayExecutor, _Cluster
from jaxdarts.runs.sweep.connection import check_resources
from jaxdarts.runs.sweep.jobs import Ended, Event, Job, Lost, Stage, Started
from jaxdarts.runs.sweep.worker import Place, Report
from jaxdarts.spaces.files import GENOTYPE_FILE
from jaxdarts.sweep import main
from tests.runs.comparing import without_times
from tests.test_sweep_command import states, sweep_file


class RayError(Exception):
    """As ray.exceptions.RayError."""


class RayTaskError(RayError):
    """As ray.exceptions.RayTaskError."""


class NodeDiedError(RayError):
    """As ray.exceptions.NodeDiedError."""


class StandIn:
    """What the executor uses of Ray, in this process: a task runs when it is waited for, `at_a_time` of them."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, answers: Callable[[str, int], Any], at_a_time: int = 1) -> None:
        self.answers, self.at_a_time = answers, at_a_time  # answers: what attempt `number` at a job comes to
        self.cancelled: list[Any] = []
        self.most = 0

    def remote(self, what: Any) -> Any:
        make = self._object if isinstance(what, type) else self._task
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *arguments: make(what, *arguments)))

    def _object(self, kind: type, *arguments: Any) -> Any:
        self.board = kind(*arguments)
        names = ("report", "hosts", "stop")
        return SimpleNamespace(
            **{n: SimpleNamespace(remote=lambda *given, n=n: getattr(self.board, n)(*given)) for n in names}
        )

    def _task(self, _: Any, job: Job, place: Place, key: str, board: Any) -> Any:
        return ("task", job, key)

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        if not (isinstance(reference, tuple) and reference[0] == "task"):
            return reference
        _, job, key = reference
        number = int(key.rpartition(" ")[2])
        if key not in self.board.hosts() and not self.board.report(key, "host"):
            return Report(Ended(job, "stopped", 0.0), "host")
        answer = self.answers(job.name, number)
        if isinstance(answer, Exception):
            raise answer
        return answer(job)

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        return references[: self.at_a_time], references[self.at_a_time :]

    def cancel(self, reference: Any, force: bool = False) -> None:
        self.cancelled.append(reference[1].name)

    def kill(self, board: Any) -> None:
        self.killed = board


def done(job: Job) -> Report:
    return Report(Ended(job, "done", 1.0), "host")


def failed(error: str, killed: bool = False) -> Callable[[Job], Report]:
    return lambda job: Report(Ended(job, "failed", 1.0, error), "host", killed)


def some_jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(name, (Stage(SearchConfig(), folder / name),), folder / "logs" / name) for name in names]


def told(events: Iterator[Event]) -> list[tuple[str, ...]]:
    """Name, kind and error of every event."""
    return [
        (event.job.name, "started")
        if isinstance(event, Started)
        else (event.job.name, "lost", event.error)
        if isinstance(event, Lost)
        else (event.job.name, event.outcome, *([event.error] if event.error else []))
        for event in events
    ]


def cluster(ray: StandIn, folder: Path, attempts: int = 3, jobs: int | None = None) -> _Cluster:
    return _Cluster(ray, 1, Place(folder, "word", folder, 0), attempts, jobs)


def test_a_lost_job_starts_again_and_a_failed_one_does_not(tmp_path: Path) -> None:
    def answers(name: str, number: int) -> Any:
        if name == "lost" and number < 3:
            return NodeDiedError("...") if number == 1 else failed("ended by SIGKILL", killed=True)
        if name == "hopeless":
            return NodeDiedError("...")
        return {"bad": failed("too large"), "broken": RayTaskError("disk full")}.get(name, done)

    jobs = some_jobs(tmp_path, "lost", "bad", "broken", "hopeless", "good")
    ray = StandIn(answers)
    events = told(cluster(ray, tmp_path).run(jobs, Interrupt()))
    by_name = {job.name: [event[1:] for event in events if event[0] == job.name] for job in jobs}
    gone = ("lost", "its machine is gone, on a machine")
    killed = ("lost", "ended by SIGKILL, on host")
    assert by_name["lost"] == [gone, ("started",), killed, ("started",), ("done",)]
    assert by_name["bad"] == [("started",), ("failed", "too large")]
    assert by_name["broken"] == [("failed", "disk full, on a machine")]
    assert by_name["hopeless"] == [gone, gone, ("failed", "its machine is gone, on a machine, attempt 3 of 3")]
    assert by_name["good"] == [("started",), ("done",)]


def test_no_more_at_a_time_than_asked_for(tmp_path: Path) -> None:
    ray = StandIn(lambda *_: done)
    events = told(cluster(ray, tmp_path, jobs=2).run(some_jobs(tmp_path, *"abcde"), Interrupt()))
    assert ray.most == 2 and [event[0] for event in events if event[1] == "done"] == list("abcde")


@pytest.mark.parametrize("last", [NodeDiedError("..."), failed("interrupted: saved", killed=True)])
def test_after_an_interrupt_nothing_begins_and_nothing_fails(tmp_path: Path, last: Any) -> None:
    ray, interrupt = StandIn(lambda *_: last), Interrupt()
    wait = ray.wait

    def begin(references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        if not interrupt.requested:
            ray.board.report("a 1", "host")
            interrupt.requested = True
            return [], references
        return wait(references, num_returns, timeout)

    ray.wait = begin  # type: ignore[method-assign]
    jobs = some_jobs(tmp_path, "a", "b", "c")
    assert told(cluster(ray, tmp_path).run(jobs, interrupt)) == [("a", "started"), ("a", "stopped")]
    assert sorted(ray.cancelled) == ["b", "c"]


def test_a_machine_that_joins_without_the_folder_ends_the_sweep(tmp_path: Path) -> None:
    def answers(name: str, number: int) -> Any:
        return lambda job: Report(Ended(job, "stopped", 0.0), "host", unusable="host does not see the sweep's folder")

    events = cluster(StandIn(answers), tmp_path).run(some_jobs(tmp_path, "a", "b"), Interrupt())
    seen = []
    with pytest.raises(InputError, match="machine host does not see the sweep's folder; .*same command continues"):
        for event in events:
            seen.append(event)
    assert told(iter(seen)) == [("a", "started"), ("a", "stopped")]


@pytest.mark.filterwarnings("error")
def test_a_run_that_fits_nowhere_is_warned_of() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert check_resources(nodes, 4, 0) == nodes[:2] and check_resources(nodes, 1, 0.5) == nodes[1:2]
    with pytest.warns(UserWarning, match="no machine of the cluster has 16 CPUs and 0 GPUs .* at most 8 and 1;"):
        assert check_resources(nodes, 16, 0) == []


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cluster", "auto", "--attempts", "0"], "attempts must be at least 1; got 0"),
        (["--cluster", "auto", "--jobs", "0"], "jobs must be at least 1; got 0"),
        (["--cluster", "auto", "--gpus-per-run", "-1"], "gpus_per_run must be 0 or more; got -1"),
        (["--cluster", "auto", "--gpus-per-run", "1.5"], "gpus_per_run above 1 must be a whole number; got 1.5"),
        (["--cluster", "auto", "--cpus-per-run", "nan"], "cpus_per_run must be 0 or more; got nan"),
        (["--attempts", "2"], "attempts: only with --cluster ADDRESS"),
        (["--cluster", "local"], "cluster must be the address of a cluster that runs; got 'local'"),
        (["--cluster", "nonsense"], "cluster must be an address; got 'nonsense'"),
        (["--cluster", "host:99999"], "cluster must be an address; got 'host:99999'"),
        (["--cluster", "127.0.0.1:PORT"], "cluster: nothing answers at '127.0.0.1:"),
        (["--cluster", "ray://127.0.0.1:PORT"], "cluster: nothing answers at 'ray://127.0.0.1:"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setattr("jaxdarts.runs.sweep.cluster.load_ray", lambda: stand_in)
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text("[grid]\nseed = [0]\n")
    monkeypatch.setattr(sweep_connection, "_probe", lambda address: pytest.fail("would wait for Ray to give up"))
    assert main(["sweep.toml", *(flag.replace("PORT", str(free_port())) for flag in flags)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"cluster needs the package ray: pip install 'jaxdarts\[cluster\]'"):
        RayExecutor("auto")


@pytest.mark.parametrize(("failures", "connects"), [(0, True), (3, True), (4, False)])
def test_a_client_server_that_dies_at_its_start_is_asked_for_again(
    failures: int, connects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def init(address: str, **_: object) -> None:
        calls.append(address)
        if len(calls) <= failures:
            raise ConnectionAbortedError(
                "Initialization failure from server:\nStarting Ray client server failed. See x"
            )

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setattr(sweep_connection, "_check_reachable", lambda address: None)
    monkeypatch.setattr(sweep_connection, "_PROBE", "")
    if connects:
        sweep_connection.connect(ray, "ray://host:10001")
    else:
        with pytest.raises(InputError, match="cannot connect to 'ray://host:10001': .* Starting Ray client"):
            sweep_connection.connect(ray, "ray://host:10001")
    assert calls == ["ray://host:10001"] * min(failures + 1, 4)


def test_what_ray_says_is_passed_on_and_a_silent_address_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimpleNamespace(is_initialized=lambda: False)
    said = "import sys; sys.exit('PROBE Version mismatch: the cluster was started with Python: 3.12.1')"
    monkeypatch.setattr(sweep_connection, "_PROBE", said)
    with pytest.raises(InputError, match="cannot connect to 'auto': Version mismatch: .*Python: 3.12.1; give auto"):
        sweep_connection.connect(ray, "auto")
    monkeypatch.setattr(sweep_connection, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(sweep_connection, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(InputError, match="no Ray cluster answers at 'auto'"):
        sweep_connection.connect(ray, "auto")


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@pytest.mark.slow  # starts a cluster, and needs the extra `cluster`
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_machine_is_lost_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    file = sweep_file(tmp_path)
    text = file.read_text().replace("[10, 1000]", "[10]")
    file.write_text(text.replace("epochs = 2\n", "epochs = 25\n", 1) if "epochs" in text.split("[evaluate]")[0] else
                    text.replace("[search]\n", "[search]\nepochs = 25\n"))  # fmt: skip
    small: dict[str, Any] = {"object_store_memory": 80_000_000}
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        nodes = [machines.add_node(num_cpus=1, **small) for _ in range(2)]
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        command = [sys.executable, "-m", "jaxdarts.sweep", str(file)]
        run = tmp_path / "runs/tiny_sweep/batch_size_10"
        process = subprocess.Popen(
            [*command, "--cluster", machines.address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        until = time.monotonic() + 240
        while not (run / "metrics.jsonl").is_file() or len(read_lines(run / "metrics.jsonl")) < 3:
            assert process.poll() is None and time.monotonic() < until, process.communicate(timeout=60)
            time.sleep(0.02)
        worker = int((run / "lock").read_text())
        (raylet,) = [pid for pid in raylets if worker in descendants(pid)]
        for pid in descendants(raylet):  # as if its machine had lost power
            os.kill(pid, signal.SIGKILL)
        assert not (run / GENOTYPE_FILE).exists()
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert "lost     batch_size_10: " in output and "goes on from its last checkpoint" in output, output
        assert states(run.parent) == {"batch_size_10": ("done", None)}
        assert not (run.parent / ".shared").exists()
        # Nothing is left to do, and nothing is done.
        before = (run / "metrics.jsonl").stat().st_mtime_ns
        assert main([str(file), "--cluster", machines.address]) == 0
        assert "0 to do" in capsys.readouterr().out and (run / "metrics.jsonl").stat().st_mtime_ns == before
    finally:
        machines.shutdown()
    assert main([str(file), "--sweep-dir", "undisturbed"]) == 0
    undisturbed = tmp_path / "undisturbed/batch_size_10"
    for name in (GENOTYPE_FILE, "diagnostics.json", "evaluate/result.json"):
        assert (run / name).read_text() == (undisturbed / name).read_text(), name
    for name in ("metrics.jsonl", "evaluate/metrics.jsonl"):
        assert without_times(read_lines(run / name)) == without_times(read_lines(undisturbed / name))
