"""The sweep command from end to end, as a shell calls it."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.sweep.jobs import Ended, Event, Job, Started
from jaxdarts.runs.sweep.loop import run_sweep
from jaxdarts.sweep import main
from tests.runs.tiny import tiny_config, tiny_evaluation


def sweep_file(folder: Path) -> Path:
    """Two runs with an evaluation each, of which the second fails when it has read its data."""
    # Without curvature, whose programs would have to be compiled too.
    search, evaluation = tiny_config(folder, curvature_every=0, spectrum_size=0), tiny_evaluation(folder)
    text = "[grid]\nbatch_size = [10, 1000]\n"
    for table, config in (("search", search), ("evaluate", evaluation)):
        text += f"[{table}]\n"
        for name, value in config.given.items():
            if (table, name) not in (("search", "batch_size"), ("evaluate", "genotype")):
                text += f"{name} = {json.dumps('none' if value is None else value)}\n"
    path = folder / "tiny_sweep.toml"
    path.write_text(text)
    return path


def states(folder: Path) -> dict[str, Any]:
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    return {run["name"]: (run["state"], run["error"]) for run in runs}


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_interrupted_continued_and_then_nothing_is_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, folder = sweep_file(tmp_path), Path("runs/tiny_sweep")
    command = [sys.executable, "-m", "jaxdarts.sweep", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "batch_size_10" / "config.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert main([str(file)]) == 2
    assert f"sweep_dir: 'runs/tiny_sweep' is in use by process {process.pid}" in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1] == "interrupted: 2 runs are left; the same command continues them"
    assert states(folder) == {"batch_size_10": ("pending", None), "batch_size_1000": ("pending", None)}

    assert main([str(file)]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 runs failed, the first of them batch_size_1000" in captured.err.strip().splitlines()[-1]
    (done,) = [line for line in captured.out.splitlines() if line.startswith("1/2  batch_size_10  valid accuracy ")]
    assert "test error" in done and done.endswith(" left")
    (failed,) = [line for line in captured.out.splitlines() if line.startswith("2/2  batch_size_1000  failed: ")]
    assert states(folder)["batch_size_10"] == ("done", None)
    state, error = states(folder)["batch_size_1000"]
    assert state == "failed" and error.startswith("batch_size must be at most ") and error in failed
    for name in ("report.html", "table.csv", "table.md", "batch_size_10/genotype.json", "batch_size_10/report.html"):
        assert (folder / name).is_file(), name
    assert "test_error" in json.loads((folder / "batch_size_10/evaluate/result.json").read_text())

    runs = ("batch_size_10", "logs")
    before = [files(folder / run) for run in runs]
    assert main([str(file)]) == 1
    assert "0 to do, 1 failed before" in capsys.readouterr().out
    assert [files(folder / run) for run in runs] == before
    assert states(folder)["batch_size_1000"] == (state, error)

    # The finished run as a file of other settings would have it.
    file.write_text(file.read_text().replace("channels = 1\n", "channels = 2\n"))
    assert main([str(file)]) == 2
    assert "differs from" in capsys.readouterr().err and [files(folder / run) for run in runs] == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.toml"], ["cannot read 'missing.toml'"]),
        ([], ["SWEEP_FILE"]),
        (["FILE", "--jobs", "0"], ["jobs must be at least 1; got 0"]),
        (["FILE", "--jobs", "x"], ["--jobs", "'x'"]),
        (["FILE", "--sweep-dir", "."], ["sweep_dir", "holds other files"]),
        (["FILE", "--sweep-dir", "FILE"], ["sweep_dir must be a folder", "sweep.toml"]),
        (["FILE", "--rety"], ["--rety"]),
        (["FILE", "--variants", "a,b"], ["variants: 'sweep.toml' has none; got a, b"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.toml").write_text("[grid]\nseed = [0]\n")
    assert main([word.replace("FILE", "sweep.toml") for word in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.toml"]


class Recording:
    """An executor that carries nothing out, and calls it failed if asked to."""

    def __init__(self, fails: bool = False) -> None:
        self.asked: list[str] = []
        self.fails = fails

    def prepare(self, sweep_dir: Path) -> None: ...

    def run(self, jobs: Sequence[Job], interrupt: Interrupt) -> Iterator[Event]:
        self.asked += [job.name for job in jobs]
        for job in jobs if self.fails else ():
            yield Started(job)
            yield Ended(job, "failed", 1.0, "no reason")


def test_only_the_chosen_variants_are_carried_out(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text("[variants.a]\n[variants.b]\nl2 = 0.1\n[variants.c]\n[grid]\nseed = [0, 1]\n")
    executor = Recording()
    result = run_sweep(file, tmp_path / "runs", variants=["c", "a"], executor=executor, stream=io.StringIO())
    assert executor.asked == ["a-seed_0", "c-seed_0", "a-seed_1", "c-seed_1"]
    assert {name: state["state"] for name, state in result.states.items()} == {
        f"{variant}-seed_{seed}": "pending" for variant in "abc" for seed in (0, 1)
    }
    with pytest.raises(InputError, match="unknown variant 'd'; choose from a, b, c"):
        run_sweep(file, tmp_path / "other", variants=["d"])
    file.write_text("[grid]\nseed = [0, 1]\n")
    with pytest.raises(InputError, match="sweep.toml' has none; got a"):
        run_sweep(file, tmp_path / "other", variants=["a"])
    assert not (tmp_path / "other").exists()


def test_progress_counts_the_chosen_variants_only(tmp_path: Path) -> None:
    file, said = tmp_path / "sweep.toml", io.StringIO()
    file.write_text("[variants.a]\n[variants.b]\nl2 = 0.1\n[grid]\nseed = [0, 1]\n")
    run_sweep(file, tmp_path / "runs", variants=["b"], executor=Recording(fails=True), stream=said)
    banner, first, last = said.getvalue().splitlines()
    assert banner.endswith("4 runs, 2 of the chosen variants, 2 to do")
    assert first.startswith("1/2  b-seed_0  failed: no reason") and last.startswith("2/2  b-seed_1")
