"""What happens to a sweep's processes, however they end?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.lock import is_in_use, lock_folder
from jaxdarts.runs.sweep.jobs import Ended, Job, LocalExecutor, Stage, Started

FINISH = "import pathlib; pathlib.Path('{0}').mkdir(); pathlib.Path('{0}/genotype.json').touch()"
SCRIPTS = {
    "finishes": FINISH,
    "says_why": "import sys; print('step 1'); print('error: too large', file=sys.stderr); print('bye'); sys.exit(2)",
    "is_killed": "import os; os.kill(os.getpid(), 9)",
    "breaks": "raise ValueError('broken')",
    "ends_early": "print('nothing to do')",
}


def jobs(folder: Path, names: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs that run a script instead of a command."""
    monkeypatch.setattr(Stage, "arguments", lambda stage: ["-c", SCRIPTS[stage.folder.name].format(stage.folder)])
    return [Job(name, (Stage(SearchConfig(), folder / name),), folder / "logs" / name) for name in names]


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_a_failing_job_is_told_in_one_line_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    names = ["says_why", "is_killed", "breaks", "ends_early", "finishes"]
    events = list(LocalExecutor(at_a_time).run(jobs(tmp_path, names, monkeypatch), Interrupt()))
    assert [event.job.name for event in events if isinstance(event, Started)] == names
    ended = {event.job.name: (event.outcome, event.error) for event in events if isinstance(event, Ended)}
    assert ended == {
        "says_why": ("failed", "too large"),
        "is_killed": ("failed", "ended by SIGKILL"),
        "breaks": ("failed", "ValueError: broken (exit code 1)"),
        "ends_early": ("failed", "nothing to do (exit code 0)"),
        "finishes": ("done", None),
    }
    running, most = 0, 0
    for event in events:
        running += 1 if isinstance(event, Started) else -1
        most = max(most, running)
    assert most == at_a_time


def test_a_folder_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(tmp_path, ["finishes"], monkeypatch)
    monkeypatch.setitem(SCRIPTS, "finishes", FINISH.replace("mkdir()", "mkdir(exist_ok=True)"))
    job.stages[0].folder.mkdir()
    lock = lock_folder(job.stages[0].folder)
    assert lock is not None and is_in_use(job.stages[0].folder)
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(job.log.exists())
        if len(waits) == 3:
            os.close(lock)

    with monkeypatch.context() as patch:
        patch.setattr("jaxdarts.runs.sweep.jobs.time.sleep", sleep)
        events = list(LocalExecutor().run([job], Interrupt()))
    assert waits[:3] == [False] * 3 and isinstance(events[-1], Ended) and events[-1].outcome == "done"


# Its runs do not look at the first signal, as in a long compilation.
TWICE = '''
import os, sys
from pathlib import Path
from jaxdarts.runs.interrupt import catch_interrupts
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.sweep.jobs import Job, LocalExecutor, Stage

child = """
import os, signal, subprocess
signal.signal(signal.SIGINT, signal.SIG_IGN)
below = subprocess.Popen(["sleep", "300"])
print(os.getpid(), below.pid, flush=True)
below.wait()
"""
Stage.arguments = lambda stage: ["-c", child]
folder = Path(sys.argv[1])
jobs = [Job(name, (Stage(SearchConfig(), folder / name),), folder / "logs" / name) for name in "ab"]
with catch_interrupts() as interrupt:
    for event in LocalExecutor(2).run(jobs, interrupt):
        print(event.job.name, flush=True)
'''


def test_the_second_signal_kills_what_runs_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        assert [process.stdout.readline() for _ in "ab"] == ["a\n", "b\n"]
        logs = [tmp_path / "logs" / name for name in "ab"]
        wait_until(lambda: all(log.exists() and log.read_text().endswith("\n") for log in logs))
        process.send_signal(signal.SIGINT)
        assert "once more to end at once" in process.stderr.readline() + process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = "SIGINT: ended at once with 2 runs; the same command continues them from their last checkpoints"
        assert process.stderr.read().strip() == said
        for log in logs:
            for pid in map(int, log.read_text().split()):
                wait_until(lambda pid=pid: not is_running(pid))
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to that")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interrupt_starts_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCRIPTS, "says_why", "import time; time.sleep(60)")
    interrupt, seen = Interrupt(), []
    for event in LocalExecutor().run(jobs(tmp_path, ["says_why", "finishes"], monkeypatch), interrupt):
        seen.append((event.job.name, event.outcome if isinstance(event, Ended) else "started"))
        interrupt.requested = True
    assert seen == [("says_why", "started"), ("says_why", "stopped")]
