"""Are a run's numbers kept whole, and smoothed as the reference does?"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs import files
from jaxdarts.runs.files import write_atomically
from jaxdarts.runs.metrics import append_metrics, local_average, read_metrics, truncate_metrics

GOLDEN = Path(__file__).parents[1] / "golden" / "robustdarts_local_average.json"


def test_local_average_equals_the_reference_tracker() -> None:
    """Three searches logged by RobustDARTS: S1 on CIFAR-10, S3 on SVHN with and without an early stop."""
    runs = json.loads(GOLDEN.read_text())
    assert len(runs) == 3
    for run in runs:
        assert local_average(run["lambda_max"]) == pytest.approx(run["local_average"], rel=1e-12)


def test_local_average_while_a_search_runs() -> None:
    """The reference appends, at measurement n, the mean of the last five (of all, before there are five)."""
    run = json.loads(GOLDEN.read_text())[0]
    values = run["lambda_max"]
    for n in range(3, len(values) + 1):
        newest = np.mean(values[max(0, n - 5) : n])
        assert local_average(values[:n])[n - 3] == pytest.approx(newest, rel=1e-12)
        assert newest == pytest.approx(run["local_average"][n - 3], rel=1e-12)


def test_local_average_of_few_or_missing_measurements() -> None:
    assert local_average([]) == []
    assert local_average([1.0, 2.0]) == [None, None]
    assert local_average([1.0, None, 2.0, math.nan, 6.0]) == [3.0, None, 3.0, None, 3.0]
    assert local_average([0.0, 3.0, 6.0]) == [3.0, 3.0, 3.0]


def test_append_and_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    append_metrics(path, {"epoch": 0, "alpha": {"normal": np.eye(2, dtype=np.float32)}, "loss": np.float32(0.5)})
    append_metrics(path, {"epoch": np.int64(1), "loss": math.nan, "eigenvalues": [math.inf, (1.0, None)]})
    assert len(path.read_text().splitlines()) == 2
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    assert read_metrics(path) == [
        {"epoch": 0, "alpha": {"normal": [[1.0, 0.0], [0.0, 1.0]]}, "loss": 0.5},
        {"epoch": 1, "loss": None, "eigenvalues": [None, [1.0, None]]},
    ]


def test_jax_arrays_become_numbers(tmp_path: Path) -> None:
    jnp = pytest.importorskip("jax.numpy")
    append_metrics(tmp_path / "m", {"epoch": 0, "loss": jnp.float32(0.5), "alpha": jnp.arange(2)})
    assert read_metrics(tmp_path / "m") == [{"epoch": 0, "loss": 0.5, "alpha": [0, 1]}]


def test_any_torn_last_line_is_left_out_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second = b'{"epoch": 0, "x": "\xc3\xa9"}\n', b'{"epoch": 1, "x": "\xc3\xa9"}\n'
    for end in range(len(second) + 1):
        path.write_bytes(first + second[:end])
        whole = [0, 1] if end >= len(second) - 1 else [0]  # all but the newline is whole
        assert [record["epoch"] for record in read_metrics(path)] == whole
        append_metrics(path, {"epoch": 9})
        assert [record["epoch"] for record in read_metrics(path)] == [*whole, 9]


def test_a_broken_earlier_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n[1]\n{"epoch": 2}\n')
    with pytest.raises(InputError, match="line 2 of"):
        read_metrics(path)


def test_truncate_keeps_lines_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    truncate_metrics(path, 3)
    assert not path.exists()
    lines = ['{"epoch":0,  "x": 1e-1}\n', '{"epoch":1}\n', '{"epoch":2}\n']
    path.write_text("".join(lines) + '{"epo')
    truncate_metrics(path, 2)
    assert path.read_text() == "".join(lines[:2])
    truncate_metrics(path, 0)
    assert path.read_text() == ""


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
