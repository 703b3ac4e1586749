"""What does a machine of a cluster do with a job, seen without a cluster?"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdarts.plans.training_settings import EvaluateConfig
from jaxdarts.runs.sweep import worker as sweep_worker
from jaxdarts.runs.sweep.jobs import Job, Stage
from jaxdarts.runs.sweep.worker import Board, Place, absolute, make_inspection, run_environment, unseen, work
from tests.runs.test_sweep_jobs import SCRIPTS, jobs

ASKS = "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); print('on'); time.sleep(60)"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / sweep_worker.TOKEN_FILE).write_text("word")
    return Place(tmp_path, "word", tmp_path, 0)


@pytest.mark.parametrize(
    ("name", "outcome", "killed"),
    [
        ("finishes", "done", False),
        ("says_why", "failed", False),
        ("is_killed", "failed", True),
        ("shut", "failed", True),
    ],
)
def test_a_run_killed_from_outside_is_told_from_one_that_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, outcome: str, killed: bool
) -> None:
    monkeypatch.setitem(SCRIPTS, "shut", "import sys; print('interrupted: saved', file=sys.stderr); sys.exit(130)")
    (job,) = jobs(place.folder, [name], monkeypatch)
    report = work(job, place, lambda host: True)
    assert (report.ended.outcome, report.killed, report.unusable) == (outcome, killed, None)


def test_a_job_stops_when_it_is_told_and_does_not_begin_after(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCRIPTS, "asks", ASKS)
    monkeypatch.setattr(sweep_worker, "_ASK_SECONDS", 0.0)
    (job,) = jobs(place.folder, ["asks"], monkeypatch)
    report = work(job, place, lambda host: not (job.log.exists() and "on" in job.log.read_text()))
    assert report.ended.outcome == "stopped" and not report.killed
    job.log.unlink()
    report = work(job, place, lambda host: False)
    assert report.ended.outcome == "stopped" and not job.log.exists()


def test_a_machine_that_does_not_see_the_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(place.folder, ["finishes"], monkeypatch)
    monkeypatch.setattr(sweep_worker.unseen, "__defaults__", (0.0,))
    other = place._replace(token="another folder of this name")
    for elsewhere in (other, place._replace(folder=place.folder / "missing")):
        report = work(job, elsewhere, lambda host: True)
        assert report.unusable is not None and str(elsewhere.folder) in report.unusable
        assert not job.log.exists() and unseen(elsewhere, 0.0) is not None
    assert unseen(place, 0.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_run_is_told_when_its_worker_is_killed(tmp_path: Path) -> None:
    child = "import os, sys; print(os.getpid(), flush=True); import time; time.sleep(60)"
    launcher = sweep_worker._DIES_WITH_PARENT
    worker = f"""import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {launcher!r}, str(os.getpid()), sys.executable, "-c", {child!r}]).wait()"""
    process = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("gpus", "share"), [(0, None), (0.25, "0.188"), (0.5, "0.375"), (1, None), (2, None)])
def test_runs_that_share_a_gpu_share_its_memory(gpus: float, share: str | None) -> None:
    assert run_environment(gpus, {"A": "1"}).get("XLA_PYTHON_CLIENT_MEM_FRACTION") == share
    own = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.1"}
    assert run_environment(gpus, own) == own


def test_paths_are_absolute_for_a_process_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = EvaluateConfig(genotype="runs/s/a")
    job = absolute(Job("a", (Stage(config, Path("runs/s/a/evaluate")),), Path("runs/s/logs/a.txt")))
    assert job.log == tmp_path / "runs/s/logs/a.txt" and job.stages[0].folder == tmp_path / "runs/s/a/evaluate"
    assert f"--genotype={tmp_path}/runs/s/a" in job.stages[0].arguments()


def test_the_board_lets_nothing_begin_after_a_stop() -> None:
    board = Board()
    assert board.report("a 1", "x") and board.report("a 1", "x")
    assert board.stop() == {"a 1": "x"}
    assert not board.report("a 1", "x") and not board.report("b 1", "y")
    assert board.hosts() == {"a 1": "x"}


def test_versions_of_this_machine() -> None:
    inspect = make_inspection()
    # As code that imports nothing of the package: it has to run where that may be missing.
    assert "<locals>" in inspect.__qualname__ and not inspect.__code__.co_freevars
    assert not {"jaxdarts", "InputError"} & set(inspect.__code__.co_names)
    host, versions = inspect()
    assert host and set(versions) == {"jaxdarts", "jax"} and all(versions.values())
