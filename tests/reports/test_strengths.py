"""Do measures of mixing weights agree with closed forms?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.methods import METHODS
from jaxdarts.methods.relaxations import Mixing
from jaxdarts.reports.run_record import RunRecord, read_run
from jaxdarts.reports.search import render_search
from jaxdarts.reports.strengths import edge_strengths, entropy, operation_strengths, skip_share
from jaxdarts.spaces import S4, S5, SearchSpace
from tests.reports.test_search import rewritten, synthetic_run

SKIP = "skip_connect"
TWO_NODES = SearchSpace.uniform("two", (SKIP, "sep_conv_3x3"), num_nodes=2)


def logarithms(*rows: list[float]) -> list[list[float]]:
    """Alpha whose softmax are these rows."""
    return [[math.log(value) for value in row] for row in rows]


def record(folder: Path, space: SearchSpace, **quantities: list[Any]) -> RunRecord:
    """A run whose epochs have these quantities."""
    epochs = len(next(iter(quantities.values())))
    return read_run(rewritten(synthetic_run(folder, space, epochs=epochs), **quantities))


def test_strengths_leave_padding_out_of_the_softmax() -> None:
    strengths = operation_strengths([[0.0, np.log(3.0), 50.0], [1.0, 1.0, 1.0]], [("a", "b"), ("a", "b", "c")])
    np.testing.assert_allclose(strengths[0], [0.25, 0.75])
    np.testing.assert_allclose(strengths[1], [1 / 3] * 3)


def test_edges_are_weighed_against_those_to_the_same_node() -> None:
    alpha = [math.log(value) for value in (1.0, 3.0, 5.0, 2.0, 3.0)]
    np.testing.assert_allclose(edge_strengths(TWO_NODES, alpha), [0.25, 0.75, 0.5, 0.2, 0.3])
    # At temperature 1/2 the odds are squared.
    np.testing.assert_allclose(edge_strengths(TWO_NODES, alpha, 0.5)[:2], [0.1, 0.9])
    assert np.isnan(edge_strengths(TWO_NODES, None)).tolist() == [True] * 5
    with pytest.raises(ValueError, match="4 entries for 5 edges"):
        edge_strengths(TWO_NODES, alpha[:4])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[1 / 3] * 3], math.log(3)),
        ([[0.5, 0.25, 0.25]], 1.5 * math.log(2)),
        ([[0.0, 1.0, 0.0]], 0.0),
        ([[0.5, 0.5], [1.0, 0.0]], 0.5 * math.log(2)),  # the mean over edges
        ([[0.9, 0.9]], math.log(2)),  # parts of their sum
    ],
)
def test_entropy(weights: list[list[float]], expected: float) -> None:
    found = entropy([np.array(edge) for edge in weights], [])
    assert found == pytest.approx(expected, abs=1e-12) and math.copysign(1, found) > 0


def test_share_of_skip_connections() -> None:
    weights = [np.array(edge) for edge in ([0.25, 0.75], [0.5, 0.4, 0.1], [0.9, 0.1])]
    operations = [(SKIP, "sep_conv_3x3"), ("none", SKIP, "noise"), ("sep_conv_3x3", "noise")]
    assert skip_share(weights, operations) == pytest.approx((0.25 + 0.4) / 2)
    assert math.isnan(skip_share(weights[2:], operations[2:]))


def test_quantities_of_a_run(tmp_path: Path) -> None:
    # S5: sep_conv_3x3, skip_connect and max_pool_3x3 on both edges.
    first = {"normal": logarithms([1, 1, 1], [1, 1, 1]), "reduce": logarithms([2, 1, 1], [1, 2, 1])}
    last = {"normal": logarithms([1, 2, 1], [1, 1, 2]), "reduce": logarithms([1, 1, 1], [2, 1, 1])}
    run = record(tmp_path / "run", S5, alpha=[first, last])
    third, half = math.log(3), 1.5 * math.log(2)
    assert run.values("entropy_normal") == pytest.approx([third, half])
    assert run.values("entropy_reduce") == pytest.approx([half, (third + half) / 2])
    assert run.values("skip_share_normal") == pytest.approx([1 / 3, 3 / 8])
    assert run.values("skip_share_reduce") == pytest.approx([3 / 8, (1 / 3 + 1 / 4) / 2])
    assert run.values("entropy_cell") == run.values("skip_share_cell") == [None, None]
    page = render_search(run)
    for measure, heading in (("entropy", "Entropy of the operation weights"), ("skip_share", "Share of skip_connect")):
        assert f"<h3>{heading}</h3><svg" in page and f'id="{measure}-' in page
    assert "1.10: all of 3 operations are alike" in page
    assert "<td>Entropy of operation weights, normal</td><td class=number>1.099</td><td class=number>1.04</td>" in page
    assert "<td>Share of skip_connect, reduction</td><td class=number>0.375</td><td class=number>0.2917</td>" in page


def test_what_is_missing_has_no_quantities(tmp_path: Path) -> None:
    alpha = {"normal": logarithms([1, 1, 1], [1, 1, 1]), "reduce": [[None] * 3, [0.0] * 3]}
    run = record(tmp_path / "run", S5, alpha=[None, alpha])
    assert run.values("entropy_normal") == [None, pytest.approx(math.log(3))]
    assert run.values("entropy_reduce") == run.values("skip_share_reduce")[:1] * 2 == [None, None]


def test_without_skip_connections_they_have_no_card(tmp_path: Path) -> None:
    run = read_run(synthetic_run(tmp_path / "run", S4, epochs=1))
    assert run.values("skip_share_normal") == [None] and run.values("entropy_normal") != [None]
    page = render_search(run)
    assert "Entropy of" in page and "Share of" not in page


def test_a_method_says_what_its_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixing = Mixing("Sigmoid of {}", lambda alpha, names: (1 + np.tanh(alpha / 2)) / 2)
    monkeypatch.setitem(METHODS, "darts", METHODS["darts"]._replace(mixing=mixing))
    odds = {cell: logarithms([1, 3, 1], [1, 9, 1]) for cell in ("normal", "reduce")}
    run = record(tmp_path / "run", S5, alpha=[odds])
    np.testing.assert_allclose(run.strengths("normal")[0], [[0.5, 0.75, 0.5], [0.5, 0.9, 0.5]])
    assert run.values("skip_share_normal") == [pytest.approx(0.825)]
    page = render_search(run)
    assert "Sigmoid of alpha, from epoch 0 (left)" in page and "Softmax" not in page
