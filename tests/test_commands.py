"""The commands from end to end, as a shell calls them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs.tiny import tiny_config, tiny_flags

COMMAND = [sys.executable, "-m", "jaxdarts.search"]


def run(*arguments: str, command: list[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """A finished run by the command, whose output a person can read."""
    path = folder / "finished"
    done = run(*tiny_flags(tiny_config(folder)), "--run-dir", str(path))
    assert done.returncode == 0, done.stderr
    assert "done: Genotype(normal=[" in done.stdout and "epoch 2/2" in done.stdout
    assert "Traceback" not in done.stderr
    return path


def without_times(path: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_search_writes_its_files(finished: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "genotype.json", "cells.svg", "report.html"):
        assert (finished / name).is_file(), name


def test_killed_run_resumes_to_the_same_bits(folder: Path, finished: Path) -> None:
    path = folder / "killed"
    flags = [*tiny_flags(tiny_config(folder)), "--checkpoint-every-minutes=0", "--run-dir", str(path)]
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any((path / "checkpoints").glob("save_*")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (path / "genotype.json").exists()
    resumed = run("--resume", "--run-dir", str(path))
    assert resumed.returncode == 0, resumed.stderr
    assert without_times(path) == without_times(finished)
    assert (path / "genotype.json").read_bytes() == (finished / "genotype.json").read_bytes()


def test_report_is_rendered_again(finished: Path) -> None:
    (finished / "report.html").unlink()
    again = run(str(finished), command=[sys.executable, "-m", "jaxdarts.report"])
    assert again.returncode == 0, again.stderr
    assert (finished / "report.html").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--space", "s9"], ["unknown space 's9'", "darts"]),
        (["--method", "magic"], ["unknown method 'magic'", "darts"]),
        (["--hypergradient", "exact"], ["unknown hypergradient 'exact'", "unrolled"]),
        (["--dataset", "nothing"], ["nothing", "photos10"]),
        (["--channels", "0"], ["channels must be at least 1", "got 0"]),
        (["--method", "darts-ada", "--ada-max-l2", "1e-5"], ["--ada-max-l2 must be at least l2", "1e-05"]),
        (["--method", "darts-es", "--es-window", "21"], ["--es-window 21", "epochs 10"]),
        (["--learning-rate", "-1"], ["--learning-rate must be greater than 0", "-1"]),
        (["--dataset", "digits", "--image-size", "none", "--batch-size", "100000"], ["batch_size", "100000"]),
        (["--resume"], ["resume", "--run-dir"]),
        (["--resume", "--run-dir", "no/such/run"], ["resume", "no/such/run"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = run(*flags)
    assert failed.returncode == 2, failed.stdout + failed.stderr
    (line,) = failed.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())


def test_space_file_with_a_cycle_or_an_unknown_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cycle = tmp_path / "cycle.toml"
    cycle.write_text('num_nodes = 2\noperations = ["skip_connect"]\n[normal]\n"3->2" = ["skip_connect"]\n')
    unknown = tmp_path / "unknown.toml"
    unknown.write_text('num_nodes = 1\noperations = ["skip_conect"]\n')
    for path, word in ((cycle, "cycle"), (unknown, "did you mean 'skip_connect'")):
        failed = run("--space", str(path))
        assert failed.returncode == 2 and word in failed.stderr, failed.stderr
    assert not (tmp_path / "runs").exists()
