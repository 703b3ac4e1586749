"""Which cells does NAS-Bench-201 have, in which order, and which of them are the same?"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations, product
from typing import NamedTuple

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Architecture
from jaxdarts.spaces.cell import NASBENCH201
from jaxdarts.spaces.dense import DenseGenotype
from jaxdarts.values import whole

OPERATIONS = NASBENCH201.cell[0]
NUM_CELLS = len(OPERATIONS) ** NASBENCH201.num_edges  # 15,625
_SHUFFLED_BY = 88  # the seed with which the benchmark's authors ordered the cells


def cells() -> tuple[DenseGenotype, ...]:
    """All 15,625 cells in the benchmark's official order: `cells()[i]` has index i."""
    return _order()[0]


def cell_index(genotype: Architecture) -> int:
    """The official index of a cell. Raises InputError for what is no cell of the space."""
    NASBENCH201.check_genotype(genotype)
    assert isinstance(genotype, DenseGenotype)
    return _order()[1][genotype.cell]


def neighbours(genotype: DenseGenotype) -> Iterator[DenseGenotype]:
    """The 24 cells that differ in the operation of one edge."""
    NASBENCH201.check_genotype(genotype)
    for edge, present in enumerate(genotype.cell):
        for operation in OPERATIONS:
            if operation != present:
                yield DenseGenotype((*genotype.cell[:edge], operation, *genotype.cell[edge + 1 :]))


class _Term(NamedTuple):
    """One summand of a state: the input, or what an edge with weights gives, after so many pools."""

    pools: int
    edge: int | None  # None: the cell's input


def function_of(genotype: DenseGenotype, affine: bool = True) -> str:
    """What a cell computes, as text: equal for cells that, given the same weights, compute the same and learn the same.

    A skip connection is its source and `none` is nothing. Sums have no order, and a pool of a sum is the sum of pools.
    Every convolution has weights of its own, which count where they have an effect: two convolutions of one state are
    two (`#1`, `#2`), one that two ways lead from is one. A convolution of nothing is the bias of its batch norm, the
    same everywhere, and so is a pool of it.

    Args:
      genotype: a cell of the space.
      affine: whether batch norms have a scale and a bias, as in the networks that evaluate a cell. In the search they
        have none: a convolution of nothing is nothing.

    Raises:
      InputError: not a cell of the space.

    Differs from the benchmark's `to_unique_str`, for which a zero stays in a sum, pools of sums are opaque and two
    convolutions of one state are one: 6466 classes there.
    """
    return weights_order(genotype, affine)[0]


def weights_order(genotype: DenseGenotype, affine: bool = True) -> tuple[str, tuple[int, ...]]:
    """`function_of`, and the edges whose weights have an effect: in such an order those of equal cells correspond."""
    NASBENCH201.check_genotype(genotype)
    states: list[list[_Term]] = [[_Term(0, None)]]
    reads: dict[int | None, list[_Term]] = {}  # what an edge with weights is applied to
    edges = list(zip(genotype.nodes(), genotype.edges(), strict=True))
    for node in range(genotype.num_nodes):
        state: list[_Term] = []
        for edge, (to, (operation, source)) in enumerate(edges):
            if to != node or operation == "none":
                continue
            terms = states[source]
            if operation == "skip_connect":
                state += terms
            elif operation == "avg_pool_3x3":
                # The mean of a bias over the positions inside the image is the bias.
                state += [_Term(term.pools + (reads.get(term.edge, terms) != []), term.edge) for term in terms]
            elif terms or affine:
                reads[edge] = terms
                state.append(_Term(0, edge))
        states.append(state)

    def text(terms: Sequence[_Term], labels: Mapping[int, str]) -> str:
        return "+".join(
            sorted("avg_pool_3x3(" * term.pools + one(term.edge, labels) + ")" * term.pools for term in terms)
        )

    def one(edge: int | None, labels: Mapping[int, str]) -> str:
        if edge is None:
            return "x"
        inside = text(reads[edge], labels)
        return f"{edges[edge][1][0]}{labels[edge]}({inside})" if inside else f"bias{labels[edge]}"

    used = _used(states[-1], reads)
    unnumbered = dict.fromkeys(used, "")
    alike: dict[str, list[int]] = {}
    for edge in used:
        alike.setdefault(one(edge, unnumbered), []).append(edge)
    # Which of several alike is the first is told by where else they are used: the numbering with the first text.
    found = []
    for numbered in product(*(permutations(alike[name]) for name in sorted(alike))):
        labels = {
            edge: f"#{number}" if len(group) > 1 else "" for group in numbered for number, edge in enumerate(group, 1)
        }
        found.append((text(states[-1], labels) or "0", sum(numbered, ())))
    return min(found)


def _used(terms: Sequence[_Term], reads: Mapping[int | None, Sequence[_Term]]) -> list[int]:
    """The edges with weights that terms are made of."""
    used: set[int] = set()
    for term in terms:
        if term.edge is not None and term.edge not in used:
            used |= {term.edge, *_used(reads[term.edge], reads)}
    return sorted(used)


def canonical_cell(genotype: DenseGenotype, affine: bool = True) -> DenseGenotype:
    """The first cell, in the official order, that computes the same (`function_of`)."""
    return _first_of_each_function(affine)[function_of(genotype, affine)]


def parse_index(value: int) -> DenseGenotype:
    """The cell with an official index. Raises InputError if there is none."""
    index = whole(value)
    if index is None or not 0 <= index < NUM_CELLS:
        raise InputError(f"index must be between 0 and {NUM_CELLS - 1}; got {value}")
    return cells()[index]


@cache
def _order() -> tuple[tuple[DenseGenotype, ...], dict[tuple[str, ...], int]]:
    operations = list(product(OPERATIONS, repeat=NASBENCH201.num_edges))
    random.Random(_SHUFFLED_BY).shuffle(operations)
    return tuple(map(DenseGenotype, operations)), {cell: index for index, cell in enumerate(operations)}


@cache
def _first_of_each_function(affine: bool) -> dict[str, DenseGenotype]:
    first: dict[str, DenseGenotype] = {}
    for cell in cells():
        first.setdefault(function_of(cell, affine), cell)
    return first
