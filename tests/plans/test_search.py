"""Do the diagnostics at the end of a search say what the library's other functions say?"""

from __future__ import annotations

import io
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.methods import sample_weights
from jaxdarts.networks import OPERATIONS, softmax_weights
from jaxdarts.networks.supernet import Weights
from jaxdarts.plans.base import Outcome
from jaxdarts.plans.judge import Measurer
from jaxdarts.plans.search import Shared, diagnose, is_parameter_free
from jaxdarts.search import SearchResult, run_search
from jaxdarts.spaces import Genotype, one_hot
from tests.runs.stepping import by_hand
from tests.runs.tiny import tiny_config

# The accuracy of 38 images by batches of 10 needs a mask; five eigenvalues are fewer than the 12 there are.
CHANGES: dict[str, Any] = {"epochs": 5, "limit": 76, "spectrum_size": 5, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Shared]:
    folder = tmp_path_factory.mktemp("diagnostics")
    found = run_search(tiny_config(folder, **CHANGES), folder / "run", stream=io.StringIO())
    return found, by_hand(tiny_config(folder, **CHANGES)).shared


def accuracy(search: Shared, state: Any, weights: Any) -> float:
    """On the whole validation half in one batch, without anything compiled by the run."""
    assert search.task.valid is not None
    batch = search.task.valid.plain(search.task.valid.data, jnp.arange(38))
    weights = Weights({cell: jnp.asarray(value) for cell, value in weights.items()})
    totals, _ = search.problem.measured(state.params, state.stats, weights, state.values, batch, jnp.ones(38, bool))
    return int(totals["accuracy"][0]) / 38


def test_discretisation_without_retraining(result: tuple[SearchResult, Shared]) -> None:
    found, search = result
    written = json.loads((found.run_dir / "diagnostics.json").read_text())["discretisation"]
    relaxed = accuracy(search, found.state, softmax_weights(search.space, found.state.alpha))
    hard = accuracy(search, found.state, one_hot(search.space, found.genotype))
    assert written["relaxed"]["accuracy"] == relaxed == found.metrics[-1]["valid_accuracy"]
    assert written["one_hot"]["accuracy"] == hard
    assert written["accuracy_change"] == hard - relaxed
    assert written["one_hot"]["loss"] != written["relaxed"]["loss"] == found.metrics[-1]["valid_loss"]


def test_eigenvalues_are_the_largest_of_the_dense_hessian(result: tuple[SearchResult, Shared]) -> None:
    found, search = result
    written = json.loads((found.run_dir / "diagnostics.json").read_text())["eigenvalues"]
    flat, unravel = ravel_pytree(found.state.alpha)
    rows = [ravel_pytree(search.product(found.state, unravel(row)))[0] for row in jnp.eye(flat.size)]
    values = np.linalg.eigvalsh(np.asarray(jnp.stack(rows), np.float64))
    expected = values[np.argsort(-np.abs(values))][:5]
    assert written["of"] == 12 and len(written["values"]) == len(written["residuals"]) == 5
    np.testing.assert_allclose(written["values"], expected, atol=1e-3 * abs(expected[0]))
    assert written["values"][0] in (
        pytest.approx(found.metrics[-1]["dominant_eigenvalue"], rel=1e-3),
        pytest.approx(found.metrics[-1]["smallest_eigenvalue"], rel=1e-3),
    )


def test_operations_are_counted(result: tuple[SearchResult, Shared]) -> None:
    found, search = result
    genotype = Genotype((("skip_connect", 0), ("max_pool_3x3", 1)), (2,), (("skip_connect", 0), ("none", 1)), (2,))
    outcome: Any = Outcome(None, found.state, {"epoch": 0}, [], 0, None, None)  # type: ignore[arg-type]
    counts = diagnose(search._replace(method=search.method._replace(learns=frozenset())), outcome, genotype)
    assert counts["operations"] == {
        "skip_connect": {"normal": 1, "reduce": 1},
        "parameter_free": {"normal": 2, "reduce": 2},
        "all": {"normal": 2, "reduce": 2},
    }
    assert counts["discretisation"] is counts["eigenvalues"] is None
    free = {"none", "noise", "skip_connect", "max_pool_3x3", "avg_pool_3x3"}
    assert {name for name in OPERATIONS if is_parameter_free(name)} == free


def test_scores_of_many_are_those_of_each_and_nothing_is_compiled_again(result: tuple[SearchResult, Shared]) -> None:
    found, search = result
    assert search.task.valid is not None
    valid, measurer = search.task.valid, search.measurer
    measurer(valid, found.state)
    weights = {cell: np.asarray(w) for cell, w in sample_weights(search.space, jax.random.key(0), (5,)).items()}
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/backend"):
            compiled.append(event)

    measurer.score(valid, found.state, {cell: w[:1] for cell, w in weights.items()}, None)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        scores = measurer.score(valid, found.state, weights, None)
        measurer.score(valid, found.state, weights, 1)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled
    each = [accuracy(search, found.state, {cell: w[i] for cell, w in weights.items()}) for i in range(5)]
    np.testing.assert_allclose(scores, each)
    pairs = Measurer(search.problem, together=2)  # as accelerators do
    np.testing.assert_allclose(pairs.score(valid, found.state, weights, None), each)
    np.testing.assert_allclose(
        pairs.score(valid, found.state, weights, 1), measurer.score(valid, found.state, weights, 1)
    )
    assert len(set(each)) > 1
