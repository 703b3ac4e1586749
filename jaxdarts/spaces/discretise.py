"""How does alpha become a genotype, and a genotype mixing weights?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Architecture, Edge
from jaxdarts.spaces.base import CellSpace


def discretise(space: CellSpace, strengths: Mapping[str, ArrayLike], chooses_none: bool | None = None) -> Architecture:
    """Keeps the strongest operation of an edge and, for every node, as many of the strongest edges as the space keeps.

    In the spaces of DARTS those are two, and `none` is never chosen (Liu et al. 2019, 2.4). Ties keep the lower source
    and the earlier operation, as the reference's stable sort does; a node's stronger edge is written first. Where a
    space keeps all edges they stay in order, and `none` is a choice like any other (Dong and Yang 2020).

    Args:
      space: the search space.
      strengths: float[edges, operations] for each of the space's cell types, the mixing weights (softmax of alpha for
        DARTS); comparable between edges. Entries that pad shorter candidate lists are ignored.
      chooses_none: whether `none` is a choice like any other; None: as in the space.

    Raises:
      InputError: a wrong shape, or a strength that is not a number.
    """
    may = space.chooses_none if chooses_none is None else chooses_none
    cells = {
        cell: _discretise_cell(space, cell, np.asarray(strengths[cell], np.float64), may) for cell in space.cell_types
    }
    return space.architecture(cells)


def one_hot(space: CellSpace, genotype: Architecture) -> dict[str, np.ndarray]:
    """The mixing weights with which the supernet computes a genotype's network: float32[edges, operations] a cell.

    1 where the genotype has an operation, 0 elsewhere; `discretise` reads the genotype off them, if none of its nodes
    lacks edges. A node that doesn't exist is 0 then.

    Raises:
      InputError: the genotype is not one of the space.
    """
    space.check_genotype(genotype)
    weights = {cell: np.zeros(space.alpha_shape(cell), np.float32) for cell in space.cell_types}
    for cell in space.cell_types:
        for node, (operation, source) in zip(genotype.nodes(cell), genotype.edges(cell), strict=True):
            edge = space.incoming(node).start + source
            weights[cell][edge, space.operations(cell)[edge].index(operation)] = 1
    return weights


def one_hot_choices(space: CellSpace, cell: str, node: int) -> np.ndarray:
    """Every choice of edges with one operation each that a node has: float32[choices, sources, operations].

    1 where a choice has an operation. `none` is among them where discretisation may choose it.
    """
    candidates = space.operations(cell)[space.incoming(node)]
    choices = space.choices(cell, node)
    table = np.zeros((len(choices), len(candidates), space.alpha_shape(cell)[1]), np.float32)
    for row, choice in enumerate(choices):
        for operation, source in choice:
            table[row, source, candidates[source].index(operation)] = 1
    return table


def _discretise_cell(space: CellSpace, cell: str, strengths: np.ndarray, chooses_none: bool) -> tuple[Edge, ...]:
    if strengths.shape != space.alpha_shape(cell):
        raise InputError(
            f"strengths[{cell!r}]: shape {strengths.shape} does not fit space {space.name!r}; "
            f"expected {space.alpha_shape(cell)}"
        )
    candidates = space.operations(cell)
    eligible = space.mask(cell) & [
        [chooses_none or name != "none" for name in edge] + [False] * (strengths.shape[1] - len(edge))
        for edge in candidates
    ]
    if np.isnan(strengths[eligible]).any():
        raise InputError(f"strengths[{cell!r}] holds values that are not numbers")
    eligible_strengths = np.where(eligible, strengths, -np.inf)
    best_operation = eligible_strengths.argmax(axis=1)
    best_strength = eligible_strengths.max(axis=1)
    edges: list[Edge] = []
    for node in range(space.num_nodes):
        rows = space.incoming(node)
        order = list(range(rows.stop - rows.start))
        if space.edges_kept is not None:
            order = sorted(order, key=lambda source: -best_strength[rows.start + source])[: space.edges_kept]
        for source in order:
            edge = rows.start + source
            edges.append((candidates[edge][best_operation[edge]], source))
    return tuple(edges)
