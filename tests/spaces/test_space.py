"""Are spaces validated, and their edges, masks and sizes right?"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.spaces import S5, SPACES, Genotype, SearchSpace, count_edges, discretise, one_hot_choices

TWO_NODES = SearchSpace.uniform("two", ("skip_connect", "sep_conv_3x3"), num_nodes=2)


def test_uniform() -> None:
    assert TWO_NODES.edges == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))
    assert TWO_NODES.concat == (2, 3)
    assert TWO_NODES.alpha_shape("normal") == (5, 2)
    assert TWO_NODES.mask("reduce").all()
    assert TWO_NODES.operation_names == ("sep_conv_3x3", "skip_connect")
    assert SearchSpace.uniform("last", ("skip_connect",), num_nodes=3, concat=(4,)).concat == (4,)


@pytest.mark.parametrize(("nodes", "edges"), [(1, 2), (2, 5), (3, 9), (4, 14), (5, 20)])
def test_count_edges(nodes: int, edges: int) -> None:
    assert count_edges(nodes) == edges == sum(node + 2 for node in range(nodes))


@given(st.from_type(SearchSpace))
def test_any_space(space: SearchSpace) -> None:
    assert hash(replace(space)) == hash(space)
    assert len(space.edges) == space.num_edges == count_edges(space.num_nodes)
    assert space.edges == tuple(sorted(space.edges))
    for cell in ("normal", "reduce"):
        mask = space.mask(cell)
        assert mask.shape == space.alpha_shape(cell)
        assert mask.any(axis=0).all()
        for row, operations in zip(mask, space.operations(cell), strict=True):
            assert row.tolist() == [column < len(operations) for column in range(len(row))]


def test_lists_are_made_hashable() -> None:
    space = SearchSpace("x", 1, [["skip_connect"]] * 2, [["skip_connect"]] * 2, [2])  # type: ignore[arg-type]
    assert hash(space) == hash(SearchSpace("x", 1, (("skip_connect",),) * 2, (("skip_connect",),) * 2, (2,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_nodes": 0}, "num_nodes must be a whole number of at least 1; got 0"),
        ({"num_nodes": 1.5}, "num_nodes must be a whole number"),
        ({"num_nodes": True}, "num_nodes must be a whole number"),
        ({"num_nodes": 3}, "normal has candidates for 5 edges; 3 nodes have 9 edges"),
        ({"normal": TWO_NODES.normal[1:]}, "normal has candidates for 4 edges"),
        ({"reduce": (*TWO_NODES.reduce[:4], ())}, "reduce edge 2->3 needs at least one operation other than none"),
        ({"reduce": (*TWO_NODES.reduce[:4], ("none",))}, "reduce edge 2->3 needs at least one"),
        ({"normal": (("skip_connect",) * 2, *TWO_NODES.normal[1:])}, "normal edge 0->2 lists an operation twice"),
        ({"concat": ()}, "concat must name different intermediate nodes, states 2 to 3"),
        ({"concat": (1, 2)}, "concat must name"),
        ({"concat": (2, 4)}, "concat must name"),
        ({"concat": (2, 2)}, "concat must name"),
    ],
)
def test_invalid_spaces(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"space 'two': .*{message}"):
        replace(TWO_NODES, **change)


def test_s5_has_81_architectures() -> None:
    found = set(S5.genotypes())
    assert len(found) == S5.num_genotypes() == 81
    assert all(genotype.canonical() == genotype for genotype in found)
    assert {genotype.operations for genotype in found} >= {("sep_conv_3x3",), ("skip_connect",), ("max_pool_3x3",)}


def test_what_discretisation_can_return_belongs_to_the_space() -> None:
    for genotype in S5.genotypes():
        S5.check_genotype(genotype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"normal": (("sep_conv_5x5", 0), ("skip_connect", 1))},
            "normal cell's edge 0->2 has 'sep_conv_5x5', the space",
        ),
        ({"normal": (("none", 0), ("skip_connect", 1))}, "edge 0->2 has 'none'"),
        ({"reduce": (("skip_connect", 1), ("skip_connect", 1))}, "reduce cell's edge 1->2 is there twice"),
        ({"reduce_concat": (1, 2)}, r"reduce cell concatenates \[1, 2\], the space \[2\]"),
        (
            {"normal": (("skip_connect", 0), ("skip_connect", 1)) * 2, "reduce": (("skip_connect", 0),) * 4},
            "has 2 nodes",
        ),
    ],
)
def test_other_genotypes_do_not(change: dict[str, Any], message: str) -> None:
    genotype = replace(next(iter(S5.genotypes())), **change)
    with pytest.raises(InputError, match=f"genotype: does not belong to space 's5': .*{message}"):
        S5.check_genotype(genotype)


def test_enumeration_agrees_with_the_count() -> None:
    space = SearchSpace(
        "ragged",
        2,
        (
            ("skip_connect",),
            ("none", "sep_conv_3x3"),
            ("skip_connect", "sep_conv_3x3"),
            ("sep_conv_3x3",),
            ("skip_connect",),
        ),
        (("skip_connect",), ("skip_connect", "max_pool_3x3"), *(("skip_connect",),) * 3),
        (3,),
    )
    found: list[Genotype] = list(space.genotypes())
    # normal: 1 pair for node 0; (0,1): 2, (0,2): 2, (1,2): 1 for node 1. reduce: 2 for node 0, 3 for node 1.
    assert len(set(found)) == len(found) == space.num_genotypes() == prod((1, 5, 2, 3))
    assert all(genotype.normal_concat == (3,) for genotype in found)


def test_padding_is_masked() -> None:
    space = replace(TWO_NODES, normal=(("skip_connect",), *TWO_NODES.normal[1:]))
    np.testing.assert_array_equal(space.mask("normal")[:2], [[True, False], [True, True]])
    assert space.mask("reduce").all()


@pytest.mark.parametrize("cell_type", ["Normal", "cells", "reduction", ""])
def test_names_of_no_cell(cell_type: str) -> None:
    """Every question about a cell refuses another name; it used to get the reduction cell's answer."""
    for space in SPACES.values():
        genotype = discretise(space, {cell: np.ones(space.alpha_shape(cell)) for cell in space.cell_types})
        for question in (
            space.operations,
            space.alpha_shape,
            space.mask,
            lambda cell, space=space: space.choices(cell, 0),
            lambda cell, space=space: one_hot_choices(space, cell, 0),
            genotype.edges,
            genotype.nodes,
            genotype.concat,
        ):
            for cell in space.cell_types:
                question(cell)
            with pytest.raises(InputError, match=f"unknown cell type {cell_type!r}; choose from"):
                question(cell_type)
