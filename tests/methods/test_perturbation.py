"""Does a selection by perturbation keep what the supernet cannot do without, and what else may decide?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods.perturbation import (
    Decision,
    Rule,
    decided_name,
    decisions,
    derivation,
    kept_name,
    num_decisions,
    projected,
    undecided,
)
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Weights
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import NASBENCH201, SPACES, SearchSpace
from jaxdarts.tasks.classification import METRICS

KEY = jax.random.key(0)
SKIP, SEP = "skip_connect", "sep_conv_3x3"
SPACE = SearchSpace.uniform("small", ("none", SKIP, SEP), num_nodes=2)
START = {name: np.asarray(value) for name, value in undecided(SPACE, jnp.float32).items()}


def soft(edges: np.ndarray | None = None) -> Weights:
    matrix = jnp.asarray([[0.2, 0.5, 0.3]] * 5)
    both = {cell: matrix for cell in SPACE.cell_types}
    return Weights(both, None if edges is None else {cell: jnp.asarray(edges) for cell in SPACE.cell_types})


def rule(criterion: str = "objective", may_be_none: bool = False) -> Rule:
    return Rule(SPACE, criterion, "accuracy", METRICS, may_be_none)


class Scores:
    """Scores by table, in the order of calls; remembers the weights that were scored."""

    def __init__(self, *accuracies: float, losses: Any = None) -> None:
        self.left, self.seen = list(zip(accuracies, losses or accuracies, strict=True)), []

    def __call__(self, weights: Weights) -> dict[str, float]:
        self.seen.append({cell: np.asarray(value) for cell, value in weights.operations.items()})
        accuracy, loss = self.left.pop(0)
        return {"accuracy": accuracy, "loss": loss}


def decide(decision: Decision, score: Any, own: Rule, weights: Weights | None = None, values: Any = None) -> Any:
    return own.decide(decision, soft() if weights is None else weights, values or START, score, KEY)


def test_the_operation_without_which_accuracy_is_lowest_is_kept() -> None:
    score = Scores(0.9, 0.6)
    outcome = decide(Decision("normal", 3), score, rule())
    assert outcome.told == {
        "cell": "normal",
        "edge": 3,
        "candidates": [SKIP, SEP],
        "weights": pytest.approx([0.5, 0.3]),
        "accuracy": [0.9, 0.6],
        "loss": [0.9, 0.6],
        "chosen": SEP,
    }
    np.testing.assert_array_equal(outcome.decided[decided_name("normal")], [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(outcome.decided[kept_name("normal")][3], [0, 0, 1])
    # Only its own weight was 0 meanwhile, and the others were not scaled up.
    for seen, column in zip(score.seen, (1, 2), strict=True):
        expected = np.array([[0.2, 0.5, 0.3]] * 5, np.float32)
        expected[3, column] = 0
        np.testing.assert_array_equal(seen["normal"], expected)
        np.testing.assert_array_equal(seen["reduce"], np.array([[0.2, 0.5, 0.3]] * 5, np.float32))
    assert not START[decided_name("normal")].any()


@pytest.mark.parametrize(
    ("criterion", "accuracies", "losses", "chosen"),
    [
        ("objective", (0.5, 0.5), (9.0, 1.0), SKIP),  # of equals the first
        ("loss", (0.1, 0.9), (1.0, 2.0), SEP),
        ("loss", (0.1, 0.9), (2.0, 2.0), SKIP),
        ("loss", (0.1, 0.9), (1.0, float("nan")), SEP),  # it broke down without it
        ("alpha", (), (), SKIP),
    ],
)
def test_criteria(criterion: str, accuracies: Any, losses: Any, chosen: str) -> None:
    score = Scores(*accuracies, losses=list(losses))
    outcome = decide(Decision("reduce", 0), score, rule(criterion))
    assert outcome.told["chosen"] == chosen and not score.left
    assert ("accuracy" in outcome.told) == (criterion != "alpha")


def test_none_is_a_candidate_where_it_may_be() -> None:
    outcome = decide(Decision("normal", 0), Scores(0.1, 0.2, 0.3), rule(may_be_none=True))
    assert outcome.told["candidates"] == ["none", SKIP, SEP] and outcome.told["chosen"] == "none"
    dense = Rule(NASBENCH201, "alpha", "accuracy", METRICS, may_be_none=False)
    assert len(dense.candidates("cell", 0)) == 5
    lonely = SearchSpace("lonely", 1, (("none", SKIP), (SKIP,)), ((SKIP,), (SKIP,)), (2,))
    assert Rule(lonely, "alpha", "accuracy", METRICS, False).candidates("normal", 0) == [1]


def test_chance_decides_by_the_key() -> None:
    found = {decide_with(jax.random.key(seed)) for seed in range(20)}
    assert found == {SKIP, SEP} and decide_with(KEY) == decide_with(KEY)


def decide_with(key: jax.Array) -> str:
    return rule("random").decide(Decision("normal", 1), soft(), START, Scores(), key).told["chosen"]


def test_the_edges_whose_removal_hurts_most_stay() -> None:
    values = {**START, kept_name("normal"): np.ones((5, 3), np.float32), decided_name("normal"): np.ones(5, np.float32)}
    score = Scores(0.8, 0.3, 0.5)
    outcome = decide(Decision("normal", None, 1), score, rule(), values=values)
    assert outcome.told["kept"] == [1, 2] and outcome.told["node"] == 1
    kept = outcome.decided[kept_name("normal")]
    assert kept[:2].all() and not kept[2].any() and kept[3:].all()
    for row, seen in enumerate(score.seen):
        assert not seen["normal"][2 + row].any() and seen["normal"].any(axis=1).sum() == 4
    # Of equals the later goes.
    assert decide(Decision("normal", None, 1), Scores(0.5, 0.5, 0.5), rule(), values=values).told["kept"] == [0, 1]
    # By weight, the edge's own is a factor.
    weights = soft(np.array([1, 1, 0.1, 0.2, 0.7]))
    assert decide(Decision("normal", None, 1), Scores(), rule("alpha"), weights, values).told["kept"] == [1, 2]


def test_everything_is_decided_once_in_an_order_by_the_key() -> None:
    found = decisions(SPACES["darts"], KEY)
    assert len(found) == num_decisions(SPACES["darts"]) == 17
    assert [decision.cell for decision in found[0]] == ["normal", "reduce"]
    for column in range(2):
        assert sorted(row[column].edge for row in found[:14]) == list(range(14))
        assert sorted(row[column].node for row in found[14:]) == [1, 2, 3]  # the first has two edges anyway
    orders = [[row[column].edge for row in found[:14]] for column in range(2)]
    assert orders[0] != orders[1]
    assert decisions(SPACES["darts"], KEY) == found != decisions(SPACES["darts"], jax.random.key(1))
    assert len(decisions(NASBENCH201, KEY)) == num_decisions(NASBENCH201) == 6


def test_decided_edges_have_the_weights_that_they_were_given() -> None:
    relaxation = projected(SPACE, softmax(SPACE))
    alpha = relaxation.init(KEY)
    values: Any = undecided(SPACE, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, relaxation.mean(alpha, values), softmax(SPACE).mean(alpha, values))
    values[decided_name("normal")] = values[decided_name("normal")].at[jnp.array([1, 2])].set(1)
    values[kept_name("normal")] = values[kept_name("normal")].at[1].set(jnp.array([0, 0, 1.0]))
    found = relaxation.sample(alpha, values, None).operations["normal"]
    np.testing.assert_array_equal(found[1:3], [[0, 0, 1], [0, 0, 0]])
    slope = jax.grad(lambda a: (relaxation.mean(a, values).operations["normal"] ** 2).sum())(alpha)["normal"]
    assert not slope[1:3].any() and slope[0].any()


def test_an_edge_with_none_is_left_out() -> None:
    rows = np.zeros((5, 3))
    rows[[0, 1, 2, 3], [1, 0, 0, 2]] = 1  # node 0: skip from 0, none; node 1: none, sep from 1, removed
    weights = Weights({"normal": jnp.asarray(rows), "reduce": jnp.asarray(np.eye(3)[[1, 1, 1, 2, 0]])})
    found = derivation(True, SPACE)(SPACE, weights, None)
    assert found.edges("normal") == ((SKIP, 0), (SEP, 1))
    assert found.nodes("normal") == (0, 1)
    assert len(found.edges("reduce")) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"projection_criterion": "accuracy"}, "unknown projection_criterion 'accuracy'"),
        ({"projection_interval": 0}, "projection_interval must be at least 1; got 0"),
        ({"projection_rate": 0.0}, "projection_rate must be greater than 0 and at most 1; got 0.0"),
        (
            {"projection_criterion": "alpha", "projection_batches": 3},
            "projection_batches 3 is only for projection_cri",
        ),
    ],
)
def test_settings_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        SearchConfig(method="darts-pt", **given)
    assert str(error.value).startswith(message)
