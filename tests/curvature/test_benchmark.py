"""The benchmark's table holds what it says, on a small network."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_table_of_a_small_network(mixed_network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = runpy.run_path(str(BENCHMARKS / "curvature.py"))
    f, alpha = mixed_network()
    rows = benchmark["measure"](f, alpha, (2, 16), repeats=1, seed=0, quick=True)
    exact = next(row for row in rows if row["form"] == "Lanczos, 16 products")
    rough = next(row for row in rows if row["form"] == "Lanczos, 2 products")
    assert exact["numbers"] == 16
    assert exact["largest_error"] < 1e-5 < rough["largest_error"]
    assert len(benchmark["table"](rows).splitlines()) == 1 + len(rows)
