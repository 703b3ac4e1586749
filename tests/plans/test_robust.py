"""Is every member of a population the search that it would be alone, and nothing lost wherever the run is stopped?"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.json_files import read_lines as read_metrics
from jaxdarts.methods import Stop
from jaxdarts.plans import robust, search
from jaxdarts.plans.evaluate import build_evaluation
from jaxdarts.plans.members import member_settings
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.reports import write
from jaxdarts.reports.sweep_record import read_result
from jaxdarts.runs import engine
from jaxdarts.runs.stage_checkpoints import StageCheckpoints
from jaxdarts.runs.steps import accumulate, cursors, make_steps, shared_devices, stack, unstack
from jaxdarts.runs.store import Store
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import load_genotype
from jaxdarts.tasks import kind_of
from jaxdarts.tasks.base import Metric
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_state, without_times
from tests.runs.dying import death_at
from tests.runs.tiny import EAGER, LONGER, tiny_config

MORE, LESS = Metric("more", percent=True), Metric("less")
ROBUST = ("r-darts-dp", "r-darts-l2")
# One of each kind: what stops, samples, rests or learns no alpha. tests/methods/test_every_method.py has all of them.
ALONE = ("beta-darts", "darts-es", "gdas", "idarts", "pc-darts", "random", "random-ws")
MEASURED = ("train_loss", "train_accuracy", "alpha_loss", "valid_loss", "valid_accuracy", "dominant_eigenvalue")


def robust_config(folder: Path, **changes: Any) -> SearchConfig:
    """Two members that differ in seed, drop path and cutout."""
    changes = {"method": "r-darts-dp", "strengths": "0,0.5", "cutout_length": 4, "retrain_epochs": 2} | changes
    return tiny_config(folder, **changes)


def double_config(folder: Path) -> SearchConfig:
    """In float64: in float32 what is rounded otherwise may flip a maximum, and with it the curvature."""
    return robust_config(
        folder, population_mapping="vmap", precision="float64", retrain_epochs=0, spectrum_size=0, epochs=1
    )


def run(config: SearchConfig, path: Path, resume: bool = False) -> SearchResult:
    return run_search(config, path, resume=resume, stream=io.StringIO())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("populations")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> SearchResult:
    return run(robust_config(folder), folder / "unbroken")


def contents(path: Path) -> dict[str, Any]:
    """What a run's files say, times and checkpoints excepted."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*.json*")):
        if "checkpoints" in file.parts:
            continue
        name = str(file.relative_to(path))
        found[name] = without_times(read_metrics(file)) if file.suffix == ".jsonl" else json.loads(file.read_text())
    return found


def assert_same_result(a: SearchResult, b: SearchResult) -> None:
    """Bit for bit, times excepted."""
    assert contents(a.run_dir) == contents(b.run_dir)
    assert_same_state(a.state, b.state)


def assert_same_measurements(a: list[dict[str, Any]], b: list[dict[str, Any]], tolerance: float) -> None:
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert {name: left[name] for name in ("epoch", "l2", "drop_path", "learning_rate", "genotype")} == {
            name: right[name] for name in ("epoch", "l2", "drop_path", "learning_rate", "genotype")
        }
        for name in MEASURED:
            close = pytest.approx(right[name], rel=tolerance, abs=tolerance) if right[name] is not None else None
            assert left[name] == close, name
        for cell, values in (left["alpha"] or {}).items():
            np.testing.assert_allclose(values, right["alpha"][cell], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("member", [0, 1])
def test_a_member_is_the_search_that_its_config_asks_for(folder: Path, unbroken: SearchResult, member: int) -> None:
    own = unbroken.run_dir / f"member_{member}"
    config = member_settings(robust_config(folder))[member]
    recorded = json.loads((own / "config.json").read_text())
    assert {name: recorded[name] for name in config.flat()} == config.flat()
    alone = run(config, folder / f"alone_{member}")
    # Rounding only: the population's program holds drop path and cutout, with probability 0, for the first member too.
    # It may flip a maximum, and with it change the curvature.
    assert_same_measurements(alone.metrics, read_metrics(own / "metrics.jsonl"), 2e-3)
    assert alone.genotype == load_genotype(own / "genotype.json")
    assert {path.name for path in own.iterdir()} >= {path.name for path in alone.run_dir.iterdir()} - {
        "checkpoints",
        "lock",
    }


@pytest.mark.parametrize("method", [*ALONE, *ROBUST])
def test_members_of_every_kind_of_method_are_searches_of_their_own(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where a method stops, the epoch that it returns is chosen afterwards, while the others go on."""
    monkeypatch.setattr(write, "write_pages", lambda _: None)  # it takes as long as the search
    changes: dict[str, Any] = {"method": method, "retrain_epochs": 0, "spectrum_size": 3}
    changes |= {"strengths": "0.01,0.02"} if method in ROBUST else {"population": 2}
    changes |= {"random-ws": {"selection_samples": 10}, "pc-darts": {"partial_channels": 1}}.get(method, {})
    config = tiny_config(folder, **changes, **(EAGER if method == "darts-es" else LONGER))
    result = run(config, folder / f"two_{method}")
    for i, own_config in enumerate(member_settings(config)):
        own, alone = result.run_dir / f"member_{i}", run(own_config, folder / f"one_{method}_{i}")
        records = read_metrics(own / "metrics.jsonl")
        assert_same_measurements(alone.metrics, records[: len(alone.metrics)], 1e-4)
        assert alone.genotype == load_genotype(own / "genotype.json")
        assert int(result.state[i].step) == int(alone.state.step)
        events = [read_events(path) for path in (own, alone.run_dir)]
        assert events[0] == events[1] and bool(events[0]) == (method in ("darts-es", "random"))
        found, expected = (json.loads((path / "diagnostics.json").read_text()) for path in (own, alone.run_dir))
        assert found["operations"] == expected["operations"] and found["epoch"] == expected["epoch"]
        for (path, number), (_, value) in zip(*map(jax.tree.leaves_with_path, (found, expected)), strict=True):
            if isinstance(value, int | float):
                assert number == pytest.approx(value, rel=1e-3, abs=1e-4), jax.tree_util.keystr(path)


def read_events(path: Path) -> list[tuple[Any, ...]]:
    file = path / "events.json"
    names = ("action", "decided_at", "epoch", "genotype")
    return [tuple(event[n] for n in names) for event in json.loads(file.read_text())] if file.exists() else []


def test_what_goes_back_is_run_as_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"population must be 1 where a search may go back .*jaxdarts.sweep"):
        run(tiny_config(tmp_path, method="darts-ada", population=2, **EAGER), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_members_differ_as_they_should(unbroken: SearchResult) -> None:
    first, second = (read_metrics(unbroken.run_dir / f"member_{i}" / "metrics.jsonl") for i in (0, 1))
    assert [record["drop_path"] for record in first + second] == [0, 0, 0, 0.5]
    assert first[0]["train_loss"] != second[0]["train_loss"]


@pytest.mark.parametrize("changes", [{"population_mapping": "vmap"}, {"step_compilation": "whole"}])
def test_every_mapping_gives_the_same(folder: Path, unbroken: SearchResult, changes: dict[str, str]) -> None:
    results = []
    for config in (robust_config(folder, **changes), robust_config(folder)):
        members = member_settings(config)
        built = robust.robust_plan(config, members)([]).build()  # type: ignore[union-attr]
        steps, totals = make_steps(built, jax.devices()), None
        carried = steps.join([experiment.start() for experiment in built.experiments])
        drawn = [cursors(experiment, 1, None) for experiment in built.experiments]
        for _ in range(2):
            carried, new = steps.step(carried, steps.data, drawn)
            totals, _ = accumulate(totals, new)
        results.append((steps.split(carried), steps.split(totals)))
    for left, right in zip(*map(jax.tree.leaves, results), strict=True):
        if not jax.numpy.issubdtype(left.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


def test_nothing_is_traced_or_compiled_after_the_first_epoch(folder: Path) -> None:
    config = robust_config(folder, epochs=3, population_mapping="vmap", retrain_epochs=0, spectrum_size=0)
    assert_compiles_in_the_first_epoch_only(lambda: run(config, folder / "counted"), config.epochs, lines=3)


def test_the_best_retrained_genotype_is_returned(unbroken: SearchResult) -> None:
    found = json.loads((unbroken.run_dir / "diagnostics.json").read_text())
    scores = [(-candidate["accuracy"], candidate["loss"]) for candidate in found["candidates"]]
    assert len(scores) == 2 and scores == sorted(scores) and found["chosen_by"] == "retraining"
    best = found["candidates"][0]
    assert best["member"] == found["member"] and best["genotype"] == unbroken.genotype.to_json()
    own = unbroken.run_dir / f"member_{best['member']}"
    assert load_genotype(unbroken.run_dir / "genotype.json") == load_genotype(own / "genotype.json")
    last = read_metrics(own / "retrain" / "metrics.jsonl")[-1]
    assert (best["accuracy"], best["loss"]) == (last["valid_accuracy"], last["valid_loss"])
    assert last["epoch"] == 1 and last["test_accuracy"] is None  # two epochs; test images are for the end
    page = (unbroken.run_dir / "report.html").read_text()
    assert f"that of member {best['member']} (seed {best['seed']}" in page
    for i in (0, 1):
        assert f'href="member_{i}/report.html"' in page
    assert read_result(unbroken.run_dir)["valid_accuracy"] == read_metrics(own / "metrics.jsonl")[-1]["valid_accuracy"]


def test_retraining_is_on_the_half_that_trains_w(folder: Path, unbroken: SearchResult) -> None:
    config = robust_config(folder)
    built = search.build_search(member_settings(config), config)
    settings = robust.retrain_settings(config, unbroken.genotype, "x")
    data = kind_of(unbroken.genotype).retraining_data(built.data)
    task = build_evaluation(settings, unbroken.genotype, data, "member_0").experiments[0].task
    assert task.train is not None and task.valid is not None and task.test is None
    assert task.train.data is built.data.train and task.valid.data is built.data.valid
    assert (settings.channels, settings.cells, settings.batch_size, settings.epochs) == (1, 3, 10, 2)
    assert (settings.l2, settings.drop_path, settings.cutout) == (3e-4, 0.2, True)


def test_ranking_is_by_the_objective_then_loss_then_order() -> None:
    assert robust.ranking([(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (0.5, 1.0)], MORE) == [2, 1, 0, 3]
    assert robust.ranking([(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (0.5, 1.0)], LESS) == [0, 3, 2, 1]


@pytest.mark.parametrize("metric", [MORE, LESS])
def test_what_is_not_finite_ranks_worst(metric: Metric) -> None:
    """It is null in the files; a loss of 0 is a number."""
    assert robust.ranking([(None, None), (0.1, None), (0.1, 5.0), (None, 0.1)], metric) == [2, 1, 3, 0]
    assert robust.ranking([(0.0, None), (None, 0.0), (0.0, 0.0)], metric) == [2, 0, 1]


def test_resume_after_an_interrupt_in_an_epoch_and_deaths_in_the_retraining(
    folder: Path, unbroken: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = folder / "interrupted", robust_config(folder)
    original = engine.RunProgress.advance
    seen: list[int] = []

    def advance(self: Any, step: int, epoch: int) -> None:
        original(self, step, epoch)
        seen.append(step)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(engine.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match=r"search --resume"):
            run(config, path)
    assert len(read_metrics(path / "member_1" / "metrics.jsonl")) == 1
    # As sudden as a kill, between the last lines of the two members.
    with death_at(Store, "append", 2):
        run(config, path, resume=True)
    assert [len(read_metrics(path / f"member_{i}" / "metrics.jsonl")) for i in (0, 1)] == [2, 1]
    # Between the results of the two members, which are then not found anew.
    with death_at(search, "conclude", 2):
        run(config, path, resume=True)
    assert [(path / f"member_{i}" / "genotype.json").exists() for i in (0, 1)] == [True, False]
    # Before the first checkpoint of a retraining.
    with death_at(StageCheckpoints, "save", 1):
        run(config, path, resume=True)
    # In the middle of a retraining, politely.
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(engine.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match=rf"search --resume --run-dir {path}$"):
            run(config, path, resume=True)
    assert not (path / "genotype.json").exists()
    resumed = run(config, path, resume=True)
    assert_same_result(resumed, unbroken)
    with monkeypatch.context() as patch:
        patch.setattr(engine.StageRun, "_epoch", _deadly)  # what has finished is not retrained
        assert_same_result(run(config, path, resume=True), unbroken)


def _deadly(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_a_member_and_its_retraining_are_not_resumed_alone(folder: Path, unbroken: SearchResult) -> None:
    config = member_settings(robust_config(folder))[0]
    with pytest.raises(InputError, match=r"is a part of the run in '.*unbroken'"):
        run(config, unbroken.run_dir / "member_0", resume=True)


def test_members_that_stop_are_left_as_they_are(folder: Path) -> None:
    """`random` stops after its first epoch, and the members' accuracies are unknown."""
    result = run(tiny_config(folder, method="random", population=2, retrain_epochs=0), folder / "random")
    assert len(result.metrics) == 1
    found = json.loads((result.run_dir / "diagnostics.json").read_text())
    assert found["chosen_by"] == "supernet" and [c["member"] for c in found["candidates"]] == [0, 1]
    for i in (0, 1):
        own = result.run_dir / f"member_{i}"
        assert json.loads((own / "events.json").read_text())[0]["action"] == "stop"
        config = member_settings(tiny_config(folder, method="random", population=2))[i]
        assert run(config, folder / f"random_{i}").genotype == load_genotype(own / "genotype.json")
    assert "Member 1: Stopped after epoch 0." in (result.run_dir / "report.html").read_text()
    assert_same_result(
        run(tiny_config(folder, method="random", population=2, retrain_epochs=0), result.run_dir, True), result
    )


SHARDED = """
import io, sys
from pathlib import Path
import jax
from tests.plans.test_robust import double_config
from jaxdarts.runs import steps
from jaxdarts.search import run_search
assert len(jax.devices()) == 3
used, mesh_of = set(), steps._mesh_of
steps._mesh_of = lambda devices: used.add(len(devices)) or mesh_of(devices)
folder = Path(sys.argv[1])
result = run_search(double_config(folder), folder / "sharded", stream=io.StringIO())
assert used == {2}, used
"""


def test_members_are_shared_by_devices(folder: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=3"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED, str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    run(double_config(folder), folder / "one_device")
    for i in (0, 1):
        got, expected = (
            read_metrics(folder / name / f"member_{i}" / "metrics.jsonl") for name in ("sharded", "one_device")
        )
        assert_same_measurements(got, expected, 1e-9)


def test_devices_get_the_same_number_of_members() -> None:
    devices: Any = list(range(8))
    assert [len(shared_devices(n, devices)) for n in (1, 4, 6, 7, 8, 9, 22)] == [1, 4, 6, 7, 8, 3, 2]
    assert len(shared_devices(4, devices[:3])) == 2


def test_stack_and_unstack_are_inverse() -> None:
    trees = [{"a": np.float32(i), "key": jax.random.key(i)} for i in range(3)]
    for tree, again in zip(trees, unstack(stack(trees), 3), strict=True):
        assert_same_state(tree, again)


@pytest.mark.parametrize("method", ROBUST)
def test_strengths_of_the_paper(method: str) -> None:
    members = member_settings(SearchConfig(method=method))
    assert [member.seed for member in members] == [0, 1, 2, 3]
    values = [(member.l2, member.drop_path, member.cutout) for member in members]
    assert (
        values
        == {
            "r-darts-l2": [(3e-4, 0, False), (9e-4, 0, False), (27e-4, 0, False), (81e-4, 0, False)],
            "r-darts-dp": [(3e-4, 0, False), (3e-4, 0.2, True), (3e-4, 0.4, True), (3e-4, 0.6, True)],
        }[method]
    )
    assert {member.method for member in members} == {"darts"} and {member.data_seed for member in members} == {0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"population": 0}, ["population must be at least 1; got 0"]),
        ({"population_mapping": "pmap"}, ["unknown population_mapping 'pmap'", "map", "vmap"]),
        ({"strengths": "1,2"}, ["strengths '1,2' is only for method r-darts-l2 and r-darts-dp; got method 'darts'"]),
        ({"method": "r-darts-l2", "strengths": "1e-3"}, ["two or more different numbers", "'1e-3'"]),
        ({"method": "r-darts-l2", "strengths": "1,1"}, ["two or more different numbers", "'1,1'"]),
        ({"method": "r-darts-l2", "strengths": "a,b"}, ["strengths", "'a,b'"]),
        ({"method": "r-darts-dp", "strengths": "0,1.5"}, ["drop_path must be", "less than 1; got 1.5"]),
        ({"method": "r-darts-l2", "population": 3}, ["population must be 4", "got 3"]),
        ({"population": 2, "seed": 2**32 - 1}, ["seed must be at most 4294967294", "got 4294967295"]),
        ({"population": 2, "devices": 2}, ["devices must be 1 for a population", "got 2"]),
        ({"method": "r-darts-l2", "retrain_cells": 2}, ["retrain_cells must be at least 3; got 2"]),
        ({"retrain_epochs": -1}, ["retrain_epochs must be at least 0; got -1"]),
    ],
)
def test_bad_input_names_what_to_change(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        SearchConfig(**changes).check()
    for word in words:
        assert word in str(caught.value)


def decide(patch: pytest.MonkeyPatch, verdicts: dict[int, Any]) -> None:
    """Lets member 0's method decide so after these epochs, and the others' go on."""
    original = engine.StageRun.__init__

    def init(self: Any, stage: Any, built: Any, *rest: Any) -> None:
        first, *others = built.experiments
        method = first.method._replace(
            decide=lambda history: verdicts.get(history[-1]["epoch"]), returnable=lambda history: range(len(history))
        )
        first = dataclasses.replace(first, method=method)
        original(self, stage, built._replace(experiments=(first, *others)), *rest)

    patch.setattr(engine.StageRun, "__init__", init)


def test_a_member_stops_and_the_others_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, {1: Stop(0)})
    config = robust_config(folder, epochs=3, checkpoints_to_keep=1, retrain_epochs=0)
    result = run(config, folder / "stopped")
    first, second = (result.run_dir / f"member_{i}" for i in (0, 1))
    metrics = [read_metrics(own / "metrics.jsonl") for own in (first, second)]
    assert [len(records) for records in metrics] == [3, 3]  # members take their steps together to the end
    assert result.metrics[-1]["valid_loss"] == [records[-1]["valid_loss"] for records in metrics]
    assert [int(state.step) for state in result.state] == [1 * 4, 3 * 4]  # the states that are returned
    found = json.loads((first / "diagnostics.json").read_text())
    assert found["epoch"] == 0
    assert found["discretisation"]["relaxed"]["loss"] == metrics[0][0]["valid_loss"]  # of that epoch's state
    assert load_genotype(first / "genotype.json").to_json() == metrics[0][0]["genotype"]
    own = json.loads((result.run_dir / "diagnostics.json").read_text())["candidates"]
    assert {c["member"]: c["loss"] for c in own} == {i: metrics[i][(0, 2)[i]]["valid_loss"] for i in (0, 1)}
    assert "Member 0: Stopped after epoch 1; the genotype of epoch 0" in (result.run_dir / "report.html").read_text()
    # Killed before the checkpoint with the verdict, between it and the member's events, and before the results.
    for owner, function, call in (
        (StageCheckpoints, "save", 2),
        (Store, "write_events", 3),
        (engine.StageRun, "_conclude", 1),
    ):
        path = folder / f"stopped_and_died_{function}"
        with death_at(owner, function, call):
            run(config, path)
        assert_same_result(run(config, path, resume=True), result)


def test_the_member_that_diverges_is_named(folder: Path) -> None:
    config = tiny_config(folder, method="r-darts-l2", strengths="1e-4,1e30")
    with pytest.raises(RunError, match=r"hypergradient in member 1 \(l2 1e\+30, seed 1\) is not finite in epoch 0"):
        run(config, folder / "diverged")
