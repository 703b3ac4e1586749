"""Is every member of a population the search that it would be alone, and nothing lost wherever the run is stopped?"""

from __future__ import annotations

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
from jaxdarts.methods import METHODS, REGULARISATIONS, Stop
from jaxdarts.runs import reporting, stepping
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.population import loop as population_loop
from jaxdarts.runs.population import selection
from jaxdarts.runs.population.members import describe_member, member_configs
from jaxdarts.runs.population.selection import ranking
from jaxdarts.runs.population.steps import assemble_population, devices_for, joined, side_by_side, stack, unstack
from jaxdarts.runs.search.assemble import assemble
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.events import read_events
from jaxdarts.runs.search.loop import SearchResult, run_search
from jaxdarts.runs.search.validity import check_config
from jaxdarts.runs.sweep.record import read_result
from jaxdarts.spaces import load_genotype
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_state, without_times
from tests.runs.tiny import EAGER, tiny_config

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
    config = member_configs(robust_config(folder))[member]
    recorded = json.loads((own / "config.json").read_text())
    assert {name: recorded[name] for name in vars(config)} == vars(config)
    alone = run(config, folder / f"alone_{member}")
    # Rounding only: the population's program holds drop path and cutout, with probability 0, for the first member too.
    assert_same_measurements(alone.metrics, read_metrics(own / "metrics.jsonl"), 1e-4)
    assert alone.genotype == load_genotype(own / "genotype.json")
    assert {path.name for path in own.iterdir()} >= {path.name for path in alone.run_dir.iterdir()} - {
        "checkpoints",
        "lock",
    }


@pytest.mark.parametrize("method", sorted(METHODS))
def test_members_of_every_method_are_searches_of_their_own(
    method: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "write_report", lambda _: None)  # it takes as long as the search
    changes: dict[str, Any] = {"method": method, "retrain_epochs": 0, "spectrum_size": 0, "selection_samples": 10}
    changes |= {"strengths": "0.01,0.02"} if method in REGULARISATIONS else {"population": 2}
    config = tiny_config(folder, **changes, **EAGER)
    result, alone = run(config, folder / f"two_{method}"), run(member_configs(config)[1], folder / f"one_{method}")
    own = result.run_dir / "member_1"
    assert_same_measurements(alone.metrics, read_metrics(own / "metrics.jsonl"), 1e-4)
    assert alone.genotype == load_genotype(own / "genotype.json")
    assert int(result.state.step[1]) == int(alone.state.step)
    assert [(event["decided_at"], event["epoch"]) for event in read_events(own)] == [
        (event["decided_at"], event["epoch"]) for event in read_events(alone.run_dir)
    ]


def test_members_differ_as_they_should(unbroken: SearchResult) -> None:
    first, second = (read_metrics(unbroken.run_dir / f"member_{i}" / "metrics.jsonl") for i in (0, 1))
    assert [record["drop_path"] for record in first + second] == [0, 0, 0, 0.5]
    assert first[0]["train_loss"] != second[0]["train_loss"]


@pytest.mark.parametrize("changes", [{"population_mapping": "vmap"}, {"step_compilation": "whole"}])
def test_every_mapping_gives_the_same(folder: Path, unbroken: SearchResult, changes: dict[str, str]) -> None:
    population = assemble_population(robust_config(folder, **changes))
    first = assemble_population(robust_config(folder))
    results = []
    for one in (population, first):
        sums = stack([population_loop.EpochSums.zero(np.float32)] * 2)
        state = one.init()
        for _ in range(2):
            state, sums, finite = one.step(state, sums, one.data, one.order(1))
        assert finite.shape == (2,)
        results.append((joined(state), joined(sums)))
    for left, right in zip(*map(jax.tree.leaves, results), strict=True):
        if not jax.numpy.issubdtype(left.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


def test_nothing_is_traced_or_compiled_after_the_first_epoch(folder: Path) -> None:
    config = robust_config(folder, epochs=3, population_mapping="vmap", retrain_epochs=0, spectrum_size=0)
    assert_compiles_in_the_first_epoch_only(lambda: run(config, folder / "counted"), config.epochs)


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
    search = assemble(robust_config(folder))
    config = selection.retrain_config(robust_config(folder), "x")
    evaluation = selection.build_evaluation(
        config, unbroken.genotype, selection.Images(search.dataset, *search.data, None)
    )
    assert evaluation.data is search.data.train and evaluation.valid is search.data.valid
    assert (config.channels, config.cells, config.batch_size, config.epochs) == (1, 3, 10, 2)
    assert (config.l2, config.drop_path, config.cutout) == (3e-4, 0.2, True)


def test_ranking_is_by_accuracy_then_loss_then_order() -> None:
    assert ranking([(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (0.5, 1.0)]) == [2, 1, 0, 3]


def test_resume_after_an_interrupt_in_an_epoch_and_deaths_in_the_retraining(
    folder: Path, unbroken: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, config = folder / "interrupted", robust_config(folder)
    original = stepping.RunProgress.advance
    seen: list[int] = []

    def advance(self: Any, step: int, epoch: int) -> None:
        original(self, step, epoch)
        seen.append(step)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stepping.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match=r"search --resume"):
            run(config, path)
    assert len(read_metrics(path / "member_1" / "metrics.jsonl")) == 1
    # As sudden as a kill, in the measurement of the last epoch, and before the first checkpoint of a retraining.
    with monkeypatch.context() as patch:
        patch.setattr(population_loop, "append_metrics", _deadly)
        with pytest.raises(KeyboardInterrupt):
            run(config, path, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(selection.EvaluationRun, "end_epoch", _deadly)
        with pytest.raises(KeyboardInterrupt):
            run(config, path, resume=True)
    # In the middle of a retraining, politely.
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(stepping.RunProgress, "advance", advance)
        with pytest.raises(RunInterrupted, match=rf"search --resume --run-dir {path}$"):
            run(config, path, resume=True)
    assert not (path / "genotype.json").exists()
    resumed = run(config, path, resume=True)
    assert_same_result(resumed, unbroken)
    with monkeypatch.context() as patch:
        patch.setattr(selection.EvaluationRun, "finish", _deadly)  # what has finished is not retrained
        assert_same_result(run(config, path, resume=True), unbroken)


def _deadly(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_a_member_and_its_retraining_are_not_resumed_alone(folder: Path, unbroken: SearchResult) -> None:
    config = member_configs(robust_config(folder))[0]
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
        config = member_configs(tiny_config(folder, method="random", population=2))[i]
        assert run(config, folder / f"random_{i}").genotype == load_genotype(own / "genotype.json")
    assert "Member 1: Stopped after epoch 0." in (result.run_dir / "report.html").read_text()
    assert_same_result(
        run(tiny_config(folder, method="random", population=2, retrain_epochs=0), result.run_dir, True), result
    )


SHARDED = """
import io, sys
from pathlib import Path
import jax
from tests.runs.test_population import double_config
from jaxdarts.runs.search.loop import run_search
assert len(jax.devices()) == 3
folder = Path(sys.argv[1])
result = run_search(double_config(folder), folder / "sharded", stream=io.StringIO())
(devices,) = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(result.state.alpha)}
assert devices == 2, devices
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
    assert [len(devices_for(n, devices)) for n in (1, 4, 6, 7, 8, 9, 22)] == [1, 4, 6, 7, 8, 3, 2]
    assert len(devices_for(4, devices[:3])) == 2


def test_stack_and_unstack_are_inverse() -> None:
    trees = [{"a": np.float32(i), "key": jax.random.key(i)} for i in range(3)]
    for tree, again in zip(trees, unstack(stack(trees), 3), strict=True):
        assert_same_state(tree, again)


@pytest.mark.parametrize("method", sorted(REGULARISATIONS))
def test_strengths_of_the_paper(method: str) -> None:
    members = member_configs(SearchConfig(method=method))
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
    assert describe_member(members[1], members).startswith("seed 1, ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"population": 0}, ["population must be at least 1; got 0"]),
        ({"population_mapping": "pmap"}, ["unknown population_mapping 'pmap'", "map", "vmap"]),
        ({"strengths": "1,2"}, ["strengths is for the methods r-darts-dp and r-darts-l2", "'1,2' with darts"]),
        ({"method": "r-darts-l2", "strengths": "1e-3"}, ["two or more different numbers", "'1e-3'"]),
        ({"method": "r-darts-l2", "strengths": "1,1"}, ["two or more different numbers", "'1,1'"]),
        ({"method": "r-darts-l2", "strengths": "a,b"}, ["strengths", "'a,b'"]),
        ({"method": "r-darts-dp", "strengths": "0,1.5"}, ["strengths: drop_path must be", "less than 1; got 1.5"]),
        ({"method": "r-darts-l2", "population": 3}, ["population must be 4", "got 3"]),
        ({"population": 2, "seed": 2**32 - 1}, ["seed must be at most 4294967294", "got 4294967295"]),
        ({"population": 2, "devices": 2}, ["devices must be 1 for a population", "got 2"]),
        ({"method": "r-darts-l2", "retrain_cells": 2}, ["retrain_cells must be at least 3; got 2"]),
        ({"retrain_epochs": -1}, ["retrain_epochs must be at least 0; got -1"]),
    ],
)
def test_bad_input_names_what_to_change(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_config(SearchConfig(**changes))
    for word in words:
        assert word in str(caught.value)


def decide(patch: pytest.MonkeyPatch, verdicts: dict[int, Any]) -> None:
    """Lets member 0's method decide so after these epochs, and the others' go on."""
    original = population_loop.PopulationRun.__init__

    def init(self: Any, population: Any, *rest: Any) -> None:
        first, *others = population.members
        method = first.method._replace(
            decide=lambda history: verdicts.get(history[-1]["epoch"]), returnable=lambda history: range(len(history))
        )
        original(self, population._replace(members=(first._replace(method=method), *others)), *rest)

    patch.setattr(population_loop.PopulationRun, "__init__", init)


def test_members_without_draws_are_left_alone() -> None:
    def step(state: Any, sums: Any, data: Any, draws: Any) -> Any:
        return state + draws, sums + data, state * 1.5

    turn = side_by_side(step, 3, by_map=True, whole=False)
    start = np.array([1.0, 2.0, 3.0], np.float32)
    states, sums, finite = turn(start, 10 * start, 7.0, [np.float32(0.5), None, np.float32(-1.0)])
    np.testing.assert_array_equal(joined(states), [1.5, 2.0, 2.0])
    np.testing.assert_array_equal(joined(sums), [17.0, 20.0, 37.0])
    np.testing.assert_array_equal(finite, [1.5, 0.0, 4.5])


def test_a_member_stops_and_the_others_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decide(monkeypatch, {1: Stop(0)})
    config = robust_config(folder, epochs=3, checkpoints_to_keep=1, retrain_epochs=0)
    conclude, steps_taken = population_loop.PopulationRun.conclude, []

    def concluded(self: Any, state: Any, step: int) -> SearchResult:
        steps_taken.extend(int(own) for own in joined(state).step)
        return conclude(self, state, step)

    with monkeypatch.context() as patch:
        patch.setattr(population_loop.PopulationRun, "conclude", concluded)
        result = run(config, folder / "stopped")
    assert steps_taken == [2 * 4, 3 * 4]  # nothing is computed for the one that stopped
    first, second = (result.run_dir / f"member_{i}" for i in (0, 1))
    metrics = [read_metrics(own / "metrics.jsonl") for own in (first, second)]
    assert [len(records) for records in metrics] == [2, 3]
    assert result.metrics[-1]["valid_loss"] == [None, metrics[1][-1]["valid_loss"]]
    assert [int(step) for step in result.state.step] == [1 * 4, 3 * 4]  # the state that is returned
    found = json.loads((first / "diagnostics.json").read_text())
    assert found["epoch"] == 0
    assert found["discretisation"]["relaxed"]["loss"] == metrics[0][0]["valid_loss"]  # of that epoch's state
    assert load_genotype(first / "genotype.json").to_json() == metrics[0][0]["genotype"]
    with monkeypatch.context() as patch:
        patch.setattr(population_loop.PopulationRun, "conclude", _deadly)
        with pytest.raises(KeyboardInterrupt):
            run(config, folder / "stopped_and_died")
    assert_same_result(run(config, folder / "stopped_and_died", resume=True), result)


def test_the_member_that_diverges_is_named(folder: Path) -> None:
    config = tiny_config(folder, method="r-darts-l2", strengths="1e-4,1e30")
    with pytest.raises(RunError, match=r"hypergradient in member 1 \(seed 1, l2 1e\+30\) is not finite in epoch 0"):
        run(config, folder / "diverged")
