"""Does a run obey its method, wherever it is killed?"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.bilevel import get_hyperparameters, set_hyperparameters
from jaxdarts.errors import RunError
from jaxdarts.json_files import read_lines as read_metrics
from jaxdarts.plans import search as search_plan
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.reports import write
from jaxdarts.runs.members import Member
from jaxdarts.runs.stage_checkpoints import StageCheckpoints
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import load_genotype
from tests.runs.comparing import assert_same_result, assert_same_state, without_times
from tests.runs.dying import death_at
from tests.runs.stepping import by_hand
from tests.runs.tiny import EAGER, tiny_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verdicts")


def run(config: SearchConfig, path: Path, resume: bool = False) -> SearchResult:
    return run_search(config, path, resume=resume, stream=io.StringIO())


@pytest.fixture(scope="module")
def plain(folder: Path) -> SearchResult:
    return run(plain_config(folder), folder / "plain")


def plain_config(folder: Path) -> SearchConfig:
    return tiny_config(folder, epochs=EAGER["epochs"], checkpoints_to_keep=EAGER["checkpoints_to_keep"])


@pytest.fixture(scope="module")
def stopped(folder: Path) -> SearchResult:
    return run(tiny_config(folder, method="darts-es", **EAGER), folder / "stopped")


@pytest.fixture(scope="module")
def adapted(folder: Path) -> SearchResult:
    return run(tiny_config(folder, method="darts-ada", **EAGER), folder / "adapted")


def events(result: SearchResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((result.run_dir / "events.json").read_text())
    return found


def test_a_stopped_search_is_the_beginning_of_the_one_that_goes_on(stopped: SearchResult, plain: SearchResult) -> None:
    assert [record["epoch"] for record in stopped.metrics] == [0, 1, 2, 3]

    def measured(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        # Smoothed over three measurements here and five there.
        return [{**record, "local_average": None} for record in without_times(records)]

    assert measured(stopped.metrics) == measured(plain.metrics[:4])
    assert not (plain.run_dir / "events.json").exists()


def test_a_stopped_search_returns_the_earlier_epoch(stopped: SearchResult, folder: Path) -> None:
    (event,) = events(stopped)
    assert (event["action"], event["decided_at"], event["epoch"]) == ("stop", 3, 0)
    first = stopped.metrics[0]["genotype"]
    assert event["genotype"] == first == load_genotype(stopped.run_dir / "genotype.json").to_json()
    search = by_hand(plain_config(folder))
    assert_same_state(stopped.state, search.epochs(search.init(), range(1)))
    assert json.loads((stopped.run_dir / "diagnostics.json").read_text())["epoch"] == 0
    page = (stopped.run_dir / "report.html").read_text()
    assert "Stopped after epoch 3; the genotype of epoch 0 is returned." in page


def test_a_stopped_search_is_not_continued(stopped: SearchResult, folder: Path) -> None:
    again = run(tiny_config(folder, method="darts-es", **EAGER), stopped.run_dir, resume=True)
    assert_same_result(again, stopped)


def test_after_a_roll_back_only_l2_is_another(adapted: SearchResult, folder: Path) -> None:
    search = by_hand(plain_config(folder))
    state = search.epochs(search.init(), range(1))
    state = dataclasses.replace(state, opt_state=set_hyperparameters(state.opt_state, l2=0.03))
    assert_same_state(adapted.state, search.epochs(state, range(1, 6)))
    assert float(get_hyperparameters(adapted.state.opt_state)["l2"]) == pytest.approx(0.03)


def test_metrics_and_genotypes_go_back_too(adapted: SearchResult, plain: SearchResult) -> None:
    assert [record["epoch"] for record in adapted.metrics] == list(range(6))
    assert [record["step"] for record in adapted.metrics] == [4 * (epoch + 1) for epoch in range(6)]
    assert [record["l2"] for record in adapted.metrics] == [3e-4] + 5 * [0.03]
    assert [record["learning_rate"] for record in adapted.metrics] == [r["learning_rate"] for r in plain.metrics]
    files = sorted((adapted.run_dir / "genotypes").iterdir())
    assert [json.loads(file.read_text()) for file in files] == [record["genotype"] for record in adapted.metrics]
    assert read_metrics(adapted.run_dir / "metrics.jsonl") == adapted.metrics


def test_roll_backs_are_recorded_with_what_early_stopping_would_return(
    adapted: SearchResult, stopped: SearchResult, plain: SearchResult
) -> None:
    first, second = events(adapted)
    assert (first["action"], first["decided_at"], first["epoch"]) == ("roll back", 3, 0)
    assert (first["l2_before"], first["l2"], second["l2_before"], second["l2"]) == (3e-4, 3e-3, 3e-3, 0.03)
    assert first["genotype"] == stopped.genotype.to_json()
    abandoned = [record["dominant_eigenvalue"] for record in first["abandoned"]]
    assert abandoned == [record["dominant_eigenvalue"] for record in plain.metrics[1:4]]
    page = (adapted.run_dir / "report.html").read_text()
    assert "Went back from epoch 3 to the end of epoch 0, L2 from 0.0003 to 0.003." in page


# Checkpoints of the unbroken run: epochs 0, 1, 2, back to 0, 1, 2, back to 0, 1, ..., 5. `forget` is also called once
# at the start.
@pytest.mark.parametrize(("function", "call"), [("save", 4), ("forget", 2), ("save", 5)])
def test_death_around_a_roll_back_changes_nothing(
    function: str, call: int, folder: Path, adapted: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before a checkpoint is written, or between it and the files."""
    config, path = tiny_config(folder, method="darts-ada", **EAGER), folder / f"killed_{function}{call}"
    monkeypatch.setattr(write, "write_pages", lambda _: None)  # it takes as long as the search
    with death_at(Member if function == "forget" else StageCheckpoints, function, call):
        run(config, path)
    resumed = run(config, path, resume=True)
    assert_same_result(resumed, adapted)
    for name in ("events.json", "genotype.json", "diagnostics.json"):
        assert (path / name).read_bytes() == (adapted.run_dir / name).read_bytes(), name
    assert len(list((path / "genotypes").iterdir())) == 6


def test_a_checkpoint_that_is_gone_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(folder, method="darts-ada", **EAGER)
    monkeypatch.setattr("jaxdarts.runs.checkpoint.Checkpoints._newest_of", lambda self, step: None)
    with pytest.raises(RunError, match="there is no checkpoint of step 4"):
        run(config, folder / "gone")


@pytest.mark.parametrize("method", ["random", "random-ws"])
def test_random_searches(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"selection_samples": 20, "selection_batches": 1, "selection_finalists": 3}
    settings = settings | {"select_every": 1} if method == "random-ws" else {}
    config, path = tiny_config(folder, method=method, **settings), folder / method
    with monkeypatch.context() as patch:
        patch.setattr(search_plan, "diagnose", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config, path)
    resumed, unbroken = run(config, path, resume=True), run(config, folder / f"{method}_unbroken")
    assert_same_result(resumed, unbroken)
    assert (path / "diagnostics.json").read_text() == (unbroken.run_dir / "diagnostics.json").read_text()
    found = json.loads((path / "diagnostics.json").read_text())
    assert found["discretisation"] is found["eigenvalues"] is None
    last = unbroken.metrics[-1]
    assert last["alpha"] is last["dominant_eigenvalue"] is last["alpha_loss"] is None
    assert "No strengths were recorded." in (path / "report.html").read_text()
    if method == "random":
        assert len(unbroken.metrics) == 1 and last["valid_accuracy"] is None
        other = run(config.replace(seed=2), folder / "another_seed")
        assert other.genotype != unbroken.genotype
    else:
        assert len(unbroken.metrics) == 2
        accuracies = [candidate["accuracy"] for candidate in found["candidates"]]
        assert len(accuracies) == 3 and accuracies == sorted(accuracies, reverse=True)
        assert found["candidates"][0]["genotype"] == unbroken.genotype.to_json()
        # What is selected on the way is what a shorter search would return, and changes nothing.
        assert last["selected"] == unbroken.genotype.to_json() and last["selected_accuracy"] == accuracies[0]
        plain = run(config.replace(select_every=0), folder / "at_the_end_only")
        assert plain.genotype == unbroken.genotype
        assert_same_state(plain.state, unbroken.state)
        kept = [{k: v for k, v in entry.items() if not k.startswith("selected")} for entry in unbroken.metrics]
        assert without_times(kept) == without_times(plain.metrics) and kept != unbroken.metrics
        second = run(config.replace(select_every=2), folder / "every_second")
        assert ["selected" in entry for entry in second.metrics] == [False, True]
