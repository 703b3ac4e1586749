"""The tabulate command from end to end, as a shell calls it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdarts.json_files import read_lines
from jaxdarts.report import main as report
from jaxdarts.reports.table_record import read_table
from jaxdarts.tabulate import main
from tests.runs.tiny import tiny_flags, tiny_tabulation

COMMAND = [sys.executable, "-m", "jaxdarts.tabulate"]


def test_killed_table_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table"
    flags = [*tiny_flags(tiny_tabulation(tmp_path)), "--run-dir", str(path)]
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (path / "metrics.jsonl").exists() and read_lines(path / "metrics.jsonl"):
            break
        assert process.poll() is None, "the table was finished before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    first = read_lines(path / "metrics.jsonl")
    assert 1 <= len(first) < 4
    assert main(["--resume", "--run-dir", str(path)]) == 0
    out = capsys.readouterr().out
    for text in ("training 4/4  test error ", "done: test errors from ", f"report: {path / 'report.html'}"):
        assert text in out
    table = read_table(path)
    assert table.is_finished and read_lines(path / "metrics.jsonl")[: len(first)] == first
    (path / "report.html").unlink()
    assert report([str(path)]) == 0
    assert (path / "report.html").is_file()
    assert main(["--resume", "--run-dir", str(path)]) == 0  # finished: trains nothing
    assert read_table(path).entries == table.entries


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--space s1", ["space 's1' has", "architectures, more than the 1,000 that most_architectures allows"]),
        ("--space s5 --most-architectures 80", ["space 's5' has 81 architectures, more than the 80"]),
        ("--space s9", ["unknown space 's9'", "s5"]),
        ("--seeds 0", ["seeds must be at least 1", "got 0"]),
        ("--seed 4294967295 --seeds 2", ["seeds must be at most 1 with seed 4294967295", "got 2"]),
        ("--channels 0", ["channels must be at least 1"]),
        ("--dataset nothing", ["nothing", "photos10"]),
        ("--genotype DARTS_V2", ["unknown flag '--genotype'"]),
        ("--batch-size 100000", ["batch_size must be at most 4000", "100000"]),
        ("--resume", ["resume", "--run-dir"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(flags.split()) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())
