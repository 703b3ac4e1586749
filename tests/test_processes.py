"""Do two processes of the search command make one run, and stop and continue together?"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs.devices import data_mesh
from jaxdarts.runs.loop import run_search
from tests.runs.comparing import without_times
from tests.runs.tiny import tiny_config, tiny_flags

COMMAND = [sys.executable, "-m", "jaxdarts.search"]
SPACE = """
num_nodes = 1
operations = ["skip_connect", "noise"]
"""
CHANGES = {"drop_path": 0.3, "curvature_products": 3, "spectrum_size": 0, "precision": "float64"}


def start(*flags: str) -> list[subprocess.Popen[str]]:
    """Both processes."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = ["--coordinator", f"localhost:{probe.getsockname()[1]}", "--process-count", "2"]
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
    for ours, one in zip(records(together), records(folder / "alone"), strict=True):
        assert ours["genotype"] == one["genotype"]
        for (path, number), (_, expected) in zip(*map(jax.tree.leaves_with_path, (ours, one)), strict=True):
            if isinstance(expected, int | float):
                np.testing.assert_allclose(number, expected, rtol=1e-7, atol=1e-10, err_msg=jax.tree_util.keystr(path))
    assert (together / "genotype.json").read_text() == (folder / "alone" / "genotype.json").read_text()


def test_a_signal_to_one_stops_both_and_they_resume_to_the_same_bits(folder: Path, together: Path) -> None:
    path = folder / "interrupted"
    processes = start(*tiny_flags(tiny_config(folder, **CHANGES)), "--run-dir", str(path))
    assert processes[0].stdout is not None
    for line in processes[0].stdout:
        if line.strip().startswith("folder"):  # both have come as far as that
            break
    processes[1].send_signal(signal.SIGTERM)
    finish(processes, 130)
    assert not (path / "genotype.json").exists()
    first, _ = finish(start("--resume", "--run-dir", str(path)), 0)
    assert "resumed" in first
    assert records(path) == records(together)
    assert (path / "diagnostics.json").read_text() == (together / "diagnostics.json").read_text()


def test_what_several_processes_cannot_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = jax.local_devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda process: devices)
    with pytest.raises(InputError, match=r"multiple of 2, the devices \(2 processes with 1 each\)"):
        data_mesh(1, 9)
    for changes in ({"population": 2}, {"method": "r-darts-l2"}):
        with pytest.raises(InputError, match="population must be 1 where several processes make one run; got"):
            run_search(tiny_config(folder, **changes), folder / "refused")
    assert not (folder / "refused").exists()
