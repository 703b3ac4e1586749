"""A whole evaluation as a function: its files, its numbers, and that nothing that interrupts it changes them."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.data import load_dataset, normalise, to_unit
from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.evaluate import EvaluationResult, choose_genotype, run_evaluation
from jaxdarts.json_files import read_lines as read_metrics
from jaxdarts.plans.evaluate import best_epoch, build_evaluation
from jaxdarts.plans.training_settings import EvaluateConfig
from jaxdarts.runs import engine
from jaxdarts.runs.stage_checkpoints import StageCheckpoints
from jaxdarts.search import run_search
from jaxdarts.spaces import GENOTYPES, find_genotype
from jaxdarts.tasks.classification import bare_task
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_state, without_times
from tests.runs.dying import death_at
from tests.runs.tiny import GENOTYPE_FILE, tiny_config, tiny_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> EvaluationResult:
    return run_evaluation(tiny_evaluation(folder), folder / "unbroken", stream=io.StringIO())


def assert_same_result(a: EvaluationResult, b: EvaluationResult) -> None:
    """Bit for bit, times and places excepted."""
    assert without_times(a.metrics) == without_times(b.metrics)
    assert a._replace(run_dir=b.run_dir, metrics=[], state=b.state) == b._replace(metrics=[])
    assert_same_state(a.state, b.state)


def test_run_folder_holds_everything(unbroken: EvaluationResult) -> None:
    path = unbroken.run_dir
    for record in read_metrics(path / "metrics.jsonl"):
        for name in ("train_loss", "auxiliary_loss", "valid_loss", "test_loss", "gradient_norm"):
            assert math.isfinite(record[name]), name
    config = json.loads((path / "config.json").read_text())
    assert config["command"] == "evaluate" and config["parameters"] == unbroken.parameters
    result = json.loads((path / "result.json").read_text())
    assert result == {name: getattr(unbroken, name) for name in result} and len(result) == 5
    assert find_genotype(str(path)) == unbroken.genotype
    for name in ("cells.svg", "cells.png", "report.html"):
        assert (path / name).stat().st_size > 1000
    assert list((path / "checkpoints").iterdir())
    assert not list(path.rglob("*.tmp"))


def test_test_error_is_that_of_the_network_on_all_test_images(folder: Path, unbroken: EvaluationResult) -> None:
    data = load_dataset("digits", limit=80)
    network = build_evaluation(tiny_evaluation(folder), unbroken.genotype).experiments[0].method.problem.network.module
    images = normalise(to_unit(jnp.asarray(data.test_images)), data.mean, data.std)
    variables = {"params": unbroken.state.params, "batch_stats": unbroken.state.stats}
    scores, _ = jax.jit(network.apply)(variables, images)
    wrong = np.asarray(scores.argmax(-1)) != data.test_labels
    assert unbroken.test_error == pytest.approx(wrong.mean())
    assert unbroken.metrics[-1]["test_accuracy"] == pytest.approx(1 - wrong.mean())
    assert unbroken.best_epoch is not None
    assert unbroken.best_test_error == 1 - unbroken.metrics[unbroken.best_epoch]["test_accuracy"]


def test_best_epoch_is_the_first_of_equals() -> None:
    accuracies = (0.5, 0.75, 0.75, 0.25)
    metrics = [{"epoch": epoch, "valid_accuracy": value} for epoch, value in enumerate(accuracies)]
    assert best_epoch(metrics, bare_task()) == 1
    assert best_epoch([{"epoch": 0, "valid_accuracy": None}], bare_task()) is None


def test_nothing_held_out_and_few_tests(folder: Path) -> None:
    config = tiny_evaluation(folder, valid_portion=0.0, epochs=3, test_every=2, auxiliary_weight=0.0, drop_path=0.0)
    result = run_evaluation(config, folder / "all", stream=(stream := io.StringIO()))
    assert [record["test_accuracy"] is None for record in result.metrics] == [True, False, False]
    assert result.best_epoch is None and result.best_test_error is None
    assert all(record["valid_loss"] is record["auxiliary_loss"] is None for record in result.metrics)
    assert "auxiliary_head" not in result.state.params
    assert "80 images to train on, " in stream.getvalue() and "held out" not in stream.getvalue()


def test_resume_after_an_interrupt_in_the_middle_of_an_epoch(folder: Path, unbroken: EvaluationResult) -> None:
    path = folder / "interrupted"
    original = engine.RunProgress.advance

    def advance(self, step: int, epoch: int) -> None:  # type: ignore[no-untyped-def]
        original(self, step, epoch)
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match="jaxdarts.evaluate --resume"):
            run_evaluation(tiny_evaluation(folder), path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 1
    assert_same_result(run_evaluation(tiny_evaluation(folder), path, resume=True, stream=io.StringIO()), unbroken)


def test_resume_after_death_between_metrics_and_checkpoint(folder: Path, unbroken: EvaluationResult) -> None:
    """And the genotype's file has changed meanwhile: the run goes on with the one that it began with."""
    path, config = folder / "died", tiny_evaluation(folder)
    with death_at(StageCheckpoints, "save", 2):
        run_evaluation(config, path, stream=io.StringIO())
    assert len(read_metrics(path / "metrics.jsonl")) == 2  # the last line has no checkpoint
    Path(config.genotype).write_text(GENOTYPE_FILE.replace("max_pool", "avg_pool"))
    try:
        assert_same_result(run_evaluation(config, path, resume=True, stream=io.StringIO()), unbroken)
    finally:
        Path(config.genotype).write_text(GENOTYPE_FILE)


def test_resuming_a_finished_run_changes_nothing(folder: Path, unbroken: EvaluationResult) -> None:
    config = tiny_evaluation(folder)
    assert_same_result(run_evaluation(config, unbroken.run_dir, resume=True, stream=io.StringIO()), unbroken)
    with pytest.raises(InputError, match="the configuration differs from .* in learning_rate"):
        run_evaluation(config.replace(learning_rate=0.5), unbroken.run_dir, resume=True)
    with pytest.raises(InputError, match=r"not one of python -m jaxdarts.search; .* python -m jaxdarts.evaluate"):
        run_search(tiny_config(folder), unbroken.run_dir, resume=True)


def test_not_finite_loss_names_epoch_step_and_checkpoint(folder: Path) -> None:
    config = tiny_evaluation(folder, learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(RunError, match=r"not finite in epoch 0 .*step \d+.*checkpoint"):
        run_evaluation(config, folder / "diverged", stream=io.StringIO())


def test_nothing_is_traced_or_compiled_after_the_first_epoch(folder: Path) -> None:
    config = tiny_evaluation(folder, epochs=3)
    assert_compiles_in_the_first_epoch_only(
        lambda: run_evaluation(config, folder / "counted", stream=io.StringIO()), config.epochs
    )


def test_schedules() -> None:
    config = EvaluateConfig(genotype="DARTS_V2", epochs=600, dataset="digits")
    schedules = build_evaluation(config, GENOTYPES["DARTS_V2"]).experiments[0].schedules
    learning_rate, drop_path = schedules["weights/learning_rate"], schedules["drop_path"]
    assert [learning_rate(epoch) for epoch in (0, 300)] == [0.025, pytest.approx(0.0125)]
    assert 0 < learning_rate(599) < 1e-6
    assert [drop_path(epoch) for epoch in (0, 300, 599)] == [0, 0.1, pytest.approx(0.2 * 599 / 600)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genotype": "DARTS_V9"}, "unknown genotype 'DARTS_V9'; choose from .*DARTS_V1"),
        ({"genotype": "NASNet-A", "space": "darts"}, "does not belong to space 'darts': it has 5 nodes"),
        ({"space": "s9"}, "unknown space 's9'"),
        ({"batch_size": 1000}, "batch_size must be at most 60"),
        ({"valid_portion": 0.99, "limit": 20}, "valid_portion 0.99 of 20 images leaves 0 to train on and 20 held out"),
        ({"dataset": "nowhere"}, "nowhere"),
        ({"channels": 0}, "channels must be at least 1"),
    ],
)
def test_bad_input_leaves_no_folder(folder: Path, changes: dict[str, object], message: str) -> None:
    path = folder / "bad"
    with pytest.raises(InputError, match=message):
        run_evaluation(tiny_evaluation(folder, **changes), path)
    assert not path.exists()


def test_data_without_test_images_are_refused(folder: Path) -> None:
    data = load_dataset("digits", limit=80)
    np.savez(folder / "untested.npz", x_train=data.train_images, y_train=data.train_labels)
    with pytest.raises(InputError, match="has no test images"):
        run_evaluation(tiny_evaluation(folder, dataset=f"npz:{folder / 'untested.npz'}"), folder / "bad")


@pytest.mark.parametrize("cells", [1, 2])
def test_too_few_cells_for_the_genotype_are_refused(cells: int, folder: Path) -> None:
    with pytest.raises(InputError, match=f"^cells must be at least 3; got {cells}"):
        run_evaluation(tiny_evaluation(folder, genotype="DARTS_V2", cells=cells), folder / "bad")
    assert not (folder / "bad").exists()


def test_a_genotype_of_its_own_space_is_taken(folder: Path) -> None:
    config = tiny_evaluation(folder, genotype="DARTS_V2", space="darts")
    assert choose_genotype(config) == GENOTYPES["DARTS_V2"]
