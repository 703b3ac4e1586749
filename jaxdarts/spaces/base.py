"""What do all search spaces have in common? Candidate operations on every edge of one or more types of cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import combinations, product
from math import prod
from typing import Any, ClassVar

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Architecture, Edge
from jaxdarts.values import plain, whole

EdgeOperations = tuple[tuple[str, ...], ...]


class CellSpace(ABC):
    """A cell-based search space. Subclasses are frozen dataclasses: hashable, a static argument of `jax.jit`.

    A cell has `num_inputs` input states and `num_nodes` intermediate nodes, the states after them. A node reads every
    earlier state, by edges that are ordered by node, then by source. Edges may have different numbers of candidates:
    alpha, which has a matrix for each of `cell_types`, is padded to the longest list (see `mask`).
    """

    cell_types: ClassVar[tuple[str, ...]]
    num_inputs: ClassVar[int]
    edges_kept: ClassVar[int | None]  # edges of a node that discretisation keeps; None: all
    chooses_none: ClassVar[bool]  # whether discretisation may give an edge `none`
    macro: ClassVar[str]  # how cells become a network, a name in `networks.macro.MACROS`

    name: str
    num_nodes: int
    concat: tuple[int, ...]  # states concatenated to a cell's output

    @abstractmethod
    def operations(self, cell_type: str) -> EdgeOperations:
        """Candidates of each edge of a cell."""

    @abstractmethod
    def architecture(
        self, edges: Mapping[str, tuple[Edge, ...]], counts: Mapping[str, tuple[int, ...]] | None = None
    ) -> Architecture:
        """The architecture with these edges of each cell type, ordered by node.

        `counts`: edges of each node; None: as many as the space keeps, which a space that keeps all edges asks for.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The whole space as a JSON object, which `space_from_json` reads."""

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, source state) of every edge, in the order of alpha's rows. Node i is state i + num_inputs."""
        return tuple((node, source) for node in range(self.num_nodes) for source in range(node + self.num_inputs))

    @property
    def num_edges(self) -> int:
        """Edges of a cell."""
        return count_edges(self.num_nodes, self.num_inputs)

    @property
    def operation_names(self) -> tuple[str, ...]:
        """Every candidate's name, sorted, each once."""
        return tuple(sorted({name for cell in self.cell_types for edge in self.operations(cell) for name in edge}))

    def incoming(self, node: int) -> slice:
        """The rows of alpha that belong to a node's edges, in the order of sources."""
        first = count_edges(node, self.num_inputs)
        return slice(first, first + node + self.num_inputs)

    def alpha_shape(self, cell_type: str) -> tuple[int, int]:
        """(edges, candidates of the edge that has most)."""
        return self.num_edges, max(map(len, self.operations(cell_type)))

    def mask(self, cell_type: str) -> np.ndarray:
        """bool[edges, operations]: true where alpha belongs to a candidate, false where a shorter list is padded."""
        counts = np.array([len(edge) for edge in self.operations(cell_type)])
        return np.arange(self.alpha_shape(cell_type)[1]) < counts[:, None]

    def choices(self, cell: str, node: int) -> list[tuple[Edge, ...]]:
        """What discretisation can give a node: (operation, source state) of each edge that it keeps, in all ways."""
        operations = self._chosen_from(cell, node)
        return [
            tuple(zip(names, sources, strict=True))
            for sources in combinations(range(len(operations)), self.num_kept(node))
            for names in product(*(operations[source] for source in sources))
        ]

    def num_kept(self, node: int) -> int:
        """Edges that a node keeps."""
        return self.edges_kept or node + self.num_inputs

    def num_genotypes(self) -> int:
        """Different networks (up to the order of a node's edges) that discretisation can return."""
        total = 1
        for cell in self.cell_types:
            for node in range(self.num_nodes):
                counts = [len(operations) for operations in self._chosen_from(cell, node)]
                total *= sum(map(prod, combinations(counts, self.num_kept(node))))
        return total

    def genotypes(self) -> Iterable[Architecture]:
        """Every network that discretisation can return, once each, in canonical order. S5 has 81."""
        nodes = [self.choices(cell, node) for cell in self.cell_types for node in range(self.num_nodes)]
        for chosen in product(*nodes):
            cells = [sum(chosen[first : first + self.num_nodes], ()) for first in range(0, len(nodes), self.num_nodes)]
            yield self.architecture(dict(zip(self.cell_types, cells, strict=True)))

    def check_genotype(self, genotype: Architecture) -> None:
        """Raises InputError, naming the first difference, for a genotype that no derivation can return.

        Nodes may have fewer edges than discretisation keeps, or none: then they don't exist.
        """
        where = f"genotype: does not belong to space {self.name!r}:"
        if genotype.cell_types != self.cell_types:
            raise InputError(
                f"{where} it has the cells {', '.join(genotype.cell_types)}, the space {', '.join(self.cell_types)}"
            )
        if genotype.num_nodes != self.num_nodes:
            raise InputError(f"{where} it has {genotype.num_nodes} nodes a cell, the space {self.num_nodes}")
        for cell in self.cell_types:
            exist = set(genotype.nodes(cell))
            concat = [state for state in self.concat if state - self.num_inputs in exist]
            if list(genotype.concat(cell)) != concat:
                raise InputError(
                    f"{where} the {cell} cell concatenates {list(genotype.concat(cell))}, the space {concat}"
                )
            seen = set()
            for node, (operation, source) in zip(genotype.nodes(cell), genotype.edges(cell), strict=True):
                edge = f"the {cell} cell's edge {source}->{node + self.num_inputs}"
                candidates = self._chosen_from(cell, node)[source]
                if operation not in candidates:
                    raise InputError(f"{where} {edge} has {operation!r}, the space has {', '.join(candidates)} there")
                if (node, source) in seen:
                    raise InputError(f"{where} {edge} is there twice; in the space a node reads two different states")
                seen.add((node, source))

    def _chosen_from(self, cell: str, node: int) -> list[tuple[str, ...]]:
        candidates = self.operations(cell)[self.incoming(node)]
        return [tuple(name for name in edge if self.chooses_none or name != "none") for edge in candidates]

    def _checked_operations(self, cell: str, candidates: Iterable[Iterable[str]]) -> EdgeOperations:
        """The candidates of a cell's edges as tuples. Raises InputError where they don't fit the space."""
        where = f"space {self.name!r}"
        object.__setattr__(self, "num_nodes", check_nodes(where, self.num_nodes))
        found = tuple(tuple(map(plain, operations)) for operations in candidates)
        if len(found) != self.num_edges:
            raise InputError(
                f"{where}: {cell} has candidates for {len(found)} edges; "
                f"{self.num_nodes} nodes have {self.num_edges} edges"
            )
        for (node, source), operations in zip(self.edges, found, strict=True):
            edge = f"{where}: {cell} edge {source}->{node + self.num_inputs}"
            if not set(operations) - {"none"}:
                raise InputError(f"{edge} needs at least one operation other than none; got {list(operations)}")
            if len(set(operations)) < len(operations):
                raise InputError(f"{edge} lists an operation twice: {', '.join(operations)}")
        return found


def check_nodes(where: str, num_nodes: object) -> int:
    """The number of nodes as an int. Raises InputError unless it is a whole number of at least 1."""
    value = whole(num_nodes)
    if value is None or value < 1:
        raise InputError(f"{where}: num_nodes must be a whole number of at least 1; got {num_nodes!r}")
    return value


def count_edges(num_nodes: int, num_inputs: int = 2) -> int:
    """Edges of a cell with so many intermediate nodes: num_inputs + ... + (num_inputs + num_nodes - 1)."""
    return num_nodes * (num_nodes + 2 * num_inputs - 1) // 2
