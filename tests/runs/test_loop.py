"""A whole run as a function: its files, its numbers, and that nothing that interrupts it changes them."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.bilevel import HYPERGRADIENTS
from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.runs import stepping
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.schedules import drop_path, learning_rate
from jaxdarts.runs.search import loop
from jaxdarts.runs.search.assemble import assemble
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.loop import SearchResult, run_search
from jaxdarts.runs.search.measure import measure_epoch
from jaxdarts.spaces import discretise, load_genotype, load_space
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_state, without_times
from tests.runs.dying import death_at
from tests.runs.tiny import tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> SearchResult:
    return run_search(tiny_config(folder), folder / "unbroken", stream=io.StringIO())


def assert_same_result(a: SearchResult, b: SearchResult) -> None:
    """Bit for bit, times excepted."""
    assert a.genotype == b.genotype
    assert without_times(a.metrics) == without_times(b.metrics)
    assert_same_state(a.state, b.state)


def test_run_folder_holds_everything(unbroken: SearchResult) -> None:
    path = unbroken.run_dir
    metrics = read_metrics(path / "metrics.jsonl")
    assert [record["epoch"] for record in metrics] == [0, 1]
    for record in metrics:
        for name in ("train_loss", "valid_loss", "dominant_eigenvalue", "hypergradient_norm"):
            assert math.isfinite(record[name]), name
        assert 0 <= record["valid_accuracy"] <= 1
        genotype = load_genotype(path / "genotypes" / f"epoch_{record['epoch']:04d}.json")
        assert genotype.to_json() == record["genotype"]
    assert load_genotype(path / "genotype.json") == unbroken.genotype
    config = json.loads((path / "config.json").read_text())
    assert config["search_space"]["num_nodes"] == 1 and config["seed"] == 0 and "jax" in config["versions"]
    for name in ("cells.svg", "cells.png", "report.html"):
        assert (path / name).stat().st_size > 1000
    assert list((path / "checkpoints").iterdir())
    assert not list(path.rglob("*.tmp"))


def test_recorded_alpha_is_the_state_and_gives_the_genotype(folder: Path, unbroken: SearchResult) -> None:
    last = unbroken.metrics[-1]
    np.testing.assert_array_equal(np.asarray(last["alpha"]["normal"]), np.asarray(unbroken.state.alpha["normal"]))
    space = load_space(str(folder / "tiny.toml"))
    strengths = {cell: np.exp(value) / np.exp(value).sum(-1, keepdims=True) for cell, value in last["alpha"].items()}
    assert discretise(space, strengths) == unbroken.genotype


def test_dominant_eigenvalue_is_that_of_the_dense_hessian(folder: Path, unbroken: SearchResult) -> None:
    search = assemble(tiny_config(folder))
    state = unbroken.state
    flat, unravel = ravel_pytree(state.alpha)
    rows = [ravel_pytree(search.hessian_product(state, unravel(row)))[0] for row in jnp.eye(flat.size)]
    values = np.linalg.eigvalsh(np.asarray(jnp.stack(rows), np.float64))
    last = unbroken.metrics[-1]
    np.testing.assert_allclose(last["dominant_eigenvalue"], values[-1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(last["smallest_eigenvalue"], values[0], rtol=1e-3, atol=1e-6)


def test_resume_after_an_interrupt_in_the_middle_of_an_epoch(folder: Path, unbroken: SearchResult) -> None:
    path = folder / "interrupted"
    original = stepping.RunProgress.advance

    def advance(self, step: int, epoch: int) -> None:  # type: ignore[no-untyped-def]
        original(self, step, epoch)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match="--resume"):
            run_search(tiny_config(folder), path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 1
    resumed = run_search(tiny_config(folder), path, resume=True, stream=io.StringIO())
    assert_same_result(resumed, unbroken)


def test_resume_after_death_between_metrics_and_checkpoint(folder: Path, unbroken: SearchResult) -> None:
    path = folder / "died"
    with death_at(loop._Run, "_save", 2):
        run_search(tiny_config(folder), path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 2  # the last line has no checkpoint
    assert_same_result(run_search(tiny_config(folder), path, resume=True, stream=io.StringIO()), unbroken)


def test_resume_after_an_interrupt_in_the_last_step_of_an_epoch_and_death(folder: Path, unbroken: SearchResult) -> None:
    """Ctrl-C in the last step, and once more while the epoch is measured: it is measured when the run is resumed."""
    path = folder / "interrupted_twice"
    original = stepping.RunProgress.advance

    def advance(self, step: int, epoch: int) -> None:  # type: ignore[no-untyped-def]
        original(self, step, epoch)
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    def measure(*arguments: Any) -> dict[str, Any]:
        if arguments[3] == 1:
            raise KeyboardInterrupt  # as sudden as a kill: nothing catches it
        return measure_epoch(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping.RunProgress, "advance", advance)
        patch.setattr(loop, "measure_epoch", measure)
        with pytest.raises(KeyboardInterrupt):
            run_search(tiny_config(folder), path, stream=io.StringIO())
    assert_same_result(run_search(tiny_config(folder), path, resume=True, stream=io.StringIO()), unbroken)


def test_resuming_a_finished_run_changes_nothing(folder: Path, unbroken: SearchResult) -> None:
    again = run_search(tiny_config(folder), unbroken.run_dir, resume=True, stream=io.StringIO())
    assert_same_result(again, unbroken)


def test_another_configuration_is_not_resumed(folder: Path, unbroken: SearchResult) -> None:
    with pytest.raises(InputError, match="learning_rate"):
        run_search(tiny_config(folder, learning_rate=0.5), unbroken.run_dir, resume=True)


def test_not_finite_loss_names_epoch_step_and_checkpoint(folder: Path) -> None:
    path = folder / "diverged"
    with pytest.raises(RunError, match=r"not finite in epoch 0 .*step \d+.*checkpoint"):
        run_search(tiny_config(folder, learning_rate=1e30, clip_norm=1e30), path, stream=io.StringIO())


@pytest.mark.parametrize(
    ("compilation", "hypergradient"),
    [("whole", "first_order"), *(("parts", name) for name in sorted(HYPERGRADIENTS))],
)
def test_nothing_is_traced_or_compiled_after_the_first_epoch(
    folder: Path, compilation: str, hypergradient: str
) -> None:
    config = tiny_config(folder, epochs=3, step_compilation=compilation, hypergradient=hypergradient)
    path = folder / f"counted_{compilation}_{hypergradient}"
    assert_compiles_in_the_first_epoch_only(lambda: run_search(config, path, stream=io.StringIO()), config.epochs)


def test_schedules() -> None:
    config = SearchConfig(epochs=50, drop_path=0.6)
    assert learning_rate(config, 0) == 0.025
    assert learning_rate(config, 25) == pytest.approx((0.025 + 0.001) / 2)
    assert 0.001 < learning_rate(config, 49) < 0.0011
    assert [drop_path(config, epoch) for epoch in (0, 49)] == [0, pytest.approx(0.6)]
    assert drop_path(dataclasses.replace(config, epochs=1), 0) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 1000}, "batch_size must be at most 40"),
        ({"space": "s9"}, "unknown space 's9'"),
        ({"dataset": "nowhere"}, "nowhere"),
        ({"channels": 0}, "channels must be at least 1"),
    ],
)
def test_bad_input_leaves_no_folder(folder: Path, changes: dict[str, object], message: str) -> None:
    path = folder / "bad"
    with pytest.raises(InputError, match=message):
        run_search(tiny_config(folder, **changes), path)
    assert not path.exists()


def test_tensorboard_files_or_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(folder, tensorboard=True, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"jaxdarts\[tensorboard\]"):
            run_search(config, folder / "no_tensorboard")
    pytest.importorskip("tensorboardX")
    result = run_search(config, folder / "tensorboard", stream=io.StringIO())
    assert list((result.run_dir / "tensorboard").glob("events.*"))
