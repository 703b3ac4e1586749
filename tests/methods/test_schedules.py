"""Does what regularises alpha follow its schedule through a run, and is it in all that is measured?"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import get_hyperparameters, set_hyperparameters
from jaxdarts.errors import InputError
from jaxdarts.json_files import read_lines as read_metrics
from jaxdarts.methods.parts import alpha_schedules
from jaxdarts.methods.schedules import BETA_SCHEDULES, TEMPERATURE_SCHEDULES
from jaxdarts.plans.judge import StateJudge
from jaxdarts.plans.observers import genotype_of
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.reports import write
from jaxdarts.reports.run_record import read_run
from jaxdarts.runs.stage_checkpoints import StageCheckpoints
from jaxdarts.search import SearchResult, main, run_search
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only, assert_same_result, assert_same_state
from tests.runs.dying import death_at
from tests.runs.stepping import by_hand
from tests.runs.tiny import EAGER, tiny_config, tiny_flags

BOTH = {"beta_schedule": "0-25", "temperature_start": 2.0, "temperature_end": 0.5, "temperature_schedule": "linear"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("regularisers")


def beta_weight(config: SearchConfig, epoch: int) -> float | None:
    found = alpha_schedules(config).get("alpha/beta_weight")
    return None if found is None else found(epoch)


def temperature(config: SearchConfig, epoch: int) -> float | None:
    schedules = alpha_schedules(config)
    found = schedules.get("temperature", schedules.get("alpha/temperature"))
    return None if found is None else found(epoch)


def run(config: SearchConfig, path: Path, resume: bool = False) -> SearchResult:
    return run_search(config, path, resume=resume, stream=io.StringIO())


@pytest.mark.parametrize(
    ("changes", "first", "middle", "last"),
    [
        ({"method": "beta-darts"}, 0, 25, 49.5),  # 50 epoch / 100, as the public code
        ({"method": "beta-darts", "beta_weight": 8}, 0, 4, 7.92),
        ({"method": "beta-darts", "beta_weight": 0.0}, 0, 0, 0),
        ({"beta_weight": 8.0}, 0, 4, 7.92),
        ({"method": "darts-es", "beta_weight": 8.0, "beta_schedule": "constant"}, 8, 8, 8),
        ({"beta_weight": 8.0, "beta_schedule": "decreasing"}, 8, 4, 0.08),
        ({"method": "beta-darts", "beta_schedule": "decreasing"}, 50, 25, 0.5),
        ({}, None, None, None),
        *(({"beta_schedule": f"0-{top}"}, 0, top / 2, 0.99 * top) for top in (15, 25, 50, 100)),
        ({"beta_schedule": "constant-15"}, 15, 15, 15),
        ({"beta_schedule": "50-0"}, 50, 25, 0.5),
    ],
)
def test_weights_of_beta_decay(changes: dict[str, Any], first: Any, middle: Any, last: Any) -> None:
    config = SearchConfig(**{"epochs": 100, **changes})
    assert [beta_weight(config, epoch) for epoch in (0, 50, 99)] == pytest.approx([first, middle, last])


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_every_schedule_goes_one_way_and_is_never_negative(name: str) -> None:
    config = SearchConfig(method="beta-darts", beta_schedule=name, epochs=7)
    weights: list[Any] = [beta_weight(config, epoch) for epoch in range(7)]
    assert weights in (sorted(weights), sorted(weights)[::-1]) and min(weights) >= 0 < max(weights)


def test_temperatures() -> None:
    ends = SearchConfig(epochs=5, temperature_start=10.0, temperature_end=0.1)
    found = {}
    for name in TEMPERATURE_SCHEDULES:
        config = (
            SearchConfig(epochs=5, temperature_start=10.0, temperature_schedule=name)
            if name == "constant"
            else ends.replace(temperature_schedule=name)
        )
        found[name] = [temperature(config, epoch) for epoch in range(5)]
    assert found["exponential"] == pytest.approx([10, 10**0.5, 1, 10**-0.5, 0.1])
    assert found["linear"] == pytest.approx([10, 7.525, 5.05, 2.575, 0.1])
    assert found["constant"] == [10] * 5
    assert temperature(SearchConfig(temperature_start=3.0), 9) == pytest.approx(3)
    assert temperature(ends.replace(epochs=1), 0) == 10
    assert temperature(SearchConfig(), 0) is None


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"beta_weight": -1.0}, "beta_weight must be at least 0; got -1.0"),
    ({"beta_weight": float("inf")}, "beta_weight must be a finite number or None; got inf"),
    ({"beta_variant": "edges"}, "unknown beta_variant 'edges'; choose from edge, global, zero"),
    ({"beta_schedule": "lienar"}, "unknown beta_schedule 'lienar'; choose from .*did you mean 'linear'"),
    ({"beta_schedule": "0-50", "beta_weight": 20.0}, "beta_weight must be 50 or not given with beta_schedule '0-50'"),
    ({"beta_schedule": "decreasing"}, "beta_schedule 'decreasing' needs beta_weight or method beta-darts"),
    ({"beta_variant": "zero"}, "beta_variant 'zero' needs beta_weight"),
    ({"method": "random-ws", "beta_weight": 5.0}, "beta_weight 5.0 cannot be used by method 'random-ws'"),
    ({"method": "random", "temperature_start": 5.0}, "temperature_start 5.0 cannot be used by method 'random'"),
    ({"method": "random", "alpha_weight_decay": 0.1}, "alpha_weight_decay 0.1 cannot be used by method 'random'"),
    ({"temperature_start": 0.0}, "temperature_start must be greater than 0; got 0.0"),
    ({"temperature_end": -1.0}, "temperature_end must be greater than 0; got -1.0"),
    ({"temperature_schedule": "cosine"}, "unknown temperature_schedule 'cosine'; choose from constant, exponential"),
    ({"temperature_schedule": "linear"}, "temperature_schedule 'linear' needs a temperature_start or temperature_end"),
    ({"temperature_form": "alpha"}, "unknown temperature_form 'alpha'; choose from softmax, update"),
    ({"temperature_form": "update"}, "temperature_form 'update' needs a temperature_start"),
    (
        {"temperature_form": "update", "temperature_start": 2.0, "temperature_end": 0.5},
        "temperature_end must be at least 1 with temperature_form 'update'",
    ),
    (
        {"temperature_schedule": "constant", "temperature_start": 2.0, "temperature_end": 3.0},
        r"temperature_end must be temperature_start \(2.0\) or None",
    ),
    ({"alpha_weight_decay": -0.1}, "alpha_weight_decay must be at least 0; got -0.1"),
]


@pytest.mark.parametrize(("changes", "message"), UNUSABLE)
def test_settings_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        SearchConfig(**changes)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--method", "random-ws", "--beta-weight", "5", "--run-dir", str(tmp_path / "run")]
    assert main(flags) == 2
    assert capsys.readouterr().err.startswith("error: --beta-weight 5.0 cannot be used by method 'random-ws'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "beta-darts", **BOTH},
        {
            "beta_weight": 3.0,
            "temperature_start": 1.01,
            "temperature_form": "update",
            "alpha_weight_decay": 0.1,
            "curvature_every": 0,
        },
    ],
)
def test_one_compilation_for_the_whole_search(folder: Path, changes: dict[str, Any]) -> None:
    config = tiny_config(folder, epochs=3, spectrum_size=0, **changes)
    path = folder / f"counted_{config.method}"
    assert_compiles_in_the_first_epoch_only(lambda: run(config, path), config.epochs)
    last = read_metrics(path / "metrics.jsonl")[-1]
    assert last["beta_weight"] == beta_weight(config, 2) and last["temperature"] == temperature(config, 2)


@pytest.fixture(scope="module")
def adapted(folder: Path) -> SearchResult:
    """It goes back twice, from epoch 3 to the end of epoch 0."""
    return run(tiny_config(folder, method="darts-ada", **EAGER, **BOTH), folder / "adapted")


def test_schedules_go_back_with_a_roll_back(adapted: SearchResult, folder: Path) -> None:
    config = tiny_config(folder, epochs=6, **BOTH)
    assert [record["epoch"] for record in adapted.metrics] == list(range(6))
    assert [record["beta_weight"] for record in adapted.metrics] == pytest.approx([25 * e / 6 for e in range(6)])
    assert [record["temperature"] for record in adapted.metrics] == pytest.approx([2 - 0.3 * e for e in range(6)])
    state = adapted.state
    assert float(get_hyperparameters(state.alpha_opt_state)["beta_weight"]) == pytest.approx(25 * 5 / 6)
    assert float(state.values["temperature"]) == pytest.approx(0.5)
    search = by_hand(config)
    expected = search.epochs(search.init(), range(1))
    expected = dataclasses.replace(expected, opt_state=set_hyperparameters(expected.opt_state, l2=0.03))
    assert_same_state(state, search.epochs(expected, range(1, 6)))


def test_death_after_a_roll_back_changes_nothing(
    folder: Path, adapted: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = tiny_config(folder, method="darts-ada", **EAGER, **BOTH), folder / "killed"
    monkeypatch.setattr(write, "write_pages", lambda _: None)  # it takes as long as the search
    with death_at(StageCheckpoints, "save", 5):
        run(config, path)
    assert_same_result(run(config, path, resume=True), adapted)


def test_the_temperature_is_in_all_that_is_measured(adapted: SearchResult, folder: Path) -> None:
    """alpha at temperature T is alpha / T at 1, and its Hessian smaller by the square of T."""
    search = by_hand(tiny_config(folder, epochs=6, **BOTH)).shared
    hot = dataclasses.replace(adapted.state, values={"temperature": jnp.float32(0.5)})
    one = {"temperature": jnp.float32(1)}
    cold = dataclasses.replace(hot, alpha=jax.tree.map(lambda a: a / 0.5, hot.alpha), values=one)
    vector = jax.tree.map(lambda a: jnp.cos(7 * a), hot.alpha)
    products = [search.product(state, vector) for state in (hot, cold)]
    for got, expected in zip(*(jax.tree.leaves(product) for product in products), strict=True):
        np.testing.assert_allclose(got, expected / 0.5**2, rtol=1e-4, atol=1e-6)
    assert search.task.valid is not None
    valid = search.task.valid
    measured = [
        StateJudge(search.measurer, valid, state)() for state in (hot, cold, dataclasses.replace(hot, values=one))
    ]
    assert measured[0] == pytest.approx(measured[1], rel=1e-6)
    assert measured[0]["loss"] != pytest.approx(measured[2]["loss"], rel=1e-6)
    assert genotype_of(search.method, hot) == genotype_of(search.method, cold)


def test_what_the_report_shows(adapted: SearchResult) -> None:
    record = read_run(adapted.run_dir)
    alpha = np.asarray(adapted.metrics[-1]["alpha"]["normal"]) / adapted.metrics[-1]["temperature"]
    strengths = np.exp(alpha) / np.exp(alpha).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.stack(record.strengths("normal")[-1]), strengths, rtol=1e-6)
    assert record.values("spread_normal")[-1] == pytest.approx(strengths.std(-1).mean(), rel=1e-6)
    page = (adapted.run_dir / "report.html").read_text()
    for text in (
        "Weight of Beta-Decay",
        "edge, 0-25, weight up to 25",
        "linear, 2 to 0.5, of",
        "Spread of the",
        "alpha / temperature",
    ):
        assert text in page, text


def test_from_the_command_line(folder: Path) -> None:
    """In a space whose edges differ in the number of candidates; strong Beta-Decay draws the strengths together."""
    space = folder / "uneven.toml"
    space.write_text(
        'num_nodes = 1\noperations = ["none", "skip_connect", "max_pool_3x3"]\n[normal]\n"1->2" = ["skip_connect"]\n'
    )
    spreads = []
    for weight in ("0", "1000"):
        path = folder / f"command_{weight}"
        config = tiny_config(folder, alpha_learning_rate=0.05, alpha_init_scale=1.0, curvature_every=0, spectrum_size=0)
        flags = [*tiny_flags(config), "--space", str(space), "--method", "beta-darts", "--run-dir", str(path)]
        flags += ["--beta-weight", weight, "--beta-schedule", "constant", "--beta-variant", "global"]
        assert main(flags) == 0
        spreads.append(read_run(path).values("spread_normal")[-1])
        recorded = json.loads((path / "config.json").read_text())
        assert (recorded["method"], recorded["beta_variant"]) == ("beta-darts", "global")
        alpha = read_metrics(path / "metrics.jsonl")[-1]["alpha"]["normal"]
        assert alpha[1][0] != 0 and alpha[1][1:] == [0, 0]  # one candidate; the padding stays zero
    assert spreads[1] < spreads[0]  # type: ignore[operator]
