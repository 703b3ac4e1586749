"""Does discretisation choose what the reference chooses, on any space?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.spaces import (
    CELL_TYPES,
    S1,
    S2,
    S3,
    S5,
    Genotype,
    SearchSpace,
    count_edges,
    discretise,
    one_hot,
    one_hot_choices,
)

TINY = SearchSpace.uniform("tiny", ("none", "skip_connect", "sep_conv_3x3"), num_nodes=2)
SEEDS = st.integers(0, 2**32 - 1)


def strengths(space: SearchSpace, seed: int, values: int | None = None) -> dict[str, np.ndarray]:
    """Random strengths between 0 and 1; of `values` different numbers only, so that there are ties."""
    random = np.random.default_rng(seed)
    drawn = {cell: random.random(space.alpha_shape(cell)) for cell in ("normal", "reduce")}
    return drawn if values is None else {cell: np.round(array * (values - 1)) / values for cell, array in drawn.items()}


def reference(space: SearchSpace, strengths: dict[str, np.ndarray], cell: str) -> list[tuple[str, int]]:
    """Node by node as in the PyTorch codes, with plain lists; shorter lists of candidates just end earlier."""
    gene, start = [], 0
    for node in range(space.num_nodes):
        rows = strengths[cell][start : start + node + 2]
        names = space.operations(cell)[start : start + node + 2]
        best = [
            max((row[k], -k) for k in range(len(edge)) if edge[k] != "none")
            for row, edge in zip(rows, names, strict=True)
        ]
        for source in sorted(range(node + 2), key=lambda j: -best[j][0])[:2]:
            gene.append((names[source][-best[source][1]], source))
        start += node + 2
    return gene


@given(st.from_type(SearchSpace), SEEDS, st.sampled_from([None, 2, 3]))
def test_agrees_with_the_reference(space: SearchSpace, seed: int, values: int | None) -> None:
    drawn = strengths(space, seed, values)
    genotype = discretise(space, drawn)
    for cell in CELL_TYPES:
        assert list(genotype.edges(cell)) == reference(space, drawn, cell)
        assert genotype.concat(cell) == space.concat


@given(st.from_type(SearchSpace), SEEDS)
def test_result_is_one_of_the_spaces_genotypes(space: SearchSpace, seed: int) -> None:
    genotype = discretise(space, strengths(space, seed))
    for cell in CELL_TYPES:
        for index, (operation, source) in enumerate(genotype.edges(cell)):
            assert operation != "none"
            assert operation in space.operations(cell)[count_edges(index // 2) + source]
        for first, second in zip(genotype.edges(cell)[::2], genotype.edges(cell)[1::2], strict=True):
            assert first[1] != second[1]


@given(st.from_type(SearchSpace), SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_only_the_order_of_strengths_matters(space: SearchSpace, seed: int, scale: float, shift: float) -> None:
    drawn = strengths(space, seed, values=50)
    moved = {cell: np.exp(scale * array) + shift for cell, array in drawn.items()}
    assert discretise(space, moved) == discretise(space, drawn)


@given(st.from_type(SearchSpace), SEEDS, st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
def test_padding_and_none_are_ignored(space: SearchSpace, seed: int, value: float) -> None:
    drawn = strengths(space, seed)
    filled = {
        cell: np.where(
            space.mask(cell)
            & np.array(
                [
                    [*(name != "none" for name in edge), *[True] * (array.shape[1] - len(edge))]
                    for edge in space.operations(cell)
                ]
            ),
            array,
            value,
        )
        for cell, array in drawn.items()
    }
    assert discretise(space, filled) == discretise(space, drawn)


def test_none_is_never_chosen_however_strong() -> None:
    weights = {cell: np.tile([0.98, 0.01, 0.01], (14, 1)) for cell in CELL_TYPES}
    assert "none" not in discretise(S3, weights).operations


def test_ties_keep_the_lower_source_and_the_first_operation() -> None:
    genotype = discretise(S2, {cell: np.full((14, 2), 0.5) for cell in CELL_TYPES})
    assert genotype.normal == (("skip_connect", 0), ("skip_connect", 1)) * 4
    assert genotype.reduce == genotype.normal


def test_stronger_edge_is_written_first() -> None:
    weights = np.zeros((5, 3))
    weights[:, 1] = [0.1, 0.3, 0.2, 0.1, 0.4]
    weights[4, 2] = 0.5
    weights[:, 0] = 1 - weights[:, 1:].sum(axis=1)
    genotype = discretise(TINY, {"normal": weights, "reduce": weights})
    assert genotype == Genotype(
        normal=(("skip_connect", 1), ("skip_connect", 0), ("sep_conv_3x3", 2), ("skip_connect", 0)),
        normal_concat=(2, 3),
        reduce=(("skip_connect", 1), ("skip_connect", 0), ("sep_conv_3x3", 2), ("skip_connect", 0)),
        reduce_concat=(2, 3),
    )


def test_columns_belong_to_the_edge() -> None:
    # In S1 the same column means different operations on different edges and in the two cells.
    first = {cell: np.tile([0.9, 0.1], (14, 1)) for cell in CELL_TYPES}
    genotype = discretise(S1, first)
    assert genotype.normal[:2] == (("skip_connect", 0), ("skip_connect", 1))
    assert genotype.normal[4:6] == (("max_pool_3x3", 0), ("skip_connect", 1))
    second = discretise(S1, {cell: 1 - array for cell, array in first.items()})
    assert second.normal[:2] == (("dil_conv_3x3", 0), ("dil_conv_5x5", 1))
    assert second.reduce[:2] == (("avg_pool_3x3", 0), ("dil_conv_3x3", 1))


@given(st.from_type(SearchSpace), SEEDS)
def test_one_hot_weights_are_read_back_as_the_genotype(space: SearchSpace, seed: int) -> None:
    genotype = discretise(space, strengths(space, seed))
    weights = one_hot(space, genotype)
    assert discretise(space, weights).canonical() == genotype.canonical()
    for cell in CELL_TYPES:
        assert weights[cell].shape == space.alpha_shape(cell) and weights[cell].dtype == np.float32
        assert set(np.unique(weights[cell])) <= {0, 1} and weights[cell].sum() == 2 * space.num_nodes


def test_one_hot_weights_of_a_genotype_of_another_space() -> None:
    genotype = discretise(S2, strengths(S2, 0))
    with pytest.raises(InputError, match="does not belong to space 's5': it has 4 nodes a cell, the space 1"):
        one_hot(S5, genotype)
    foreign = dataclasses.replace(genotype, normal=(("noise", 0), *genotype.normal[1:]))
    with pytest.raises(InputError, match="the normal cell's edge 0->2 has 'noise', the space has skip_connect, sep_"):
        one_hot(S2, foreign)


@given(st.from_type(SearchSpace))
def test_choices_are_those_of_the_spaces_genotypes(space: SearchSpace) -> None:
    total = 1
    for cell in CELL_TYPES:
        for node in range(space.num_nodes):
            choices = one_hot_choices(space, cell, node)
            assert choices.shape[1:] == (node + 2, space.alpha_shape(cell)[1])
            assert (choices.sum(axis=(1, 2)) == 2).all() and (choices.sum(axis=2) <= 1).all()
            total *= len(np.unique(choices, axis=0))
    assert total == space.num_genotypes()


def test_bad_strengths() -> None:
    good = {cell: np.zeros((5, 3)) for cell in CELL_TYPES}
    with pytest.raises(
        InputError, match=r"strengths\['reduce'\]: shape \(5, 2\) does not fit space 'tiny'; expected \(5, 3\)"
    ):
        discretise(TINY, good | {"reduce": np.zeros((5, 2))})
    with pytest.raises(InputError, match=r"strengths\['normal'\] holds values that are not numbers"):
        discretise(TINY, good | {"normal": np.full((5, 3), np.nan)})


def test_one_hot_weights_of_a_genotype_with_fewer_edges() -> None:
    """By hand: state 2 reads state 1, state 3 nothing in the one cell, states 0 and 2 in the other."""
    normal, reduce = (("sep_conv_3x3", 1),), (("skip_connect", 1), ("sep_conv_3x3", 0), ("skip_connect", 2))
    weights = one_hot(TINY, Genotype(normal, (2,), reduce, (2, 3), (1, 0), (1, 2)))
    np.testing.assert_array_equal(weights["normal"], [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(weights["reduce"], [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    other = Genotype(normal, (2,), reduce, (3,), (1, 0), (1, 2))
    with pytest.raises(InputError, match=r"the reduce cell concatenates \[3\], the space \[2, 3\]"):
        one_hot(TINY, other)
    with pytest.raises(InputError, match="the normal cell's edge 0->3 has 'noise'"):
        one_hot(TINY, Genotype((*normal, ("noise", 0)), (2, 3), reduce, (2, 3), (1, 1), (1, 2)))
