"""Which cells does NAS-Bench-201 have, in which order, and which of them are the same?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import product

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


def function_of(genotype: DenseGenotype) -> str:
    """What a cell computes, as text: equal for cells that differ only in wiring that has no effect.

    A skip connection is its source, `none` and every operation of a state that is always zero are nothing, and sums
    have no order and no brackets. Operations with weights are alike when they apply the same operation to alike inputs.

    Differs from the benchmark's `to_unique_str`, which leaves a zero in a sum: 6466 classes there, fewer here.
    """
    terms: list[tuple[str, ...]] = [("x",)]
    for node in range(genotype.num_nodes):
        found: list[str] = []
        for to, (operation, source) in zip(genotype.nodes(), genotype.edges(), strict=True):
            if to == node and operation != "none" and terms[source]:
                inside = terms[source]
                found += inside if operation == "skip_connect" else [f"{operation}({'+'.join(inside)})"]
        terms.append(tuple(sorted(found)))
    return "+".join(terms[-1]) or "0"


def canonical_cell(genotype: DenseGenotype) -> DenseGenotype:
    """The first cell, in the official order, that computes the same (`function_of`)."""
    NASBENCH201.check_genotype(genotype)
    return _first_of_each_function()[function_of(genotype)]


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
def _first_of_each_function() -> dict[str, DenseGenotype]:
    first: dict[str, DenseGenotype] = {}
    for cell in cells():
        first.setdefault(function_of(cell), cell)
    return first
