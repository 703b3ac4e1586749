"""What is left of a space after a stage of P-DARTS, how does its dropout fall, and how are skip connections spared?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS
from jaxdarts.methods.p_darts import (
    SKIP_DROPOUT,
    dropout_schedule,
    pruned,
    sparing,
    stage_counts,
    stage_settings,
    strongest_operations,
)
from jaxdarts.networks import Weights
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import NASBENCH201, SPACES, SearchSpace
from tests.methods.making import RAGGED, batches, make, started

SKIP, MAX, SEP = "skip_connect", "max_pool_3x3", "sep_conv_3x3"
THREE = SearchSpace.uniform("three", ("none", SKIP, SEP), num_nodes=1)


def test_the_strongest_operations_in_their_order() -> None:
    names = ("none", SKIP, MAX, SEP)
    assert strongest_operations(names, np.array([3.0, 1, 2, 0]), 2) == [0, 2]
    assert strongest_operations(names, np.array([3.0, 1, 2, 0]), 2, without_none=True) == [1, 2]
    # Of equal ones the later is kept.
    assert strongest_operations(names, np.zeros(4), 3) == [1, 2, 3]
    assert strongest_operations(names, np.array([5.0, 0, 0, 0]), 2) == [0, 3]
    # What pads a list is no operation.
    assert strongest_operations(names[:2], np.array([0.0, 1, 9, 9]), 1) == [1]


def test_a_space_after_a_stage() -> None:
    alpha = {"normal": [[1.0, 0, 0], [0, 2, 1]], "reduce": [[1.0, 2, 0], [3, 0, 0]]}
    found = pruned(RAGGED, alpha, {"normal": [1, 2], "reduce": [1, 1]})
    assert found.normal == ((SKIP,), (MAX, "avg_pool_3x3"))
    assert found.reduce == ((MAX,), (MAX,))
    # An edge with only `none` left could not be searched.
    alone = pruned(
        THREE, {"normal": [[9.0, 0, 1]] * 2, "reduce": [[0.0, 1, 2]] * 2}, dict.fromkeys(("normal", "reduce"), [1, 1])
    )
    assert alone.normal == ((SEP,), (SEP,)) and alone.reduce == ((SEP,), (SEP,))


def test_how_many_operations_stages_have() -> None:
    settings = SearchConfig(method="p-darts", space="darts")

    def counts(space: Any, settings: SearchConfig = settings) -> list[int]:
        return [stage_counts(space, settings, number)["normal"][0] for number in range(3)]

    assert counts(SPACES["darts"]) == [8, 5, 3]
    assert counts(SPACES["s2"]) == [2, 2, 2]
    assert counts(SPACES["s3"]) == [3, 2, 2]
    own = SearchConfig(method="p-darts", space="darts", stage_operations="8,4,2")
    assert counts(SPACES["darts"], own) == [8, 4, 2]
    # Edges that have fewer keep them.
    assert stage_counts(SPACES["s1"], own, 1)["normal"] == [len(edge) for edge in SPACES["s1"].normal]


def test_the_settings_of_the_stages() -> None:
    settings = SearchConfig(method="p-darts", stage_cells="3,5", stage_operations="8,2", stage_dropout="0,0.5", seed=7)
    first, second = stage_settings(settings)
    assert (first.cells, first.stage_operations, first.stage_dropout) == (3, "8", "0")
    assert (second.cells, second.stage_operations, second.stage_dropout) == (5, "2", "0.5")
    assert first.seed == second.seed == 7 and first.epochs == settings.epochs


def test_dropout_falls_and_jumps_back_as_published() -> None:
    jumping, steady = (dropout_schedule(0.4, 25, 10, jump) for jump in (True, False))
    assert jumping(0) == steady(0) == pytest.approx(0.4 * 24 / 25)
    assert jumping(9) == pytest.approx(0.4 * 15 / 25)
    assert jumping(10) == 0.4 and jumping(12) == pytest.approx(0.4 * math.exp(-0.4))
    assert steady(10) == pytest.approx(0.4 * 14 / 25) and steady(9) > steady(10) > steady(11)
    # A shorter stage ends as low.
    assert dropout_schedule(0.4, 5, 2, True)(5) == pytest.approx(jumping(25))


def weights(rows: list[list[float]]) -> Weights:
    matrix = jnp.asarray(rows)
    return Weights({"normal": matrix, "reduce": matrix})


def test_skip_connections_are_spared_in_the_normal_cell_only() -> None:
    space = SearchSpace.uniform("two", (SKIP, SEP), num_nodes=2)
    own = weights([[0.7, 0.3], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45]])
    free = sparing(None)(space, own, None)
    assert free.edges("normal") == free.edges("reduce") == ((SKIP, 0), (SKIP, 1), (SKIP, 0), (SKIP, 1))
    # 0.6 loses its weight, and then 0.55, whose edge had taken its place.
    assert sparing(3)(space, own, None).edges("normal") == ((SKIP, 0), (SKIP, 1), (SKIP, 0), (SEP, 2))
    assert sparing(2)(space, own, None).edges("normal") == ((SEP, 0), (SKIP, 1), (SKIP, 0), (SEP, 2))
    assert sparing(2)(space, own, None).edges("reduce") == free.edges("reduce")
    assert sparing(0)(space, own, None).edges("normal") == ((SEP, 0), (SEP, 1), (SEP, 1), (SEP, 2))


def test_what_has_nothing_else_stays_a_skip_connection() -> None:
    space = SearchSpace.uniform("skips", ("none", SKIP), num_nodes=1)
    found = sparing(0)(space, weights([[0.9, 0.1], [0.2, 0.8]]), None)
    assert found.edges("normal") == ((SKIP, 0), (SKIP, 1))


def test_equal_edges_keep_the_later_and_are_listed_by_source() -> None:
    space = SearchSpace.uniform("ties", (MAX, SEP), num_nodes=2)
    found = sparing(2)(space, weights([[0.5, 0.5]] * 5), None)
    assert found.edges("normal") == ((SEP, 0), (SEP, 1), (SEP, 1), (SEP, 2))
    strong = sparing(2)(space, weights([[1.0, 0], [0, 2], [0, 3], [0, 1], [9, 0]]), None)
    assert strong.edges("normal")[2:] == ((SEP, 0), (MAX, 2))


def test_a_stage_drops_elements_of_identities() -> None:
    """The same batch with the same key gives another loss with dropout, and the schedule's value is what counts."""
    search = make("p-darts", stage_cells="3", stage_dropout="0.5", epochs=5)
    state = started(search, 0)
    assert float(state.values[SKIP_DROPOUT]) == pytest.approx(0.4)
    losses = []
    for dropout in (0.0, 0.4, 0.4):
        values = {**state.values, SKIP_DROPOUT: jnp.float32(dropout)}
        _, totals = jax.jit(search.step)(dataclasses.replace(state, values=values), *batches())
        losses.append(float(totals["train_loss"][0]))
    assert losses[0] != losses[1] == losses[2]
    without = make("p-darts", stage_cells="3", stage_dropout="0")
    assert SKIP_DROPOUT not in started(without).values
    assert not without.problem.network.module.skip_dropout and search.problem.network.module.skip_dropout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage_cells": "5,x"}, "stage_cells must be whole numbers with commas between them; got '5,x'"),
        ({"stage_dropout": "0.1,nan,0.2"}, "stage_dropout must be numbers with commas between them"),
        ({"stage_cells": "3,4"}, "stage_dropout must have as many numbers as stage_cells, 2; got '0.1,0.4,0.7'"),
        ({"stage_operations": "8,5"}, "stage_operations must have as many numbers as stage_cells, 3; got '8,5'"),
        ({"stage_operations": "8,5,6"}, "stage_operations must be at least 2 and must not grow; got '8,5,6'"),
        ({"stage_operations": "8,5,1"}, "stage_operations must be at least 2 and must not grow; got '8,5,1'"),
        ({"stage_cells": "3,2,4"}, "stage_cells must be at least 3 each"),
        ({"stage_dropout": "0.1,1,0"}, "stage_dropout must be at least 0 and less than 1 each"),
        (
            {"stage_cells": "3,4", "stage_dropout": "0,0"},
            "stage_operations must be given for other than 3 stages; stage_cells '3,4' has 2",
        ),
        ({"most_skips": -1}, "most_skips must be at least 0; got -1"),
        ({"cells": 8}, "cells 8 is only for other methods; p-darts has stage_cells"),
        (
            {"stage_dropout": "0,0,0", "dropout_jump": False},
            "dropout_jump False is only for a stage_dropout other than 0",
        ),
    ],
)
def test_settings_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        SearchConfig(method="p-darts", **given)
    assert str(error.value).startswith(message)


def test_spaces_that_cannot_be_used() -> None:
    check = METHODS["p-darts"].check_space
    with pytest.raises(InputError, match="stage_operations must begin with 8, the most operations that an edge of sp"):
        check(SearchConfig(method="p-darts", stage_operations="9,5,3"), SPACES["darts"])
    with pytest.raises(InputError, match="method p-darts cannot be used in space 'nasbench201'"):
        check(SearchConfig(method="p-darts"), NASBENCH201)
