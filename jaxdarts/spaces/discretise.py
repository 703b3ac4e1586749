"""How does alpha become a genotype, and a genotype mixing weights?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from jaxdarts.errors import InputError
from jaxdarts.spaces.genotype import Edge, Genotype
from jaxdarts.spaces.space import CELL_TYPES, SearchSpace, count_edges


def discretise(space: SearchSpace, strengths: Mapping[str, ArrayLike]) -> Genotype:
    """Keeps, for every node, the two incoming edges whose strongest operation is strongest (Liu et al. 2019, 2.4).

    `none` is never chosen. Ties keep the lower source and the earlier operation, as the reference's stable sort does;
    a node's stronger edge is written first.

    Args:
      space: the search space.
      strengths: {"normal", "reduce"}: float[edges, operations], the mixing weights (softmax of alpha for DARTS);
        comparable between edges. Entries that pad shorter candidate lists are ignored.

    Raises:
      InputError: a wrong shape, or a strength that is not a number.
    """
    cells = {cell: _discretise_cell(space, cell, np.asarray(strengths[cell], np.float64)) for cell in CELL_TYPES}
    return Genotype(cells["normal"], space.concat, cells["reduce"], space.concat)


def one_hot(space: SearchSpace, genotype: Genotype) -> dict[str, np.ndarray]:
    """The mixing weights with which the supernet computes a genotype's network: float32[edges, operations] a cell.

    1 where the genotype has an operation, 0 elsewhere; `discretise` reads the genotype off them.

    Raises:
      InputError: the genotype is not one of the space.
    """
    space.check_genotype(genotype)
    weights = {cell: np.zeros(space.alpha_shape(cell), np.float32) for cell in CELL_TYPES}
    for cell in CELL_TYPES:
        for index, (operation, source) in enumerate(genotype.edges(cell)):
            edge = count_edges(index // 2) + source
            weights[cell][edge, space.operations(cell)[edge].index(operation)] = 1
    return weights


def one_hot_choices(space: SearchSpace, cell: str, node: int) -> np.ndarray:
    """Every choice of two edges with one operation each that a node has: float32[choices, node + 2, operations].

    1 where a choice has an operation. `none` is not among them.
    """
    candidates = space.operations(cell)[count_edges(node) :]
    choices = space.choices(cell, node)
    table = np.zeros((len(choices), node + 2, space.alpha_shape(cell)[1]), np.float32)
    for row, choice in enumerate(choices):
        for operation, source in choice:
            table[row, source, candidates[source].index(operation)] = 1
    return table


def _discretise_cell(space: SearchSpace, cell: str, strengths: np.ndarray) -> tuple[Edge, ...]:
    if strengths.shape != space.alpha_shape(cell):
        raise InputError(
            f"strengths[{cell!r}]: shape {strengths.shape} does not fit space {space.name!r}; "
            f"expected {space.alpha_shape(cell)}"
        )
    candidates = space.operations(cell)
    eligible = space.mask(cell) & [
        [name != "none" for name in edge] + [False] * (strengths.shape[1] - len(edge)) for edge in candidates
    ]
    if np.isnan(strengths[eligible]).any():
        raise InputError(f"strengths[{cell!r}] holds values that are not numbers")
    eligible_strengths = np.where(eligible, strengths, -np.inf)
    best_operation = eligible_strengths.argmax(axis=1)
    best_strength = eligible_strengths.max(axis=1)
    edges: list[Edge] = []
    for node in range(space.num_nodes):
        first = count_edges(node)
        order = sorted(range(node + 2), key=lambda source: -best_strength[first + source])
        for source in order[:2]:
            edge = first + source
            edges.append((candidates[edge][best_operation[edge]], source))
    return tuple(edges)
