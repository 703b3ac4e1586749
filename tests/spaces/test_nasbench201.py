"""Are the cells of NAS-Bench-201 those of the benchmark, in its order, and are equal ones recognised?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxdarts.errors import InputError
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
    """6466 by the benchmark's rule; ours also leaves zeros out of sums, and never splits a class of theirs."""
    ours: dict[str, str] = {}
    for genotype in cells():
        assert ours.setdefault(official_string(genotype), function_of(genotype)) == function_of(genotype)
    assert len(ours) == 6466
    assert len(set(ours.values())) == 4930


def test_cells_that_compute_the_same() -> None:
    conv, skip, none = "nor_conv_3x3", "skip_connect", "none"
    same = [
        cell(none, none, none, conv, none, none),
        cell(skip, none, none, none, conv, none),
        cell(conv, none, none, none, skip, none),
        cell(none, none, conv, conv, conv, none),
        cell(conv, none, skip, none, none, skip),
    ]
    assert {function_of(one) for one in same} == {"nor_conv_3x3(x)"}
    assert len({canonical_cell(one) for one in same}) == 1
    first = canonical_cell(same[0])
    assert canonical_cell(first) == first and cell_index(first) <= min(map(cell_index, same))
    assert function_of(cell(conv, none, none, skip, skip, none)) == "nor_conv_3x3(x)+x"
    assert function_of(cell(*[none] * 6)) == "0"


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
