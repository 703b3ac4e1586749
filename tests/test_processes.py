"""Do two processes of the search command make one run, and stop and continue together?"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.loop import run_search
from jaxdarts.runs.processes import connect
from tests.runs.comparing import without_times
from tests.runs.tiny import tiny_config, tiny_flags

COMMAND = [sys.executable, "-m", "jaxdarts.search"]
SPACE = """
num_nodes = 1
operations = ["skip_connect", "noise"]
"""
CHANGES = {"drop_path": 0.3, "curvature_products": 3, "spectrum_size": 0, "precision": "float64"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def start(*flags: str) -> list[subprocess.Popen[str]]:
    """Both processes."""
    coordinator = ["--coordinator", f"localhost:{free_port()}", "--process-count", "2"]
    return [
        subprocess.Popen(
            [*COMMAND, *flags, *coordinator, "--process-id", str(process)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]


def finish(processes: list[subprocess.Popen[str]], code: int) -> list[str]:
    """What they print, when both have ended with this code."""
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code, code], "".join(error for _, error in ended)
    return [output for output, _ in ended]


def records(path: Path) -> list[dict[str, Any]]:
    return without_times([json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()])


def numbers(lines: list[dict[str, Any]]) -> np.ndarray:
    return np.array([float(number) for number in re.findall(r"-?\d[\d.e-]*", json.dumps(lines))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes")
    (path / "tiny.toml").write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def together(folder: Path) -> Path:
    """A finished run of two processes."""
    path = folder / "together"
    first, second = finish(start(*tiny_flags(tiny_config(folder, **CHANGES)), "--run-dir", str(path)), 0)
    assert "epoch 2/2" in first and "done: Genotype" in first
    assert "epoch" not in second and "done" not in second
    return path


def test_two_processes_give_what_one_gives(folder: Path, together: Path) -> None:
    run_search(tiny_config(folder, **CHANGES), folder / "alone")
    np.testing.assert_allclose(numbers(records(together)), numbers(records(folder / "alone")), rtol=1e-6, atol=1e-9)
    assert (together / "genotype.json").read_text() == (folder / "alone" / "genotype.json").read_text()


def test_a_signal_to_either_stops_both_and_they_resume_to_the_same_bits(folder: Path, together: Path) -> None:
    path = folder / "interrupted"
    processes = start(*tiny_flags(tiny_config(folder, **CHANGES)), "--run-dir", str(path))
    assert processes[0].stdout is not None
    for line in processes[0].stdout:
        if line.strip().startswith("folder"):  # both have come as far as that
            break
    processes[1].send_signal(signal.SIGTERM)
    finish(processes, 130)
    assert not (path / "genotype.json").exists()
    finish(start("--resume", "--run-dir", str(path)), 0)
    assert records(path) == records(together)


def test_a_batch_that_cannot_be_split_is_refused_by_both(folder: Path) -> None:
    processes = start(*tiny_flags(tiny_config(folder, batch_size=9)), "--run-dir", str(folder / "refused"))
    ended = [process.communicate(timeout=120) for process in processes]
    for process, (_, error) in zip(processes, ended, strict=True):
        assert process.returncode == 2, error
        assert "batch_size must be a multiple of 2, the devices (2 processes with 1 each)" in error
    assert not (folder / "refused").exists()


def test_a_coordinator_that_cannot_be_reached() -> None:
    with pytest.raises(RunError, match="cannot reach the coordinator at localhost:.* within 1 s: Connection refused"):
        connect(f"localhost:{free_port()}", 1, 2, timeout=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 0, None), "coordinator must be given as HOST:PORT"),
        (("nowhere", 0, 2), "coordinator must be HOST:PORT or auto; got 'nowhere'"),
        (("localhost:1", 0, None), "process_count must be at least 1"),
        (("localhost:1", 2, 2), "process_id must be at least 0 and less than process_count 2; got 2"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        connect(*arguments, timeout=1)
