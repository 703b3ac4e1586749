"""Searches in stages: what each stage is given by the one before, their files, and that nothing that ends them early
changes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import read_lines
from jaxdarts.methods import METHODS
from jaxdarts.methods.dots import decided_operations
from jaxdarts.methods.p_darts import pruned
from jaxdarts.plans import perturbation
from jaxdarts.plans.base import Ended
from jaxdarts.plans.p_darts import p_darts_plan
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.staged import STAGED
from jaxdarts.reports.sweep_record import read_result
from jaxdarts.runs import engine
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import SearchSpace, discretise, load_genotype, space_from_json
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_result, without_times
from tests.runs.dying import death_at
from tests.runs.tiny import EAGER, tiny_config

QUICK: dict[str, Any] = {"spectrum_size": 0, "curvature_every": 0, "channels": 2}
CASES: dict[str, dict[str, Any]] = {
    "p-darts": {"stage_cells": "3,4", "stage_operations": "3,2", "stage_dropout": "0.3,0.2"},
    "dots": {"epochs": 4},
    "darts-pt": {},
    "sdarts-rs-pt": {"projection_none": True},
}
STAGES = {
    "p-darts": ["stage_1", "stage_2"],
    "dots": ["operations", "topology"],
    "darts-pt": ["supernet", "projection"],
    "sdarts-rs-pt": ["supernet", "projection"],
}


def config(folder: Path, method: str, **changes: Any) -> SearchConfig:
    chosen = tiny_config(folder)
    fixed = {**chosen.given, **QUICK}
    return SearchConfig(**SearchConfig.used(fixed, {"method": method, **CASES[method], **changes}))


def run(folder: Path, method: str, name: str, resume: bool = False, **changes: Any) -> SearchResult:
    return run_search(config(folder, method, **changes), folder / name, resume=resume, stream=io.StringIO())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> dict[str, SearchResult]:
    return {method: run(folder, method, f"unbroken_{method}") for method in CASES}


def test_every_method_in_stages_has_a_plan() -> None:
    assert set(STAGED) == set(CASES) == {name for name, entry in METHODS.items() if entry.in_stages}


@pytest.mark.parametrize("method", CASES)
def test_folders(unbroken: dict[str, SearchResult], method: str) -> None:
    """Each stage is a search that can be read by itself; the run's own folder has the last one's genotype."""
    found = unbroken[method]
    recorded = json.loads((found.run_dir / "config.json").read_text())
    assert recorded["stages"] == STAGES[method] and recorded["method"] == method
    for name in STAGES[method]:
        own = found.run_dir / name
        config = json.loads((own / "config.json").read_text())
        lines = read_lines(own / "metrics.jsonl")
        assert config["stage"] == name and config["part_of"] == ".." and len(lines) == config["epochs"]
        assert load_genotype(own / "genotype.json").to_json() == lines[-1]["genotype"]
        page = (own / "report.html").read_text()
        assert "Operation strengths" in page and "unfinished" not in page.partition("<body")[2][:2000]
    assert load_genotype(found.run_dir / "genotype.json") == found.genotype
    assert load_genotype(found.run_dir / STAGES[method][-1] / "genotype.json") == found.genotype
    page = (found.run_dir / "report.html").read_text()
    assert all(f'<a href="{name}/report.html">' in page for name in STAGES[method])
    assert read_result(found.run_dir)["valid_accuracy"] == found.metrics[-1]["valid_accuracy"]


def spaces(found: SearchResult, method: str) -> list[Any]:
    configs = [json.loads((found.run_dir / name / "config.json").read_text()) for name in STAGES[method]]
    return [space_from_json(one["search_space"]) for one in configs]


def test_p_darts_grows_and_narrows(unbroken: dict[str, SearchResult]) -> None:
    found = unbroken["p-darts"]
    first, second = spaces(found, "p-darts")
    last = read_lines(found.run_dir / "stage_1" / "metrics.jsonl")[-1]
    assert second == pruned(first, last["alpha"], {cell: [2, 2] for cell in first.cell_types})
    assert {len(edge) for edge in second.normal + second.reduce} == {2}
    cells = [json.loads((found.run_dir / s / "config.json").read_text())["cells"] for s in STAGES["p-darts"]]
    assert cells == [3, 4]
    # Alpha rests in the first of two epochs; then the dropout is back at its start.
    assert [line["skip_dropout"] for line in found.metrics] == [pytest.approx(0.1), pytest.approx(0.2)]


def test_a_third_stage_begins_where_the_second_ended(tmp_path: Path) -> None:
    """By folders as stages leave them: what the second had left counts, and how many the third is to keep."""
    space = SearchSpace.uniform("four", ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3"), num_nodes=1)
    settings = SearchConfig(method="p-darts", stage_operations="4,3,2")
    plan = p_darts_plan(settings, space)
    ended: list[Any] = []
    found = space
    for number, row in enumerate(([3.0, 2, 1, 0], [0.0, 2, 1])):
        folder, stage = tmp_path / str(number), plan(ended)
        assert stage is not None and stage.settings is not None
        assert stage.settings["search_space"] == found.to_json() and stage.settings["cells"] == (3, 4, 5)[number]
        folder.mkdir()
        alpha = {cell: [row] * 2 for cell in space.cell_types}
        genotype = discretise(found, {cell: np.ones(found.alpha_shape(cell)) for cell in space.cell_types})
        for name, value in (
            ("config.json", stage.settings),
            ("diagnostics.json", {"epoch": 1}),
            ("genotype.json", genotype.to_json()),
            ("metrics.jsonl", {"epoch": 1, "alpha": alpha}),
        ):
            (folder / name).write_text(json.dumps(value) + "\n")
        ended.append(Ended(stage, [None], folder))
        found = pruned(found, alpha, {cell: [3 - number] * 2 for cell in space.cell_types})
    last = plan(ended)
    assert last is not None and last.settings is not None
    assert last.settings["search_space"]["normal"] == [["skip_connect", "max_pool_3x3"]] * 2
    assert plan([*ended, ended[-1]]) is None


@pytest.mark.parametrize("method", ["p-darts", "dots", "darts-pt"])
def test_what_a_stage_begins_with(folder: Path, method: str) -> None:
    """New weights and a new alpha; the projection begins with the supernet's, and with a fresh momentum."""
    began: list[Any] = []
    start = engine.StageRun._start

    def seen(self: Any) -> Any:
        found = start(self)
        began.append(found[0][0])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.StageRun, "_start", seen)
        run(folder, method, f"seen_{method}")
    first, second = began
    stems = [np.asarray(state.params["stem"]["conv"]["kernel"]) for state in began]
    if method == "darts-pt":
        assert (stems[0] != stems[1]).any() and (first.alpha["normal"] != second.alpha["normal"]).any()
        last = read_lines(folder / f"seen_{method}" / "supernet" / "metrics.jsonl")[-1]
        ended = np.asarray(last["alpha"]["normal"], np.float32)
        np.testing.assert_array_equal(np.asarray(second.alpha["normal"]), ended)
    else:  # drawn by the same key, where the shape is the same
        np.testing.assert_array_equal(*stems)
        assert np.abs(second.alpha["normal"]).max() <= (0.01 if method == "p-darts" else 0)
    for state in began:
        assert not np.asarray(jax.tree.leaves(state.opt_state.inner_state)[0]).any() and int(state.step) == 0


def test_dots_decides_operations_and_then_edges_on_one_schedule(unbroken: dict[str, SearchResult]) -> None:
    found = unbroken["dots"]
    first, second = spaces(found, "dots")
    lines = [read_lines(found.run_dir / name / "metrics.jsonl") for name in STAGES["dots"]]
    assert second == decided_operations(first, lines[0][-1]["alpha"])
    rates = [line["learning_rate"] for part in lines for line in part]
    expected = 0.025 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert [line["temperature"] for line in lines[1]] == [1.0, 10.0]
    assert set(found.metrics[-1]["alpha_combinations"]) == {"normal", "reduce"}
    own = json.loads((found.run_dir / "topology" / "config.json").read_text())
    assert own["single_level"] and own["alpha_b1"] == 0.9
    assert not json.loads((found.run_dir / "operations" / "config.json").read_text())["single_level"]


def test_the_projection_begins_with_the_supernet(folder: Path, unbroken: dict[str, SearchResult]) -> None:
    """Nothing was decided and trained before the first decision: what it saw is the supernet without one operation."""
    found = unbroken["darts-pt"]
    lines = found.metrics
    assert len(lines) == 2  # one for each edge of a cell; its only node keeps both
    first, second = (line["projection"] for line in lines)
    assert [decision["cell"] for decision in first] == ["normal", "reduce"]
    alpha = read_lines(found.run_dir / "supernet" / "metrics.jsonl")[-1]["alpha"]
    for decision in first:
        row = np.array(alpha[decision["cell"]][decision["edge"]])
        weights = np.exp(row) / np.exp(row).sum()
        np.testing.assert_allclose(decision["weights"], weights[1:], rtol=1e-5)  # `none` is no candidate
        assert decision["chosen"] == decision["candidates"][int(np.argmin(decision["accuracy"]))]
    edges = {decision["cell"]: {first[i]["edge"], second[i]["edge"]} for i, decision in enumerate(first)}
    assert edges == {"normal": {0, 1}, "reduce": {0, 1}}
    chosen = {(d["cell"], d["edge"]): d["chosen"] for line in lines for d in line["projection"]}
    for cell in ("normal", "reduce"):
        assert {(cell, source): name for name, source in found.genotype.edges(cell)} == {
            key: value for key, value in chosen.items() if key[0] == cell
        }
    assert lines[0]["learning_rate"] == lines[1]["learning_rate"] == pytest.approx(0.0025)
    told = json.loads((found.run_dir / "projection" / "diagnostics.json").read_text())["selections"]
    assert list(told) == ["random", "alpha", "objective"]
    assert told["alpha"]["genotype"] == read_lines(found.run_dir / "supernet" / "metrics.jsonl")[-1]["genotype"]


@pytest.mark.parametrize(("method", "call"), [("p-darts", 10), ("dots", 10), ("darts-pt", 2), ("darts-pt", 10)])
def test_a_killed_run_goes_on(folder: Path, unbroken: dict[str, SearchResult], method: str, call: int) -> None:
    """In the middle of either stage, with a checkpoint after every step."""
    changes, name = {"checkpoint_every_minutes": 0.0}, f"killed_{method}_{call}"
    with death_at(engine.RunProgress, "advance", call):
        run(folder, method, name, **changes)
    resumed = run(folder, method, name, resume=True, **changes)
    assert_same_result(resumed, unbroken[method])
    for stage in STAGES[method]:
        lines = [read_lines(one.run_dir / stage / "metrics.jsonl") for one in (resumed, unbroken[method])]
        assert without_times(lines[0]) == without_times(lines[1])


def test_a_run_that_has_ended_can_be_asked_again(folder: Path, unbroken: dict[str, SearchResult]) -> None:
    assert_same_result(run(folder, "dots", "unbroken_dots", resume=True), unbroken["dots"])


def test_no_decision_compiles_anything(folder: Path) -> None:
    """Of the projection's epochs only the first does, whatever the others decide."""
    run(folder, "darts-pt", "counted", seed=5)
    found = folder / "counted" / "supernet"
    settings = SearchConfig(method="darts-pt", from_run=str(found), projection_interval=1)
    assert_compiles_in_the_first_epoch_only(
        lambda: run_search(settings, folder / "counted_again", stream=io.StringIO()), 2
    )


@pytest.mark.parametrize("method", ["gdas", "random-ws", "r-darts-l2"])
def test_any_ended_search_can_be_projected(folder: Path, method: str) -> None:
    own: dict[str, Any] = {"strengths": "3e-4,9e-4", "retrain_epochs": 0} if method == "r-darts-l2" else {}
    base = tiny_config(folder, method=method, spectrum_size=0, curvature_every=0, **own)
    run_search(base, folder / f"ended_{method}", stream=io.StringIO())
    settings = SearchConfig(method="darts-pt", from_run=str(folder / f"ended_{method}"), projection_criterion="loss")
    found = run_search(settings, folder / f"projected_{method}", stream=io.StringIO())
    assert found.genotype.num_nodes == 1 and len(found.metrics) == 2
    recorded = json.loads((found.run_dir / "config.json").read_text())
    assert recorded["stages"] == ["projection"] and recorded["space"] == base.space and recorded["limit"] == 80
    again = run_search(
        SearchConfig(**{**perturbation.completed(settings).given}), found.run_dir, resume=True, stream=io.StringIO()
    )
    assert_same_result(again, found)


def test_the_state_of_the_end_is_taken(folder: Path, unbroken: dict[str, SearchResult]) -> None:
    """Weights and alpha, bit for bit; of an early stop those of the epoch that was returned."""
    base = tiny_config(folder, method="darts-es", spectrum_size=0, **EAGER)
    ended = run_search(base, folder / "stopped", stream=io.StringIO())
    settings = perturbation.completed(SearchConfig(method="darts-pt", from_run=str(ended.run_dir), seed=3))
    origin = perturbation.find_origin(settings)

    def restore(path: Path, step: int, like: Any) -> Any:
        return Checkpoints(path / "checkpoints").restore(step, like).state

    found = perturbation._end_of(origin, None, restore)
    assert not isinstance(ended.state, list)
    jax.tree.map(np.testing.assert_array_equal, found.params, ended.state.params)
    jax.tree.map(np.testing.assert_array_equal, found.alpha, ended.state.alpha)
    assert settings.data_seed == 0 and settings.seed == 3
    assert int(found.step) == 4  # of 24


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"from_run": "nowhere"}, "is not the folder of a run; name that of a search that has ended"),
    ({"from_run": "unbroken_dots"}, "is a search in stages; name the supernet's, "),
    ({"from_run": "unbroken_darts-pt/projection"}, "is a projection itself; name the search that it began with"),
    ({"from_run": "unfinished"}, "has not ended; python -m jaxdarts.search --resume --run-dir"),
    ({"from_run": "ended", "space": "s3"}, "space 's3' is not that of the run in"),
    ({"from_run": "ended", "channels": 7}, "channels 7 is not that of the run in"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_runs_that_cannot_be_projected(
    folder: Path, unbroken: dict[str, SearchResult], given: dict[str, Any], message: str
) -> None:
    if not (folder / "ended").exists():
        run_search(tiny_config(folder, **QUICK), folder / "ended", stream=io.StringIO())
        run_search(tiny_config(folder, **QUICK), folder / "unfinished", stream=io.StringIO())
        (folder / "unfinished" / "genotype.json").unlink()
    given = {**given, "from_run": str(folder / given["from_run"])}
    with pytest.raises(InputError) as error:
        run_search(SearchConfig(method="darts-pt", **given), folder / "refused", stream=io.StringIO())
    assert message in str(error.value) and not (folder / "refused").exists()


def test_a_run_by_relative_paths_is_projected_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are found below the folder that it was started in; other data than it saw are refused."""
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    monkeypatch.chdir(there)
    base = tiny_config(there, **QUICK).replace(space="tiny.toml")
    run_search(base, there / "run", stream=io.StringIO())
    monkeypatch.chdir(here)
    settings = SearchConfig(method="darts-pt", from_run=str(there / "run"), projection_criterion="alpha")
    found = run_search(settings, here / "projected", stream=io.StringIO())
    assert len(found.metrics) == 2
    monkeypatch.chdir(there)  # where the space's name is the recorded one again
    given = perturbation.completed(settings.replace(space="tiny.toml")).given
    assert_same_result(run_search(SearchConfig(**given), found.run_dir, resume=True, stream=io.StringIO()), found)
    path = there / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_digest": "0" * 64}))
    with pytest.raises(InputError, match="from: the data of 'digits' have changed since the run in"):
        run_search(settings, here / "refused", stream=io.StringIO())
    assert not (here / "refused").exists()


def test_several_processes_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(
        InputError, match="method 'dots' searches in stages, which several processes cannot do together"
    ):
        run(folder, "dots", "processes")
    assert not (folder / "processes").exists()


def test_a_search_without_a_supernet_cannot_be_projected(folder: Path) -> None:
    run_search(tiny_config(folder, method="random"), folder / "drawn", stream=io.StringIO())
    settings = SearchConfig(method="darts-pt", from_run=str(folder / "drawn"))
    with pytest.raises(InputError, match="has no supernet: method 'random' trains none"):
        run_search(settings, folder / "refused", stream=io.StringIO())
    assert not (folder / "refused").exists()


def test_a_population_in_stages_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="population must be 1 for method 'dots', which searches in stages; got 2"):
        run(folder, "dots", "population", population=2)
