"""The evaluate command from end to end, as a shell calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxdarts.evaluate import main
from jaxdarts.runs.progress import RunProgress
from jaxdarts.spaces import GENOTYPES
from tests.runs.tiny import tiny_evaluation, tiny_flags

COMMAND = [sys.executable, "-m", "jaxdarts.evaluate"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """A finished run by the command, whose output a person can read."""
    path = folder / "finished"
    flags = [*tiny_flags(tiny_evaluation(folder)), "--run-dir", str(path)]
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for text in ("done: test error ", "2/2", "parameters, ", "multiply-adds an image", "report: "):
        assert text in done.stdout
    assert done.stdout.count("epoch ") >= 2 and "Traceback" not in done.stderr
    return path


def without_times(path: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def start(path: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    """The command, once its first checkpoint is there."""
    process = subprocess.Popen([*COMMAND, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any((path / "checkpoints").glob("save_*")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.01)
    return process


def test_killed_run_resumes_to_the_same_bits(folder: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "killed"
    flags = [*tiny_flags(tiny_evaluation(folder)), "--checkpoint-every-minutes", "0", "--run-dir", str(path)]
    process = start(path, flags)
    process.send_signal(signal.SIGSTOP)
    try:
        assert main(["--resume", "--run-dir", str(path)]) == 2
        assert f"is in use by process {process.pid}" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()
    assert not (path / "result.json").exists()
    assert main(["--resume", "--run-dir", str(path)]) == 0
    assert without_times(path) == without_times(finished)
    assert (path / "result.json").read_bytes() == (finished / "result.json").read_bytes()


def test_ctrl_c_saves_and_exits_with_130(
    folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, advance = folder / "interrupted", RunProgress.advance

    def interrupted(self: RunProgress, step: int, epoch: int) -> None:
        advance(self, step, epoch)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "advance", interrupted)
        assert main([*tiny_flags(tiny_evaluation(folder)), "--run-dir", str(path)]) == 130
    hint = f"python -m jaxdarts.evaluate --resume --run-dir {path}"
    assert hint in capsys.readouterr().err.splitlines()[-1]
    assert main(["--resume", "--run-dir", str(path)]) == 0
    assert without_times(path) == without_times(finished)


def test_a_run_is_a_genotype(finished: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = tiny_flags(tiny_evaluation(folder, genotype=str(finished), epochs=1))
    assert main([*flags, "--run-dir", str(folder / "again")]) == 0
    assert f"evaluate {finished} on digits" in capsys.readouterr().out
    again, first = (json.loads((path / "genotype.json").read_text()) for path in (folder / "again", finished))
    assert again == first


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", ["genotype must be a name such as DARTS_V2, a file or the folder of a search"]),
        ("--genotype DARTS_V3", ["unknown genotype 'DARTS_V3'", *GENOTYPES, "did you mean 'DARTS_V2'"]),
        ("--genotype missing.json", ["cannot read 'missing.json'"]),
        ("--genotype NASNet-A --space darts", ["does not belong to space 'darts'", "5 nodes"]),
        ("--genotype DARTS_V2 --space s2", ["does not belong to space 's2'", "'dil_conv_3x3'"]),
        ("--genotype DARTS_V2 --dataset nothing", ["nothing", "photos10"]),
        ("--genotype DARTS_V2 --channels 0", ["channels must be at least 1", "got 0"]),
        ("--genotype DARTS_V2 --batch-size 100000", ["batch_size must be at most 4000", "100000"]),
        ("--genotype DARTS_V2 --epoch 3", ["unknown flag '--epoch'", "--epochs"]),
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
