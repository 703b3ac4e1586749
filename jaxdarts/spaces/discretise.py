"""How does alpha become a genotype, and a genotype mixing weights?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

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
    weights = {cell: np.zeros(space.alpha_shape(cell), np.float32) for cell in CELL_TYPES}
    if genotype.num_nodes != space.num_nodes:
        raise InputError(
            f"genotype: {genotype.num_nodes} nodes do not fit space {space.name!r}, which has {space.num_nodes}"
        )
    for cell in CELL_TYPES:
        for index, (operation, source) in enumerate(genotype.edges(cell)):
            edge = count_edges(index // 2) + source
            candidates = space.operations(cell)[edge]
            if operation not in candidates:
                raise InputError(
                    f"genotype: {cell} edge {source}->{index // 2 + 2} has {operation!r}; space {space.name!r} has "
                    f"{', '.join(candidates)} there"
                )
            weights[cell][edge, candidates.index(operation)] = 1
    return weights


def one_hot_choices(space: SearchSpace, cell: str, node: int) -> np.ndarray:
    """Every choice of two edges with one operation each that a node has: float32[choices, node + 2, operations].

    1 where a choice has an operation. `none` is not among them.
    """
    first = count_edges(node)
    candidates = space.operations(cell)[first : first + node + 2]
    operations = [[column for column, name in enumerate(edge) if name != "none"] for edge in candidates]
    pairs = [
        ((a, x), (b, y)) for a, b in combinations(range(node + 2), 2) for x in operations[a] for y in operations[b]
    ]
    table = np.zeros((len(pairs), node + 2, space.alpha_shape(cell)[1]), np.float32)
    for row, pair in enumerate(pairs):
        for edge, column in pair:
            table[row, edge, column] = 1
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
