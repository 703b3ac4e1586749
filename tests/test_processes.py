"""Do two processes of the search command make one run, and stop and continue together?"""

from __future__ import annotations

import json
import os
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
from jaxdarts.search import run_search
from jaxdarts.sharding import data_mesh
from tests.runs.comparing import without_times
from tests.runs.tiny import tiny_config, tiny_flags

SPACE = """
num_nodes = 1
operations = ["none", "noise"]
"""
CHANGES = {"curvature_every": 0, "spectrum_size": 0, "precision": "float64"}
QUICK = "--xla_backend_optimization_level=0"  # every process compiles all there is


def start(*flags: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"}
    command = [sys.executable, "-m", "jaxdarts.search", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def start_two(*flags: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = ["--coordinator", f"localhost:{probe.getsockname()[1]}", "--process-count", "2"]
    return [start(*flags, *coordinator, "--process-id", str(process)) for process in (0, 1)]


def finish(processes: list[subprocess.Popen[str]], code: int) -> list[str]:
    """What they print, when all have ended with this code."""
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert {process.returncode for process in processes} == {code}, "".join(error for _, error in ended)
    return [output for output, _ in ended]


def records(path: Path) -> list[dict[str, Any]]:
    return without_times([json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()])


def test_two_processes_stop_and_continue_together_and_give_what_one_gives(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(SPACE)
    flags, two, one = tiny_flags(tiny_config(tmp_path, **CHANGES)), tmp_path / "two", tmp_path / "one"
    processes = start_two(*flags, "--run-dir", str(two))
    assert processes[0].stdout is not None
    for line in processes[0].stdout:
        if line.strip().startswith("folder"):  # both have come as far as that
            break
    processes[1].send_signal(signal.SIGTERM)
    finish(processes, 130)
    assert not (two / "genotype.json").exists()

    first, second = finish(start_two("--resume", "--run-dir", str(two)), 0)
    assert "resumed" in first and "epoch 2/2" in first and "done: Genotype" in first
    assert "epoch" not in second and "done" not in second

    finish([start(*flags, "--run-dir", str(one))], 0)
    for found, expected in zip(records(two), records(one), strict=True):
        assert found["genotype"] == expected["genotype"]
        for (path, number), (_, value) in zip(*map(jax.tree.leaves_with_path, (found, expected)), strict=True):
            if isinstance(value, int | float):
                np.testing.assert_allclose(number, value, rtol=1e-7, atol=1e-10, err_msg=jax.tree_util.keystr(path))
    assert (two / "genotype.json").read_text() == (one / "genotype.json").read_text()


def test_what_several_processes_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = jax.local_devices()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda process: devices)
    with pytest.raises(InputError, match=r"multiple of 2, the devices \(2 processes with 1 each\)"):
        data_mesh(1, 9)
    for changes in ({"population": 2}, {"method": "r-darts-l2"}):
        with pytest.raises(InputError, match="population must be 1 where several processes make one run; got"):
            run_search(tiny_config(tmp_path, **changes), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
