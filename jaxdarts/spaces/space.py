"""What may be chosen in the spaces of DARTS: the candidate operations on every edge of two types of cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Edge, check_cell_type
from jaxdarts.spaces.base import CellSpace, EdgeOperations, check_nodes, count_edges
from jaxdarts.spaces.genotype import Genotype
from jaxdarts.values import plain

CELL_TYPES = Genotype.cell_types


@dataclass(frozen=True)
class SearchSpace(CellSpace):
    """A cell-based search space (Liu et al. 2019; Zela et al. 2020 for candidates that differ between edges).

    A cell has two input states (0 and 1: the outputs of the last two cells) and `num_nodes` intermediate nodes (states
    2, 3, ...). Node i reads every earlier state, so there are 2 + 3 + ... edges, ordered by node, then by source.
    Edges may have different numbers of candidates: alpha is padded to the longest list (see `mask`).
    Hashable, so it can be a static argument of `jax.jit`.
    """

    cell_types: ClassVar[tuple[str, ...]] = CELL_TYPES
    num_inputs: ClassVar[int] = Genotype.num_inputs
    edges_kept: ClassVar[int | None] = 2
    chooses_none: ClassVar[bool] = False
    macro: ClassVar[str] = Genotype.macro

    name: str
    num_nodes: int
    normal: EdgeOperations  # candidates of each edge of the normal cell, in edge order
    reduce: EdgeOperations  # the same for the reduction cell
    concat: tuple[int, ...]  # states concatenated to a cell's output

    def __post_init__(self) -> None:
        for cell in CELL_TYPES:
            object.__setattr__(self, cell, self._checked_operations(cell, getattr(self, cell)))
        concat = tuple(map(plain, self.concat))
        object.__setattr__(self, "concat", concat)
        if (
            not concat
            or any(state not in range(2, self.num_nodes + 2) for state in concat)
            or len(set(concat)) < len(concat)
        ):
            raise InputError(
                f"space {self.name!r}: concat must name different intermediate nodes, states 2 to "
                f"{self.num_nodes + 1}; got {list(concat)}"
            )

    @classmethod
    def uniform(
        cls, name: str, operations: Sequence[str], num_nodes: int = 4, concat: Sequence[int] | None = None
    ) -> SearchSpace:
        """The same candidates on every edge of both cells; all nodes are concatenated unless `concat` is given."""
        num_nodes = check_nodes(f"space {name!r}", num_nodes)
        edges = (tuple(operations),) * count_edges(num_nodes)
        return cls(name, num_nodes, edges, edges, tuple(range(2, num_nodes + 2)) if concat is None else tuple(concat))

    def operations(self, cell_type: str) -> EdgeOperations:
        """Candidates of each edge of the `normal` or `reduce` cell."""
        check_cell_type(self, cell_type)
        return self.normal if cell_type == "normal" else self.reduce

    def architecture(
        self, edges: Mapping[str, tuple[Edge, ...]], counts: Mapping[str, tuple[int, ...]] | None = None
    ) -> Genotype:
        """The genotype with these edges of each cell, two a node or as many as `counts` says."""
        normal_counts, reduce_counts = (None if counts is None else counts[cell] for cell in CELL_TYPES)
        return Genotype(edges["normal"], self.concat, edges["reduce"], self.concat, normal_counts, reduce_counts)

    def to_json(self) -> dict[str, Any]:
        """The whole space as a JSON object."""
        return {
            "name": self.name,
            "num_nodes": self.num_nodes,
            "normal": [list(edge) for edge in self.normal],
            "reduce": [list(edge) for edge in self.reduce],
            "concat": list(self.concat),
        }
