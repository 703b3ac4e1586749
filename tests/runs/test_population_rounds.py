"""Does each member of a population go back for itself, wherever the run is killed?"""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxdarts.bilevel import get_hyperparameters
from jaxdarts.methods import METHODS, RollBack, SearchMethod, SearchProblem, Stop, Verdict, darts
from jaxdarts.runs import reporting, stepping
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.population.loop import PopulationRun
from jaxdarts.runs.population.member import Member
from jaxdarts.runs.population.members import member_configs
from jaxdarts.runs.population.rounds import epoch_in, last_round, round_of
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.search.events import ROLL_BACK, STOP, Event, read_events
from jaxdarts.runs.search.loop import SearchResult, run_search
from jaxdarts.spaces import load_genotype
from tests.runs.dying import death_at
from tests.runs.test_population import assert_same_measurements, assert_same_result
from tests.runs.tiny import tiny_config

EPOCHS = 5
# By L2 and the epoch in which they fall. The first member goes back twice, the second time beyond where it was sent
# first; the second goes back in another epoch and goes on to its end; the third stops, and returns an epoch before.
VERDICTS: dict[tuple[float, int], Verdict] = {
    (0.001, 2): RollBack(1, 0.01),
    (0.01, 3): RollBack(0, 0.1),
    (0.002, 3): RollBack(1, 0.02),
    (0.003, 2): Stop(1),
}
MEMBER_EPOCHS = [
    [0, 0, 0],
    [1, 1, 1],
    [2, 2, 2],  # the first goes back, the third stops
    [2, 3, None],  # the second goes back
    [3, 2, None],  # the first goes back
    [1, 3, None],
    [2, 4, None],
    [3, None, None],
    [4, None, None],
]


def test_rounds_are_those_of_a_member_that_is_followed() -> None:
    """Against a search that writes down where it stands at the end of every round."""
    random = np.random.default_rng(0)
    for _ in range(300):
        events: list[Event] = []
        stands: list[int] = []  # at the end of which epoch, by round
        epoch, num_epochs = 0, int(random.integers(1, 8))
        while epoch < num_epochs and len(stands) < 40:
            assert epoch_in(events, len(stands)) == epoch
            chance = random.random()
            if chance < 0.3:
                event = {"action": ROLL_BACK, "decided_at": epoch, "epoch": int(random.integers(0, epoch + 1))}
                events.append(event)
                epoch = int(event["epoch"])
            elif chance < 0.35:
                events.append({"action": STOP, "decided_at": epoch, "epoch": int(random.integers(0, epoch + 1))})
            stands.append(epoch)
            assert epoch_in(events, len(stands) - 1) == epoch
            for earlier in range(epoch + 1):
                newest = max(number for number, stood in enumerate(stands) if stood == earlier)
                assert round_of(events, earlier) == newest
            if events and events[-1]["action"] == STOP:
                assert last_round(events, num_epochs) == len(stands) - 1
                break
            epoch += 1
        else:
            assert epoch < num_epochs or last_round(events, num_epochs) == len(stands) - 1


@pytest.fixture(scope="module", autouse=True)
def _told_by_l2() -> Any:
    """Every member's method decides by VERDICTS, also when the member is searched alone; no report is written."""

    def told(problem: SearchProblem, **options: Any) -> SearchMethod:
        return darts(problem, **options)._replace(
            decide=lambda history: VERDICTS.get((history[-1]["l2"], history[-1]["epoch"])),
            returnable=lambda history: range(len(history)),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "darts", told)
        patch.setitem(METHODS, "r-darts-l2", told)
        patch.setattr(reporting, "write_report", lambda _: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rounds")


def going_back(folder: Path, **changes: Any) -> SearchConfig:
    """In float64: in float32 what is rounded otherwise may flip a maximum, and with it the curvature."""
    fixed: dict[str, Any] = {"method": "r-darts-l2", "strengths": "0.001,0.002,0.003", "epochs": EPOCHS}
    fixed |= {"retrain_epochs": 0, "spectrum_size": 0, "checkpoints_to_keep": 1, "precision": "float64"}
    return tiny_config(folder, **{**fixed, **changes})


def run(config: SearchConfig, path: Path, resume: bool = False) -> SearchResult:
    return run_search(config, path, resume=resume, stream=io.StringIO())


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> SearchResult:
    return run(going_back(folder), folder / "unbroken")


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[SearchResult]:
    return [run(config, folder / f"alone_{i}") for i, config in enumerate(member_configs(going_back(folder)))]


@pytest.mark.parametrize(("mapping", "tolerance"), [("map", 1e-12), ("vmap", 1e-7)])  # steps carry on what is rounded
def test_members_go_back_as_they_would_alone(
    mapping: str, tolerance: float, folder: Path, unbroken: SearchResult, alone: list[SearchResult]
) -> None:
    result = unbroken if mapping == "map" else run(going_back(folder, population_mapping="vmap"), folder / "vmap")
    assert [record["member_epoch"] for record in result.metrics] == MEMBER_EPOCHS
    for i, expected in enumerate(alone):
        own = result.run_dir / f"member_{i}"
        assert_same_measurements(read_metrics(own / "metrics.jsonl"), expected.metrics, tolerance)
        assert load_genotype(own / "genotype.json") == expected.genotype
        assert len(list((own / "genotypes").iterdir())) == len(expected.metrics)
        for got, event in zip(read_events(own), read_events(expected.run_dir), strict=True):
            exact = ("action", "decided_at", "epoch", "genotype")
            assert [got[name] for name in exact] == [event[name] for name in exact]
            assert got.get("l2") == event.get("l2") and len(got.get("abandoned", [])) == len(event.get("abandoned", []))
        # Of a member that has ended, the state where it did, whatever was computed beside the others after that.
        state = jax.tree.map(lambda leaf, i=i: leaf[i], result.state)
        for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(expected.state), strict=True):
            if jax.numpy.issubdtype(left.dtype, jax.dtypes.prng_key):
                left, right = jax.random.key_data(left), jax.random.key_data(right)
            np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
    l2 = [float(value) for value in get_hyperparameters(result.state.opt_state)["l2"]]
    assert l2 == pytest.approx([0.1, 0.02, 0.003])


def test_an_ended_run_is_not_continued(folder: Path, unbroken: SearchResult) -> None:
    assert_same_result(run(going_back(folder), unbroken.run_dir, resume=True), unbroken)


# The first round in which members go back is the third, and so is its checkpoint.
# Files are also brought to what is known at the start, of each of three members.
@pytest.mark.parametrize(
    ("owner", "function", "call"),
    [
        (PopulationRun, "_save", 3),
        (Member, "return_files", 4),
        (Member, "return_files", 5),
        (PopulationRun, "_save", 5),
    ],
)
def test_death_around_a_roll_back_changes_nothing(
    owner: type, function: str, call: int, folder: Path, unbroken: SearchResult
) -> None:
    """Killed before a checkpoint is written, or between it and the files of one member or the next."""
    config, path = going_back(folder), folder / f"killed_{function}{call}"
    with death_at(owner, function, call):
        run(config, path)
    assert_same_result(run(config, path, resume=True), unbroken)


def test_an_interrupt_between_members_epochs_is_resumed(
    folder: Path, unbroken: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sixth round, which its members take in different epochs, after two of four steps."""
    path, config, stream = folder / "interrupted", going_back(folder), io.StringIO()
    original = stepping.RunProgress.advance

    def advance(self: Any, step: int, epoch: int) -> None:
        original(self, step, epoch)
        if step == 5 * 4 + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(stepping.RunProgress, "advance", advance)
        with pytest.raises(stepping.RunInterrupted, match="saved after step 22"):
            run_search(config, path, stream=stream)
    assert "epoch 5/7  own epochs 4 3 -" in stream.getvalue()  # two rounds more than epochs so far
    resumed = run_search(config, path, resume=True, stream=stream)
    assert_same_result(resumed, unbroken)
    assert "after 22 of 36 steps" in stream.getvalue()
    assert "epoch 6/9  own epochs 2 4 -" in stream.getvalue()
