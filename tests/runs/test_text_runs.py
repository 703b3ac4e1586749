"""Whole runs on text: every method that can, what is carried on, resuming, the switch, losses that are not finite."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.evaluate import EvaluationResult, run_evaluation
from jaxdarts.json_files import read_lines
from jaxdarts.methods import METHODS
from jaxdarts.plans import evaluate as evaluate_plans
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.runs import engine
from jaxdarts.runs.engine import StageRun
from jaxdarts.runs.steps import Calendar
from jaxdarts.search import SearchResult, run_search
from jaxdarts.tabulate import run_tabulation
from jaxdarts.tasks import language
from jaxdarts.tasks.base import Stream
from tests.runs.comparing import (
    assert_compiles_in_the_first_epoch_only,
    assert_same_result,
    assert_same_state,
    without_times,
)
from tests.runs.dying import death_at
from tests.runs.text import tiny_text_evaluation, tiny_text_search, write_text

ABLE = [name for name, entry in METHODS.items() if "language" in entry.tasks]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> SearchResult:
    return run_search(tiny_text_search(folder), folder / "unbroken", stream=io.StringIO())


def test_a_search_records_everything(unbroken: SearchResult) -> None:
    path = unbroken.run_dir
    for record in unbroken.metrics:
        for part in ("train", "valid"):
            assert record[f"{part}_perplexity"] == pytest.approx(math.exp(record[f"{part}_loss"]))
        assert math.isfinite(record["dominant_eigenvalue"]) and record["drop_path"] is None
    config = json.loads((path / "config.json").read_text())
    assert config["search_space"]["recurrent"] and config["vocabulary_size"] == 7 and len(config["data_digest"]) == 64
    diagnostics = json.loads((path / "diagnostics.json").read_text())
    assert set(diagnostics["discretisation"]) == {"relaxed", "one_hot", "perplexity_change"}
    last = unbroken.metrics[-1]
    assert diagnostics["discretisation"]["relaxed"]["perplexity"] == pytest.approx(last["valid_perplexity"], rel=1e-5)
    assert json.loads((path / "genotype.json").read_text()) == unbroken.genotype.to_json()
    for name in ("cells.svg", "report.html"):
        assert (path / name).stat().st_size > 1000


def test_a_search_compiles_in_its_first_epoch_only(folder: Path) -> None:
    config = tiny_text_search(folder, epochs=4)
    assert_compiles_in_the_first_epoch_only(lambda: run_search(config, folder / "traced", stream=io.StringIO()), 4)


def test_the_validation_loss_by_hand(folder: Path, unbroken: SearchResult) -> None:
    """One pass over the whole text, ten pieces side by side, with a hidden state of its own."""
    from jaxdarts.data import batchify, load_text
    from jaxdarts.networks import Weights
    from jaxdarts.networks.recurrent import TextSupernet
    from jaxdarts.spaces import load_space

    state: Any = unbroken.state
    text = load_text("folder", folder / "text")
    rows = jnp.asarray(batchify(text.valid, 10))
    network = TextSupernet(load_space(str(folder / "tiny_rnn.toml")), len(text.words), 4)  # type: ignore[arg-type]
    weights = Weights(jax.tree.map(jax.nn.softmax, state.alpha))
    variables = {"params": state.params, "batch_stats": state.stats}
    outputs, _ = network.apply(variables, rows[:-1], jnp.zeros((10, 4)), weights)  # type: ignore[misc]
    told = jnp.take_along_axis(jax.nn.log_softmax(outputs.logits), rows[1:, :, None], -1)
    assert unbroken.metrics[-1]["valid_loss"] == pytest.approx(-float(told.mean()), rel=1e-5)


@pytest.mark.parametrize(("owner", "function", "call"), [(StageRun, "_advance", 5), (engine, "measure", 2)])
def test_a_killed_search_continues_to_the_same_bits(
    owner: Any, function: str, call: int, folder: Path, unbroken: SearchResult, tmp_path: Path
) -> None:
    config = tiny_text_search(folder, checkpoint_every_minutes=0.0)
    with death_at(owner, function, call):
        run_search(config, tmp_path / "run", stream=io.StringIO())
    resumed = run_search(config, tmp_path / "run", resume=True, stream=io.StringIO())
    assert_same_result(resumed, unbroken)


@pytest.mark.parametrize("method", ABLE)
def test_every_method_that_can_searches_text(method: str, folder: Path) -> None:
    own: dict[str, Any] = {
        "r-darts-l2": {"strengths": "1e-4,1e-2", "retrain_epochs": 1},
        "random-ws": {"selection_samples": 6, "selection_batches": 2, "selection_finalists": 2},
        "darts-pt": {"projection_interval": 1},
        "sdarts-rs-pt": {"projection_interval": 1},
        "idarts": {"inner_steps": 2},
        "darts-es": {"epochs": 6, "es_threshold": 1e-6, "es_first_epoch": 0},
        "darts-ada": {"epochs": 6, "es_threshold": 1e-6, "es_first_epoch": 0},
    }
    config = tiny_text_search(folder, **{"method": method, "epochs": 1, **own.get(method, {})})
    config.check()
    result = run_search(config, folder / method, stream=io.StringIO())
    assert result.genotype.cell_types == ("recurrent",) and result.genotype.num_nodes == 2
    assert (result.run_dir / "report.html").stat().st_size > 1000


@pytest.mark.parametrize("hypergradient", ["unrolled", "finite_difference", "neumann", "conjugate_gradient"])
def test_every_hypergradient(hypergradient: str, folder: Path) -> None:
    config = tiny_text_search(folder, hypergradient=hypergradient, epochs=1, curvature_every=0, spectrum_size=0)
    result = run_search(config, folder / hypergradient, stream=io.StringIO())
    assert math.isfinite(result.metrics[-1]["hypergradient_norm"])


def test_members_of_a_population_equal_searches_alone(folder: Path) -> None:
    changes: dict[str, Any] = {"epochs": 1, "curvature_every": 0, "spectrum_size": 0}
    together = run_search(
        tiny_text_search(folder, population=2, retrain_epochs=0, population_mapping="map", **changes),
        folder / "population",
        stream=io.StringIO(),
    )
    alone = run_search(tiny_text_search(folder, seed=1, data_seed=0, **changes), folder / "alone", stream=io.StringIO())
    member = read_lines(folder / "population" / "member_1" / "metrics.jsonl")
    assert without_times(member) == without_times(alone.metrics)
    assert isinstance(together.state, list)
    assert_same_state(together.state[1], alone.state)


@pytest.fixture(scope="module")
def trained(folder: Path) -> EvaluationResult:
    return run_evaluation(tiny_text_evaluation(folder), folder / "trained", stream=io.StringIO())


def test_an_evaluation_records_everything(trained: EvaluationResult) -> None:
    result = json.loads((trained.run_dir / "result.json").read_text())
    last = trained.metrics[-1]
    assert result["test_perplexity"] == trained.test_perplexity == pytest.approx(math.exp(last["test_loss"]))
    assert trained.best_epoch is not None and trained.test_error is None
    assert trained.parameters == 7 * 4 + 7 + 8 * 8 + 2 * 4 * 8
    assert trained.parameters == sum(leaf.size for leaf in jax.tree.leaves(trained.state.params))
    assert "Test perplexity" in (trained.run_dir / "report.html").read_text()


def test_a_killed_evaluation_continues_to_the_same_bits(
    folder: Path, trained: EvaluationResult, tmp_path: Path
) -> None:
    config = tiny_text_evaluation(folder, checkpoint_every_minutes=0.0)
    with death_at(StageRun, "_advance", 9):
        run_evaluation(config, tmp_path / "run", stream=io.StringIO())
    resumed = run_evaluation(config, tmp_path / "run", resume=True, stream=io.StringIO())
    assert without_times(resumed.metrics) == without_times(trained.metrics)
    assert_same_state(resumed.state, trained.state)


def test_a_table_of_a_small_space(folder: Path) -> None:
    """Both architectures of one node, trained as an evaluation trains them."""
    space = folder / "one.toml"
    space.write_text('task = "language"\nnum_nodes = 1\noperations = ["tanh", "relu"]\n')
    shared = {"data_dir": str(folder / "text"), "epochs": 2, "batch_size": 10, "hidden": 4, "sequence_length": 5}
    write_text(folder / "text")
    config = TabulateConfig(space=str(space), **shared)
    config.check()
    result = run_tabulation(config, folder / "table", stream=io.StringIO())
    entries = read_lines(folder / "table" / "metrics.jsonl")
    assert len(entries) == 2 == len(result.table.entries)
    (first,) = (entry for entry in entries if entry["genotype"]["recurrent"] == [["relu", 0]])
    alone = tiny_text_evaluation(folder, genotype="Genotype(recurrent=[('relu', 0)], concat=[1])", epochs=2)
    trained = run_evaluation(alone, folder / "table_alone", stream=io.StringIO())
    assert first["test_perplexity"] == trained.test_perplexity


def test_averaging_begins_where_the_loss_stops_falling(folder: Path) -> None:
    """With a learning rate this large it does so at once. What is measured is the mean then, also of a resumed run."""
    config = tiny_text_evaluation(folder, epochs=8, learning_rate=80.0, clip_norm=1.0, averaging_patience=1)
    result = run_evaluation(config, folder / "averaged", stream=io.StringIO())
    on = [record["averaging"] for record in result.metrics]
    (event,) = json.loads((folder / "averaged" / "events.json").read_text())
    first = on.index(1.0)
    assert event == {"action": "change", "decided_at": first - 1, "averaging": 1.0}
    assert on == [0.0] * first + [1.0] * (8 - first) and first >= 3
    state = result.state
    assert int(state.method_state.steps) > 0
    assert not np.allclose(state.params["bias"], state.method_state.params["bias"])
    with death_at(engine, "measure", first + 2):
        run_evaluation(config, folder / "averaged_again", stream=io.StringIO())
    resumed = run_evaluation(config, folder / "averaged_again", resume=True, stream=io.StringIO())
    assert without_times(resumed.metrics) == without_times(result.metrics)
    assert_same_state(resumed.state, state)


def test_a_training_begins_an_epoch_again_where_a_loss_is_not_finite(
    folder: Path, trained: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as masks happen to make one; it goes on from the end of the epoch before."""
    original, times = StageRun._check_finite, 2

    def check(self: StageRun, value: Any, totals: Any, epoch: int, step: int) -> None:
        is_bad = epoch == 1 and self.restarts < times and step == self.steps.calendar.end(0) + 2
        original(self, jnp.float32(jnp.nan) if is_bad and value is not None else value, totals, epoch, step)

    monkeypatch.setattr(StageRun, "_check_finite", check)
    config = tiny_text_evaluation(folder)
    result = run_evaluation(config, tmp_path / "run", stream=io.StringIO())
    events = json.loads((tmp_path / "run" / "events.json").read_text())
    assert events == [{"action": "restart", "epoch": 1, "times": n} for n in (1, 2)]
    lines, before = without_times(result.metrics), without_times(trained.metrics)
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[0] == before[0] and lines[1] != before[1]
    times = 99
    with pytest.raises(RunError, match="not finite in epoch 1"):
        run_evaluation(config, tmp_path / "never", stream=io.StringIO())
    assert evaluate_plans.RESTARTS == 10


def test_published_difference_is_another_estimate(folder: Path) -> None:
    changes: dict[str, Any] = {"hypergradient": "finite_difference", "epochs": 1, "curvature_every": 0}
    changes |= {"spectrum_size": 0, "clip_norm": 1e-2}
    ours, published = (
        run_search(
            tiny_text_search(folder, published_difference=flag, **changes),
            folder / f"difference_{flag}",
            stream=io.StringIO(),
        ).metrics[-1]["hypergradient_norm"]
        for flag in (False, True)
    )
    assert math.isfinite(published) and published != ours


def test_another_text_is_refused_when_a_run_is_continued(folder: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "text")
    config = tiny_text_search(folder, data_dir=str(tmp_path / "text"))
    with death_at(engine, "measure", 2):
        run_search(config, tmp_path / "run", stream=io.StringIO())
    (tmp_path / "text" / "valid.txt").write_text("ad be cd\n" * 40)
    with pytest.raises(InputError, match="data"):
        run_search(config, tmp_path / "run", resume=True, stream=io.StringIO())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": "rnn", "hidden": 0}, "hidden must be at least 1; got 0"),
        ({"space": "rnn", "image_size": 16}, "image_size 16 is only for images; space 'rnn' is for text"),
        ({"space": "rnn", "channels": 8}, "channels 8 is only for images"),
        ({"space": "s1", "hidden": 8}, "hidden 8 is only for text; space 's1' is for images"),
        ({"space": "rnn", "method": "pc-darts"}, "method 'pc-darts' cannot search space 'rnn'"),
        ({"space": "rnn", "partial_channels": 4}, "partial_channels 4 is only for images"),
        ({"space": "rnn", "single_level": True, "hypergradient": "first_order"}, "single_level True is only for im"),
        ({"space": "rnn", "dropout_x": 1.0}, "dropout_x must be at least 0 and less than 1; got 1.0"),
        ({"space": "rnn", "sequence_length": 1}, "sequence_length must be at least 2; got 1"),
        ({"space": "rnn", "published_difference": True}, "only for hypergradient finite_difference"),
    ],
)
def test_searches_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchConfig(**values)


def test_data_that_cannot_be_used(folder: Path) -> None:
    for changes, message in (
        ({"batch_size": 60}, "batch_size must be at most 5[0-9], not 60"),
        ({"sequence_length": 40}, "sequence_length must be at most"),
        ({"data_dir": str(folder / "nowhere")}, "nowhere"),
        ({"devices": 2}, "devices must be at most 1"),
        ({"method": "darts-pt", "projection_none": True}, "projection_none cannot be used in space 'tiny_rnn'"),
    ):
        config = tiny_text_search(folder, **changes)
        with pytest.raises(InputError, match=message):
            run_search(config, folder / "refused", stream=io.StringIO())
        assert not (folder / "refused").exists()


def test_evaluations_that_cannot_be(folder: Path) -> None:
    from jaxdarts.evaluate import choose_genotype

    with pytest.raises(InputError, match="does not belong to space 'rnn'"):
        choose_genotype(EvaluateConfig(genotype="AmoebaNet-A", space="rnn"))
    with pytest.raises(InputError, match="does not belong to space 's1'"):
        choose_genotype(EvaluateConfig(genotype="ENAS", space="s1"))
    with pytest.raises(InputError, match="image_size 16 is only for images; genotype 'ENAS' is for text"):
        EvaluateConfig(genotype="ENAS", image_size=16)
    with pytest.raises(InputError, match="hidden 8 is only for text; genotype 'DARTS_V2' is for images"):
        EvaluateConfig(genotype="DARTS_V2", hidden=8)
    assert choose_genotype(EvaluateConfig(genotype="DARTS_V2", space="rnn")).cell_types == ("recurrent",)
    assert choose_genotype(EvaluateConfig(genotype="DARTS_V2")).cell_types == ("normal", "reduce")


def test_presets_of_text() -> None:
    quick, paper = SearchConfig(space="rnn"), SearchConfig(space="rnn", preset="paper", data_dir="ptb")
    assert (quick.dataset, quick.hidden, quick.alpha_b1, quick.clip_virtual_step) == ("pydoc", 64, 0.9, True)
    assert quick.hypergradient == paper.hypergradient == "first_order"
    expected = {
        "dataset": "folder",
        "epochs": 50,
        "batch_size": 256,
        "hidden": 300,
        "sequence_length": 35,
        "learning_rate": 20.0,
        "learning_rate_min": None,
        "momentum": 0.0,
        "l2": 5e-7,
        "clip_norm": 0.25,
        "dropout_output": 0.75,
        "dropout_hidden": 0.25,
        "dropout_x": 0.75,
        "dropout_input": 0.2,
        "dropout_embedding": 0.0,
        "activation_penalty": 0.0,
        "slowness_penalty": 1e-3,
        "alpha_learning_rate": 3e-3,
        "alpha_b1": 0.9,
        "alpha_b2": 0.999,
        "alpha_l2": 1e-3,
        "clip_virtual_step": True,
    }
    assert {name: getattr(paper, name) for name in expected} == expected
    training = EvaluateConfig(genotype="ENAS", preset="paper", data_dir="ptb")
    changed = {"epochs": 8000, "batch_size": 64, "hidden": 850, "l2": 8e-7, "dropout_embedding": 0.1}
    same = ("dataset", "sequence_length", "learning_rate", "clip_norm", "dropout_output", "dropout_x", "momentum")
    assert {name: getattr(training, name) for name in changed} == changed
    assert {name: getattr(training, name) for name in same} == {name: expected[name] for name in same}
    assert training.averaging_patience == 5


def test_a_calendar_of_epochs_of_different_lengths() -> None:
    lengths = [3, 1, 4, 2]

    def never(*arguments: Any) -> Any:
        raise AssertionError

    stream = Stream((), 0, 3, never, never, never, never, never, steps_in=lambda epoch: lengths[epoch % 4])
    calendar = Calendar(stream)
    assert [calendar.start(epoch) for epoch in range(6)] == [0, 3, 4, 8, 10, 13]
    assert [Calendar(stream).epoch(step) for step in range(14)] == [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 5]
    even = Calendar(stream._replace(steps_in=None))
    assert (even.start(5), even.end(5), even.epoch(17), even.epoch(18)) == (15, 18, 5, 6)


def test_the_kind_of_task_says_what_it_measures() -> None:
    kind = language.LANGUAGE
    assert kind.objective in kind.metrics and kind.result == "perplexity"
