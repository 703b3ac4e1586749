"""What may be chosen, and found, in a space like NAS-Bench-201: one cell in which every edge keeps one operation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Architecture, Edge, check_cell_type
from jaxdarts.spaces.base import CellSpace, EdgeOperations, check_nodes, count_edges
from jaxdarts.values import plain

_NODE = re.compile(r"\|(?:[^|~+]+~\d+\|)+")
_MOST_EDGES = 10_000


@dataclass(frozen=True)
class DenseGenotype(Architecture):
    """A cell of NAS-Bench-201 (Dong and Yang 2020): an operation, `none` among them, on every edge.

    State 0 is the cell's input and node i is state i + 1; a node adds the results of the edges from all earlier
    states, and the last node is the output.
    """

    cell_types: ClassVar[tuple[str, ...]] = ("cell",)
    num_inputs: ClassVar[int] = 1
    macro: ClassVar[str] = "stages"

    cell: tuple[str, ...]  # operations of the edges 0->1, 0->2, 1->2, 0->3, 1->3, 2->3, ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", tuple(map(plain, self.cell)))
        for operation in self.cell:
            if not isinstance(operation, str) or not operation or set(operation) & set("|~+"):
                raise InputError(f"genotype.cell: an operation must be a name without | ~ +; got {operation!r}")
        if count_edges(self.num_nodes, 1) != len(self.cell) or not self.cell or len(self.cell) > _MOST_EDGES:
            raise InputError(f"genotype.cell: no cell has {len(self.cell)} edges; choose 1, 3, 6, 10, ... operations")

    @property
    def num_nodes(self) -> int:
        """Intermediate nodes: all states but the input."""
        return next(nodes for nodes in range(len(self.cell) + 1) if count_edges(nodes, 1) >= len(self.cell))

    def edges(self, cell_type: str = "cell") -> tuple[Edge, ...]:
        """(operation, source) of every edge, ordered by node, then by source."""
        check_cell_type(self, cell_type)
        sources = (source for node in range(self.num_nodes) for source in range(node + 1))
        return tuple(zip(self.cell, sources, strict=True))

    def nodes(self, cell_type: str = "cell") -> tuple[int, ...]:
        """The node that each of the edges leads to."""
        check_cell_type(self, cell_type)
        return tuple(node for node in range(self.num_nodes) for _ in range(node + 1))

    def concat(self, cell_type: str = "cell") -> tuple[int, ...]:
        """The last node's state is the output."""
        check_cell_type(self, cell_type)
        return (self.num_nodes,)

    def canonical(self) -> DenseGenotype:
        """Itself: its edges have one order. Cells that compute the same: `nasbench201.canonical_cell`."""
        return self

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the official string."""
        return {"architecture": self.to_text()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DenseGenotype:
        """Reads what `to_json` wrote. Raises InputError."""
        return cls.from_text(value.get("architecture"))

    def to_text(self) -> str:
        """The official notation, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        nodes: list[str] = ["|"] * self.num_nodes
        for node, (operation, source) in zip(self.nodes(), self.edges(), strict=True):
            nodes[node] += f"{operation}~{source}|"
        return "+".join(nodes)

    @classmethod
    def from_text(cls, text: object) -> DenseGenotype:
        """Reads the official notation. Raises InputError on anything else."""
        wrong = f"genotype: expected |operation~0|+|operation~0|operation~1|+...; got {str(text)[:80]!r}"
        nodes = text.strip().split("+") if isinstance(text, str) else []
        operations = []
        for index, node in enumerate(nodes):
            if not _NODE.fullmatch(node):
                raise InputError(wrong)
            pairs = [edge.rsplit("~", 1) for edge in node[1:-1].split("|")]
            if [source for _, source in pairs] != [str(source) for source in range(index + 1)]:
                raise InputError(f"{wrong}: state {index + 1} must read each of the states 0 to {index} once, in order")
            operations += [operation for operation, _ in pairs]
        if not operations:
            raise InputError(wrong)
        return cls(tuple(operations))


@dataclass(frozen=True)
class DenseSpace(CellSpace):
    """A space of one cell whose every edge keeps its strongest operation, `none` included (Dong and Yang 2020)."""

    cell_types: ClassVar[tuple[str, ...]] = DenseGenotype.cell_types
    num_inputs: ClassVar[int] = DenseGenotype.num_inputs
    edges_kept: ClassVar[int | None] = None
    chooses_none: ClassVar[bool] = True
    macro: ClassVar[str] = DenseGenotype.macro

    name: str
    num_nodes: int
    cell: EdgeOperations  # candidates of each edge, in edge order

    def __post_init__(self) -> None:
        object.__setattr__(self, "cell", self._checked_operations("cell", self.cell))

    @classmethod
    def uniform(cls, name: str, operations: Sequence[str], num_nodes: int = 3) -> DenseSpace:
        """The same candidates on every edge."""
        num_nodes = check_nodes(f"space {name!r}", num_nodes)
        return cls(name, num_nodes, (tuple(operations),) * count_edges(num_nodes, 1))

    @property
    def concat(self) -> tuple[int, ...]:  # type: ignore[override]
        """The last node's state is the output."""
        return (self.num_nodes,)

    def operations(self, cell_type: str = "cell") -> EdgeOperations:
        """Candidates of each edge."""
        check_cell_type(self, cell_type)
        return self.cell

    def architecture(
        self, edges: Mapping[str, tuple[Edge, ...]], counts: Mapping[str, tuple[int, ...]] | None = None
    ) -> DenseGenotype:
        """The cell with these edges, which are all."""
        return DenseGenotype(tuple(operation for operation, _ in edges["cell"]))

    def to_json(self) -> dict[str, Any]:
        """The whole space as a JSON object."""
        return {"name": self.name, "num_nodes": self.num_nodes, "cell": [list(edge) for edge in self.cell]}
