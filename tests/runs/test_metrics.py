"""Are a run's numbers kept whole?"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs import files
from jaxdarts.runs.files import write_atomically
from jaxdarts.runs.metrics import append_metrics, read_metrics, truncate_metrics


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
