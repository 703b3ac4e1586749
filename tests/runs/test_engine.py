"""A whole run as a function: its files, its numbers, and that nothing that interrupts it changes them."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.bilevel import HYPERGRADIENTS, ahead
from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.json_files import read_lines as read_metrics
from jaxdarts.methods.parts import weight_schedules
from jaxdarts.plans import observers
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs import engine
from jaxdarts.runs.stage_checkpoints import StageCheckpoints
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import discretise, load_genotype, load_space
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_result
from tests.runs.dying import death_at
from tests.runs.stepping import by_hand
from tests.runs.tiny import tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> SearchResult:
    return run_search(tiny_config(folder), folder / "unbroken", stream=io.StringIO())


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
    search = by_hand(tiny_config(folder)).shared
    state = unbroken.state
    flat, unravel = ravel_pytree(state.alpha)
    rows = [ravel_pytree(search.product(state, unravel(row)))[0] for row in jnp.eye(flat.size)]
    values = np.linalg.eigvalsh(np.asarray(jnp.stack(rows), np.float64))
    last = unbroken.metrics[-1]
    np.testing.assert_allclose(last["dominant_eigenvalue"], values[-1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(last["smallest_eigenvalue"], values[0], rtol=1e-3, atol=1e-6)


def test_resume_after_an_interrupt_in_the_middle_of_an_epoch(folder: Path, unbroken: SearchResult) -> None:
    path = folder / "interrupted"
    original = engine.RunProgress.advance

    def advance(self, step: int, epoch: int) -> None:  # type: ignore[no-untyped-def]
        original(self, step, epoch)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    assert threading.current_thread() is threading.main_thread()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match="--resume"):
            run_search(tiny_config(folder), path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 1
    resumed = run_search(tiny_config(folder), path, resume=True, stream=io.StringIO())
    assert_same_result(resumed, unbroken)


def test_resume_after_death_in_the_middle_of_an_epoch(folder: Path, unbroken: SearchResult) -> None:
    """With a checkpoint after every step, the last of them after step 6 of 8."""
    config, path = tiny_config(folder, checkpoint_every_minutes=0.0), folder / "died_in_an_epoch"
    with death_at(engine.RunProgress, "advance", 7):
        run_search(config, path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 1
    stream = io.StringIO()
    assert_same_result(run_search(config, path, resume=True, stream=stream), unbroken)
    assert "after 6 of 8 steps" in stream.getvalue()


def test_resume_after_death_between_metrics_and_checkpoint(folder: Path, unbroken: SearchResult) -> None:
    path = folder / "died"
    with death_at(StageCheckpoints, "save", 2):
        run_search(tiny_config(folder), path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 2  # the last line has no checkpoint
    assert_same_result(run_search(tiny_config(folder), path, resume=True, stream=io.StringIO()), unbroken)


def test_resume_after_an_interrupt_in_the_last_step_of_an_epoch_and_death(folder: Path, unbroken: SearchResult) -> None:
    """Ctrl-C in the last step, and once more while the epoch is measured: it is measured when the run is resumed."""
    path = folder / "interrupted_twice"
    original = engine.RunProgress.advance

    def advance(self, step: int, epoch: int) -> None:  # type: ignore[no-untyped-def]
        original(self, step, epoch)
        if step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    genotype_of = observers.genotype_of

    def measure(method: Any, state: Any) -> Any:
        if int(state.step) == 8:
            raise KeyboardInterrupt  # as sudden as a kill: nothing catches it
        return genotype_of(method, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.RunProgress, "advance", advance)
        patch.setattr(observers, "genotype_of", measure)
        with pytest.raises(KeyboardInterrupt):
            run_search(tiny_config(folder), path, stream=io.StringIO())
    assert_same_result(run_search(tiny_config(folder), path, resume=True, stream=io.StringIO()), unbroken)


def test_resuming_a_finished_run_changes_nothing(folder: Path, unbroken: SearchResult) -> None:
    again = run_search(tiny_config(folder), unbroken.run_dir, resume=True, stream=io.StringIO())
    assert_same_result(again, unbroken)


def test_another_configuration_is_not_resumed(folder: Path, unbroken: SearchResult) -> None:
    with pytest.raises(InputError, match="learning_rate"):
        run_search(tiny_config(folder, learning_rate=0.5), unbroken.run_dir, resume=True)


@pytest.mark.parametrize("method", ["darts", "random-ws"])
def test_what_is_not_finite_at_the_end_is_null_and_the_genotype_is_there(folder: Path, method: str) -> None:
    """Steps are finite, but running statistics have overflown: no number of the evaluation is."""
    changes: dict[str, Any] = {"learning_rate": 1e12, "clip_norm": 1e30, "l2": 0.0, "batch_size": 16, "channels": 4}
    changes |= {"space": "s5", "limit": 128, "spectrum_size": 3, "method": method}
    path = folder / f"infinite_{method}"
    result = run_search(tiny_config(folder, **changes), path, stream=io.StringIO())
    assert load_genotype(path / "genotype.json") == result.genotype
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["valid_loss"] is None or last["valid_loss"] > 1e6
    json.loads((path / "diagnostics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (path / "report.html").exists()
    assert_same_result(run_search(tiny_config(folder, **changes), path, resume=True, stream=io.StringIO()), result)


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
    schedules = weight_schedules(SearchConfig(epochs=50, drop_path=0.6))
    learning_rate, drop_path = schedules["weights/learning_rate"], schedules["drop_path"]
    assert learning_rate(0) == 0.025
    assert learning_rate(25) == pytest.approx((0.025 + 0.001) / 2)
    assert 0.001 < learning_rate(49) < 0.0011
    assert [drop_path(epoch) for epoch in (0, 49)] == [0, pytest.approx(0.6)]
    assert weight_schedules(SearchConfig(epochs=1, drop_path=0.6))["drop_path"](0) == 0


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


def test_threads_compile_what_the_first_step_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what the step calls, the main thread compiles nothing; a run that is continued at its end compiles none."""
    # As in a fresh process: tests before this one may have compiled programs that all searches share.
    jax.clear_caches()
    monkeypatch.setattr(ahead, "_begun", WeakKeyDictionary())
    names = {"init", "draw", "value_and_alpha_gradient", "value_and_gradients", "apply_update", "_outer", "accumulate"}
    compiled: dict[bool, set[str]] = {True: set(), False: set()}

    def listen(event: str, duration: float, fun_name: str = "", **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            is_main = threading.current_thread() is threading.main_thread()
            compiled[is_main] |= {name for name in names if f"({name})" in fun_name or name == fun_name}

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run_search(tiny_config(folder, epochs=1), folder / "ahead", stream=io.StringIO())
        assert compiled == {True: set(), False: names}
        compiled[False].clear()
        run_search(tiny_config(folder, epochs=1), folder / "ahead", resume=True, stream=io.StringIO())
        assert compiled == {True: set(), False: set()}
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
