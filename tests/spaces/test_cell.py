"""Are the published spaces the published ones?"""

from __future__ import annotations

import pytest

from jaxdarts.networks import OPERATIONS
from jaxdarts.spaces import ACTIVATION_NAMES, DARTS, S1, S2, S3, S4, S5, SPACES, Genotype
from tests.images import IMAGE_SPACES

# A letter an operation, an edge a pair, the normal and the reduction cell side by side: written down from the paper's
# code (spaces.py) apart from jaxdarts.spaces.cell.
LETTERS = {
    "s": "skip_connect",
    "m": "max_pool_3x3",
    "a": "avg_pool_3x3",
    "3": "dil_conv_3x3",
    "5": "dil_conv_5x5",
    "S": "sep_conv_3x3",
}
S1_EDGES = """
0->2 s3 ma
1->2 s5 m3
0->3 s5 ma
1->3 sS ma
2->3 s3 s5
0->4 ms ma
1->4 sS mS
2->4 sS s3
3->4 s3 s5
0->5 sS ma
1->5 ms ma
2->5 s3 s5
3->5 35 s5
4->5 35 s5
"""


def test_s1_edge_by_edge() -> None:
    lines = [line.split() for line in S1_EDGES.split("\n") if line]
    assert len(lines) == S1.num_edges == 14
    for (name, *cells), (node, source), normal, reduce in zip(lines, S1.edges, S1.normal, S1.reduce, strict=True):
        assert name == f"{source}->{node + 2}"
        assert [normal, reduce] == [tuple(LETTERS[letter] for letter in pair) for pair in cells], name


@pytest.mark.parametrize(
    ("space", "operations"),
    [
        (S2, ("skip_connect", "sep_conv_3x3")),
        (S3, ("none", "skip_connect", "sep_conv_3x3")),
        (S4, ("noise", "sep_conv_3x3")),
        (
            DARTS,
            (
                "none",
                "max_pool_3x3",
                "avg_pool_3x3",
                "skip_connect",
                "sep_conv_3x3",
                "sep_conv_5x5",
                "dil_conv_3x3",
                "dil_conv_5x5",
            ),
        ),
    ],
)
def test_uniform_spaces(space, operations) -> None:  # type: ignore[no-untyped-def]
    assert space.normal == space.reduce == (operations,) * 14
    assert space.concat == (2, 3, 4, 5)


def test_s5_is_the_papers() -> None:
    assert S5.num_nodes == 1
    assert set(S5.normal[0]) == {"sep_conv_3x3", "skip_connect", "max_pool_3x3"}
    assert S5.concat == (2,)


@pytest.mark.parametrize("name", ["s1", "s2", "s3", "s4"])
def test_sizes_of_the_studys_spaces(name: str) -> None:
    # Zela et al. 2020 count edges and operations: 46080 cells of each type.
    assert SPACES[name].num_genotypes() == 46080**2


def test_size_of_the_full_space() -> None:
    # Pairs of sources times 7 operations on each edge: (1 * 3 * 6 * 10) * 7**8 = 1.04e9 cells.
    assert DARTS.num_genotypes() == (180 * 7**8) ** 2
    cells = 180 * 7**8
    assert cells == pytest.approx(1.038e9, rel=1e-3)


def test_registry() -> None:
    images = {"darts", "s1", "s2", "s3", "s4", "s5", "nasbench201"}
    assert set(SPACES) == images | {"rnn", "rnn-robust"} and set(IMAGE_SPACES) == images
    for name, space in SPACES.items():
        assert space.name == name
        assert set(space.operation_names) <= set(OPERATIONS if name in images else ACTIVATION_NAMES)


def test_golden_genotype_lies_in_s1() -> None:
    genotype = Genotype.from_text(
        "Genotype(normal=[('dil_conv_5x5', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), ('dil_conv_3x3', 2),"
        " ('skip_connect', 1), ('sep_conv_3x3', 2), ('dil_conv_3x3', 4), ('skip_connect', 1)],"
        " normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2),"
        " ('max_pool_3x3', 0), ('avg_pool_3x3', 0), ('skip_connect', 2), ('avg_pool_3x3', 0), ('dil_conv_5x5', 4)],"
        " reduce_concat=range(2, 6))"
    )
    for cell in ("normal", "reduce"):
        for index, (operation, source) in enumerate(genotype.edges(cell)):
            assert operation in S1.operations(cell)[S1.edges.index((index // 2, source))]
