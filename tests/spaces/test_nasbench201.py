"""Are the cells of NAS-Bench-201 those of the benchmark, in its order, and are equal ones recognised?"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.discrete import discrete_plan
from jaxdarts.spaces import GENOTYPES, NASBENCH201, DenseGenotype, DenseSpace, discretise, one_hot
from jaxdarts.spaces.files import find_genotype, genotype_from_json, space_from_json
from jaxdarts.spaces.nasbench201 import (
    OPERATIONS,
    canonical_cell,
    cell_index,
    cells,
    function_of,
    neighbours,
    parse_index,
    weights_order,
)

SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"


def cell(*operations: str) -> DenseGenotype:
    return DenseGenotype(operations)


def official_string(genotype: DenseGenotype) -> str:
    """The benchmark's own notion of equal cells, in which a zero stays in a sum."""
    nodes = ["0"]
    for node in range(3):
        terms = []
        for to, (operation, source) in zip(genotype.nodes(), genotype.edges(), strict=True):
            if to == node:
                zero = operation == "none" or nodes[source] == "#"
                skip = operation == "skip_connect"
                terms.append("#" if zero else nodes[source] if skip else f"({nodes[source]})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def test_all_cells_in_the_official_order() -> None:
    """The first cell and those whose indices are known: all skip connections, and the best on the three data sets."""
    assert len(cells()) == len(set(cells())) == 15625 == NASBENCH201.num_genotypes()
    assert set(cells()) == set(NASBENCH201.genotypes())
    known = {
        0: "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        1835: SKIPS,
        6111: "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
    }
    for index, text in known.items():
        assert parse_index(index).to_text() == text
        assert cell_index(DenseGenotype.from_text(text)) == index
    with pytest.raises(InputError, match="index must be between 0 and 15624; got 15625"):
        parse_index(15625)
    with pytest.raises(InputError, match="does not belong to space 'nasbench201'"):
        cell_index(GENOTYPES["DARTS_V2"])


def test_strings_both_ways() -> None:
    for genotype in cells()[::97]:
        assert DenseGenotype.from_text(genotype.to_text()) == genotype
        assert genotype_from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
        assert find_genotype(genotype.to_text(), OPERATIONS) == genotype


@pytest.mark.parametrize(
    "text", ["", "|", "|none|", "none~0", "|none~1|", "|none~0|+|none~0|", SKIPS + "+", SKIPS[:-1]]
)
def test_strings_that_are_no_cell(text: str) -> None:
    with pytest.raises(InputError, match="genotype"):
        DenseGenotype.from_text(text)


def test_number_of_different_cells() -> None:
    """6466 by the benchmark's rule. Cells that the search's networks tell apart, the evaluation's do too."""
    assert len(set(map(official_string, cells()))) == 6466
    without: dict[str, str] = {}
    for genotype in cells():
        same = function_of(genotype, affine=False)
        assert without.setdefault(function_of(genotype), same) == same
    assert len(without) == 5234
    assert len(set(without.values())) == 5044


def applied(genotype: DenseGenotype, state: dict[str, np.ndarray], affine: bool) -> np.ndarray:
    """A cell's output in training, in float64, with an edge's weights under its number."""
    plan = discrete_plan(genotype, "cell")
    module = Cell(plan, 2, reduction=False, previous_reduction=False, affine=affine, normalise_pools=False)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    variables: dict[str, dict[str, dict[str, np.ndarray]]] = {"params": {}, "batch_stats": {}}
    for source in range(3):
        normed = []
        for group in plan.groups(source, 1):
            if group.operation.layers:
                kernels = np.stack([state[f"{group.name} {member}"] for member in group.members])
                layer = variables["params"].setdefault(f"{group.name}_from_{source}_1", {})
                layer.update({"conv": {"kernel": kernels}} if group.name == "nor_conv_1x1" else {"kernel": kernels})
                normed += group.members
        if normed:
            norm = {name: np.stack([state[f"{name} {member}"] for member in normed]) for name in ("scale", "bias")}
            variables["params"][f"norm_1_from_{source}"] = norm if affine else {}
            running = np.ones((len(normed), 2))
            variables["batch_stats"][f"norm_1_from_{source}"] = {"mean": running, "variance": running}
    gates = np.ones((len(plan.connections), 1))
    output, _ = module.apply(variables, x, x, gates, True, None, mutable=["batch_stats"])
    return np.asarray(output)


def weights(edges: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """For each of the edges, in their order; of the others their own, which have no effect."""
    state = {}
    for random, order in ((np.random.default_rng(), range(6)), (np.random.default_rng(seed), edges)):
        for edge in order:
            state[f"nor_conv_1x1 {edge}"] = random.normal(size=(2, 2))
            state[f"nor_conv_3x3 {edge}"] = random.normal(size=(3, 3, 2, 2))
            state[f"scale {edge}"], state[f"bias {edge}"] = random.normal(size=(2, 2))
    return state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("affine", [True, False])
def test_equal_cells_compute_the_same(affine: bool) -> None:
    """Real cells of eight classes, with weights that correspond."""
    classes: dict[str, list[DenseGenotype]] = {}
    for genotype in cells():
        classes.setdefault(function_of(genotype, affine), []).append(genotype)
    random = np.random.default_rng(1)
    large = [name for name in sorted(classes) if len(classes[name]) > 2 and name.count("conv") > 1]
    for name in random.choice(large, 8, replace=False):
        outputs = []
        for index in random.choice(len(classes[name]), 3, replace=False):
            text, edges = weights_order(classes[name][index], affine)
            assert text == name
            outputs.append(applied(classes[name][index], weights(edges, seed=5), affine))
        np.testing.assert_allclose(outputs[1:], outputs[:1] * 2, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_convolution_of_nothing_is_a_bias() -> None:
    """Equal without affine batch norm only; nothing of the kernel is left, so both sizes are alike."""
    conv1, conv3, pool, skip, none = "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none"
    assert function_of(cell(none, skip, conv1, skip, none, pool)) == "avg_pool_3x3(x)+bias+x"
    own = cell(none, none, conv3, conv3, none, pool), cell(none, none, conv1, conv3, none, skip)
    assert function_of(own[0]) == function_of(own[1]) == "bias+nor_conv_3x3(x)"
    without = cell(none, none, none, conv3, none, none)
    assert function_of(own[0]) != function_of(without)
    assert function_of(own[0], affine=False) == function_of(without, affine=False) == "nor_conv_3x3(x)"
    state = weights(range(6), seed=3)
    found = [applied(one, state, affine) for affine in (True, False) for one in (*own, without)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    np.testing.assert_allclose(
        found[0] - found[2], np.broadcast_to(state["bias 2"].reshape(2, 1, 1, 1), found[0].shape)
    )
    np.testing.assert_allclose(found[3:5], [found[5]] * 2, rtol=1e-12)


def test_weights_that_are_shared_are_told_from_weights_that_are_not() -> None:
    conv, skip, none = "nor_conv_3x3", "skip_connect", "none"
    twice = cell(conv, none, skip, none, skip, skip)  # one convolution, added twice
    two = cell(conv, none, none, conv, skip, none)
    assert function_of(twice) == "nor_conv_3x3(x)+nor_conv_3x3(x)"
    assert function_of(two) == "nor_conv_3x3#1(x)+nor_conv_3x3#2(x)"


def test_cells_that_compute_the_same() -> None:
    conv, skip, none = "nor_conv_3x3", "skip_connect", "none"
    same = [
        cell(none, none, none, conv, none, none),
        cell(skip, none, none, none, conv, none),
        cell(conv, none, none, none, skip, none),
        cell(conv, none, skip, none, none, skip),
    ]
    assert {function_of(one) for one in same} == {"nor_conv_3x3(x)"}
    assert len({canonical_cell(one) for one in same}) == 1
    first = canonical_cell(same[0])
    assert canonical_cell(first) == first and cell_index(first) <= min(map(cell_index, same))
    assert function_of(cell(conv, none, none, skip, skip, none)) == "nor_conv_3x3(x)+x"
    assert function_of(cell(*[none] * 6)) == "0"
    pool = "avg_pool_3x3"
    of_sum, sum_of = cell(conv, skip, skip, none, none, pool), cell(conv, none, none, pool, pool, none)
    assert function_of(of_sum) == function_of(sum_of) == "avg_pool_3x3(nor_conv_3x3(x))+avg_pool_3x3(x)"


def test_neighbours() -> None:
    found = list(neighbours(parse_index(1835)))
    assert len(set(found)) == 24
    assert all(sum(a != b for a, b in zip(one.cell, parse_index(1835).cell, strict=True)) == 1 for one in found)


def test_discretisation_is_the_arg_max_of_every_edge() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        strengths = random.random((6, 5))
        genotype = discretise(NASBENCH201, {"cell": strengths})
        assert genotype.edges("cell") == tuple(
            (OPERATIONS[row.argmax()], source) for row, source in zip(strengths, (0, 0, 1, 0, 1, 2), strict=True)
        )
        assert discretise(NASBENCH201, one_hot(NASBENCH201, genotype)) == genotype


def test_spaces_of_other_sizes() -> None:
    space = DenseSpace.uniform("small", ("none", "nor_conv_1x1"), num_nodes=2)
    assert space.edges == ((0, 0), (1, 0), (1, 1)) and space.num_genotypes() == 8 == len(set(space.genotypes()))
    assert space_from_json(json.loads(json.dumps(space.to_json()))) == space
    with pytest.raises(InputError, match="no cell has 4 edges"):
        cell(*["none"] * 4)
    with pytest.raises(InputError, match="cell has candidates for 2 edges; 2 nodes have 3 edges"):
        DenseSpace("wrong", 2, (("skip_connect",),) * 2)
    with pytest.raises(InputError, match="it has the cells cell, the space normal, reduce"):
        one_hot(
            space_from_json(
                {"name": "x", "num_nodes": 1, "normal": [["noise"]] * 2, "reduce": [["noise"]] * 2, "concat": [2]}
            ),
            cell("none"),
        )
