"""Does the rule stop where RobustDARTS stopped, and what do the methods that follow it decide?"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.methods import (
    METHODS,
    STOPPING_RULES,
    EarlyStop,
    Method,
    RollBack,
    Stop,
    StoppingRule,
    find_stop,
    going_back,
    local_average,
    make_rule,
    newest_stop,
)
from jaxdarts.methods.verdict import nowhere
from tests.methods.test_methods import make

RUNS = json.loads((Path(__file__).parents[1] / "golden" / "robustdarts_runs.json").read_text())
CODE, PAPER = STOPPING_RULES["code"], STOPPING_RULES["paper"]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['space']}-{run['weight_decay']}-{run['seed']}")
def test_the_reference_tracker_is_reproduced(run: dict[str, Any]) -> None:
    """44 searches logged by RobustDARTS: S1 on CIFAR-10 and S3 on SVHN."""
    assert local_average(run["lambda_max"]) == pytest.approx(run["local_average"], rel=1e-12)
    stop = find_stop(CODE, run["epochs"], run["lambda_max"], last_epoch=49)
    expected = run["early_stop"]
    assert stop == (expected and EarlyStop(expected["decided_at"], expected["returns"]))


def test_the_logs_hold_both_kinds_of_ends() -> None:
    stops = [run["early_stop"] for run in RUNS]
    assert len(stops) == 44 and 10 < stops.count(None) < 30


def test_local_average_while_a_search_runs() -> None:
    """The reference appends, at measurement n, the mean of the last five (of all, before there are five)."""
    run = RUNS[0]
    values = run["lambda_max"]
    for n in range(3, len(values) + 1):
        newest = np.mean(values[max(0, n - 5) : n])
        assert local_average(values[:n])[n - 3] == pytest.approx(newest, rel=1e-12)
        assert newest == pytest.approx(run["local_average"][n - 3], rel=1e-12)


def test_local_average_of_few_or_missing_measurements() -> None:
    assert local_average([]) == []
    assert local_average([1.0, 2.0]) == [None, None]
    assert local_average([1.0, None, 2.0, math.nan, 6.0]) == [3.0, None, 3.0, None, 3.0]
    assert local_average([0.0, 3.0, 6.0]) == [3.0, 3.0, 3.0]
    assert local_average([0.0, 3.0, 6.0], reach=1) == [1.5, 3.0, 4.5]
    assert local_average([0.0, 3.0], reach=0) == [0.0, 3.0]


def step_at(epoch: int, epochs: range) -> list[float | None]:
    """An eigenvalue that jumps from 1 to 2."""
    return [1.0 if e < epoch else 2.0 for e in epochs]


@pytest.mark.parametrize(
    ("rule", "epochs", "expected"),
    [
        # Two of five at 2 make 1.4 times the average before: at 32 those of epochs 30 and 32.
        (CODE, range(0, 50, 2), EarlyStop(32, 20)),
        (PAPER, range(50), EarlyStop(31, 24)),  # 1.4 > 1.333 of epoch 29, five epochs after 24
        (make_rule("paper", 2), range(0, 50, 2), EarlyStop(32, 24)),  # of three measurements, two: 1.67
        (STOPPING_RULES["quick"], range(50), EarlyStop(30, 27)),  # of three, one: 1.333
        (dataclasses.replace(CODE, threshold=1.4), range(0, 50, 2), EarlyStop(34, 22)),  # not above 1.4
        (dataclasses.replace(CODE, threshold=2.1), range(0, 50, 2), None),
        (dataclasses.replace(CODE, first_epoch=22), range(0, 50, 2), EarlyStop(34, 22)),
    ],
)
def test_presets_on_a_jump_at_epoch_30(rule: StoppingRule, epochs: range, expected: EarlyStop | None) -> None:
    assert find_stop(rule, epochs, step_at(30, epochs)) == expected


@pytest.mark.parametrize(("rule", "first"), [(CODE, 22), (PAPER, 17), (STOPPING_RULES["quick"], 5)])
def test_the_earliest_decision(rule: StoppingRule, first: int) -> None:
    epochs = range(0, 50, rule.frequency)
    growing: list[float | None] = [2.0**epoch for epoch in epochs]
    assert find_stop(rule, epochs, growing) == EarlyStop(first, rule.first_epoch)
    assert rule.first_decision == first
    assert find_stop(rule, epochs, growing, last_epoch=first) == EarlyStop(
        first + rule.frequency, rule.first_epoch + rule.frequency
    )
    assert find_stop(rule, range(0, first, rule.frequency), growing[: first // rule.frequency]) is None


@given(
    window=st.sampled_from([1, 3, 5, 7]),
    lag=st.integers(1, 6),
    first_epoch=st.integers(0, 12),
    frequency=st.integers(1, 4),
    in_epochs=st.booleans(),
    values=st.lists(st.floats(0.1, 10), max_size=40),
)
def test_what_a_rule_returns_is_among_what_it_asked_to_keep(
    window: int, lag: int, first_epoch: int, frequency: int, in_epochs: bool, values: list[float]
) -> None:
    rule = StoppingRule(window, lag, 1.05, first_epoch, frequency, in_epochs)
    epochs = [frequency * index for index in range(len(values))]
    stop = find_stop(rule, epochs, values)
    if stop is not None:
        assert stop.decided_at >= rule.first_decision
        assert all(stop.returns in rule.returnable(epoch) for epoch in range(stop.returns, stop.decided_at))


def test_growth_is_judged_where_there_is_something_to_grow_from() -> None:
    rule = StoppingRule(window=1, lag=1, threshold=1.3, first_epoch=0)
    assert newest_stop(rule, [0, 1], [1.0, 1.31]) == 0
    assert newest_stop(rule, [0, 1], [1.0, 1.3]) is None
    for before in (0.0, -1.0):
        assert newest_stop(rule, [0, 1], [before, -2.0]) is None
        assert newest_stop(rule, [0, 1], [before, 5.0]) is None
    # A measurement that failed takes no part; the epoch before the missing one is returned.
    assert newest_stop(rule, [0, 1, 2], [1.0, None, 2.0]) == 0
    assert newest_stop(rule, [0, 1, 2], [1.0, math.nan, 2.0]) == 0
    assert newest_stop(rule, [], []) is None


def history(values: list[float | None], l2: float = 3e-4) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "dominant_eigenvalue": value, "l2": l2} for epoch, value in enumerate(values)]


GROWING: list[float | None] = [1.0] * 6 + [3.0]
QUICK = {"es_rule": "quick"}


def test_darts_goes_on() -> None:
    method = make()
    assert method.decide(history(GROWING)) is None
    assert not method.returnable(history(GROWING))


def test_early_stopping_stops() -> None:
    method = make("darts-es", **QUICK)
    assert method.decide(history(GROWING)) == Stop(3)
    assert method.decide(history(GROWING[:-1])) is None
    assert method.decide(history([*GROWING, None])) is None  # nothing new was measured
    assert set(method.returnable(history(GROWING[:-1]))) == {3, 4, 5} and not method.returnable([])


@pytest.mark.parametrize("name", [name for name in METHODS if make(name).returnable is not nowhere])
@settings(deadline=None)
@given(measured=st.lists(st.one_of(st.none(), st.floats(0.1, 10)), max_size=60))
def test_a_search_goes_back_only_to_what_it_has_kept(name: str, measured: list[float | None]) -> None:
    """Also where measurements failed, and `newest_stop` as the reference names the epoch before."""
    goes_back_only_to_what_it_has_kept(make(name, **QUICK), measured)


def test_going_back_twice_the_second_time_further() -> None:
    # Epoch 8 looks back to 5. From there 6 and 7 look back to 3 and 4, which 8 did not need any more.
    grown: list[float | None] = [1.0] * 8 + [9.0]
    assert goes_back_only_to_what_it_has_kept(make("darts-ada", **QUICK), [*grown, 9.0]) == [5, 3]


def goes_back_only_to_what_it_has_kept(method: Method, measured: list[float | None]) -> list[int]:
    """Lives through these measurements with one checkpoint and those asked for; the epochs that were gone back to."""
    records: list[dict[str, Any]] = []
    kept: set[int] = set()
    found, l2 = [], 3e-4
    for value in measured:
        records.append({"epoch": len(records), "dominant_eigenvalue": value, "l2": l2})
        verdict = method.decide(records)
        if verdict is not None:
            assert verdict.epoch in kept
            found.append(verdict.epoch)
            if isinstance(verdict, Stop):
                break
            records, l2 = records[: verdict.epoch + 1], verdict.changes["weights/l2"]
        kept = {epoch for epoch in kept if epoch in method.returnable(records)} | {records[-1]["epoch"]}
    return found


def test_the_measurement_after_a_failed_one_decides() -> None:
    method = make("darts-es", **QUICK)
    values = [*GROWING[:3], None, *GROWING[4:], 3.0]
    assert newest_stop(STOPPING_RULES["quick"], range(7), values[:7]) == 2
    assert method.decide(history(values[:7])) is None
    assert method.decide(history(values)) == Stop(4)


def test_adaptive_regularisation_goes_back_until_l2_is_at_its_maximum() -> None:
    method = make("darts-ada", **QUICK, ada_max_l2=0.02)
    assert method.decide(history(GROWING)) == RollBack(3, {"weights/l2": 0.003})
    assert method.decide(history(GROWING, 0.003)) == RollBack(3, {"weights/l2": 0.02})
    assert method.decide(history(GROWING, 0.02)) is None
    assert method.decide(history(GROWING, float(np.float32(0.02)))) is None  # up to rounding
    assert method.decide(history(GROWING, 0.1)) is None
    assert method.decide(history(GROWING, 0.0)) is None
    assert (
        make("darts-ada", **QUICK, ada_factor=1 + 1e-9).decide(history(GROWING)) is None
    )  # else it went back for ever
    assert method.decide(history(GROWING[:-1])) is None
    with pytest.raises(InputError, match="factor of darts_ada must be greater than 1; got 1"):
        going_back(make(), STOPPING_RULES["quick"], factor=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 4}, "window of a stopping rule must be odd"),
        ({"window": -1}, "window of a stopping rule must be at least 1"),
        ({"lag": 0}, "lag of a stopping rule must be at least 1; got 0"),
        ({"first_epoch": -1}, "first_epoch of a stopping rule must be at least 0"),
        ({"threshold": 0.0}, "threshold of a stopping rule must be greater than 0"),
    ],
)
def test_impossible_rules(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StoppingRule(**changes)
