"""What does a run do with what is measured but not finite? It goes on, and says null."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxdarts.evaluate import run_evaluation
from jaxdarts.json_files import read_lines
from jaxdarts.plans import observers
from jaxdarts.plans.judge import Measurer
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import load_genotype
from jaxdarts.tabulate import run_tabulation
from tests.runs.tiny import EAGER, tiny_config, tiny_evaluation, tiny_tabulation

# Weights so large that evaluation mode, with its running statistics, overflows where training does not.
LARGE: dict[str, Any] = {"learning_rate": 1e12, "clip_norm": 1e30, "l2": 0.0}


def run(config: SearchConfig, path: Path, resume: bool = False) -> SearchResult:
    return run_search(config, path, resume=resume, stream=io.StringIO())


def strictly(path: Path) -> Any:
    """The value in a file, which must be JSON and nothing more."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_search_whose_validation_loss_overflows_ends(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **LARGE)
    result = run(config, tmp_path / "run")
    lines = (result.run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert records == result.metrics
    assert records[-1]["valid_loss"] is None and records[-1]["valid_accuracy"] >= 0
    assert load_genotype(result.run_dir / "genotype.json") == result.genotype
    found = strictly(result.run_dir / "diagnostics.json")
    assert found["discretisation"]["relaxed"]["loss"] is None
    assert "end of run" in (result.run_dir / "report.html").read_text()
    assert run(config, result.run_dir, resume=True).metrics == result.metrics


def test_the_published_space_too(tmp_path: Path) -> None:
    """The settings of a report."""
    config = SearchConfig(
        space="s5",
        dataset="digits",
        epochs=2,
        batch_size=16,
        channels=4,
        image_size=None,
        limit=128,
        learning_rate=1e12,
        clip_norm=1e30,
        l2=0,
    )
    result = run(config, tmp_path / "run")
    assert strictly(result.run_dir / "genotype.json") == result.genotype.to_json()
    assert any(record["valid_loss"] is None for record in read_lines(result.run_dir / "metrics.jsonl"))


def test_a_curvature_that_is_not_finite_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        observers, "hessian_product", lambda *_: lambda state, vector: jax.tree.map(lambda v: v * jnp.nan, vector)
    )
    config = tiny_config(tmp_path, method="darts-es", **EAGER, spectrum_size=3)
    result = run(config, tmp_path / "run")
    assert [record["epoch"] for record in result.metrics] == list(range(6))
    for record in result.metrics:
        assert record["dominant_eigenvalue"] is record["local_average"] is None
    assert strictly(result.run_dir / "diagnostics.json")["eigenvalues"]["values"] == [None] * 3
    assert not (result.run_dir / "events.json").exists() and (result.run_dir / "report.html").exists()


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss that is measured is infinite."""
    measured = Measurer.__call__
    monkeypatch.setattr(Measurer, "__call__", lambda *arguments: {**measured(*arguments), "loss": float("inf")})


@pytest.mark.usefixtures("overflowing")
def test_an_evaluation_whose_measured_loss_overflows_ends(tmp_path: Path) -> None:
    config = tiny_evaluation(tmp_path)
    result = run_evaluation(config, tmp_path / "run", stream=io.StringIO())
    assert result.metrics[-1]["valid_loss"] is result.metrics[-1]["test_loss"] is None
    found = strictly(result.run_dir / "result.json")
    assert found["test_error"] == result.test_error and found["best_epoch"] == result.best_epoch is not None
    assert (result.run_dir / "report.html").exists()


def test_what_is_no_number_is_never_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it is decided what is tested, nor at the end: both see what the files say."""
    measured, calls = Measurer.__call__, 0

    def first_fails(self: Any, stream: Any, *rest: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        found = measured(self, stream, *rest)
        return {**found, "accuracy": float("nan")} if calls == 1 else found

    monkeypatch.setattr(Measurer, "__call__", first_fails)
    config = tiny_evaluation(tmp_path, epochs=3, test_every=3)
    result = run_evaluation(config, tmp_path / "run", stream=io.StringIO())
    assert result.metrics[0]["valid_accuracy"] is result.metrics[0]["test_accuracy"] is None
    assert result.best_epoch in (1, 2) and result.best_test_error is not None


def test_a_population_ranks_it_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Member 0, whose numbers are equal to the other's but for those that are missing."""
    measured, calls = Measurer.__call__, 0

    def fails_for_the_first(self: Any, stream: Any, *rest: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        failed = {"accuracy": float("nan"), "loss": float("nan")}
        return failed if calls % 2 else {**measured(self, stream, *rest), "accuracy": 0.0}

    monkeypatch.setattr(Measurer, "__call__", fails_for_the_first)
    config = tiny_config(tmp_path, population=2, retrain_epochs=0, epochs=1, curvature_every=0, spectrum_size=0)
    result = run(config, tmp_path / "run")
    found = strictly(result.run_dir / "diagnostics.json")
    assert [(c["member"], c["accuracy"]) for c in found["candidates"]] == [(1, 0.0), (0, None)]


@pytest.mark.usefixtures("overflowing")
def test_a_table_keeps_rows_whose_loss_overflows(tmp_path: Path) -> None:
    config = tiny_tabulation(tmp_path, epochs=1, seeds=1)
    result = run_tabulation(config, tmp_path / "run", stream=io.StringIO())
    assert len(result.table.entries) == 2
    assert [entry["seed"] for entry in strictly(result.run_dir / "table.json")["entries"]] == [0, 0]
    again = run_tabulation(config, tmp_path / "run", resume=True, stream=io.StringIO())
    assert again.table.entries == result.table.entries
