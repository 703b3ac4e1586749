"""What may be chosen: the candidate operations on every edge of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.spaces.genotype import Genotype

CELL_TYPES = ("normal", "reduce")
EdgeOperations = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SearchSpace:
    """A cell-based search space (Liu et al. 2019; Zela et al. 2020 for candidates that differ between edges).

    A cell has two input states (0 and 1: the outputs of the last two cells) and `num_nodes` intermediate nodes (states
    2, 3, ...). Node i reads every earlier state, so there are 2 + 3 + ... edges, ordered by node, then by source.
    Edges may have different numbers of candidates: alpha is padded to the longest list (see `mask`).
    Hashable, so it can be a static argument of `jax.jit`.
    """

    name: str
    num_nodes: int
    normal: EdgeOperations  # candidates of each edge of the normal cell, in edge order
    reduce: EdgeOperations  # the same for the reduction cell
    concat: tuple[int, ...]  # states concatenated to a cell's output

    def __post_init__(self) -> None:
        where = f"space {self.name!r}"
        if isinstance(self.num_nodes, bool) or not isinstance(self.num_nodes, int) or self.num_nodes < 1:
            raise InputError(f"{where}: num_nodes must be a whole number of at least 1; got {self.num_nodes!r}")
        for cell in CELL_TYPES:
            candidates = tuple(tuple(operations) for operations in getattr(self, cell))
            object.__setattr__(self, cell, candidates)
            if len(candidates) != self.num_edges:
                raise InputError(
                    f"{where}: {cell} has candidates for {len(candidates)} edges; "
                    f"{self.num_nodes} nodes have {self.num_edges} edges"
                )
            for (node, source), operations in zip(self.edges, candidates, strict=True):
                edge = f"{where}: {cell} edge {source}->{node + 2}"
                if not set(operations) - {"none"}:
                    raise InputError(f"{edge} needs at least one operation other than none; got {list(operations)}")
                if len(set(operations)) < len(operations):
                    raise InputError(f"{edge} lists an operation twice: {', '.join(operations)}")
        concat = tuple(self.concat)
        object.__setattr__(self, "concat", concat)
        if (
            not concat
            or any(state not in range(2, self.num_nodes + 2) for state in concat)
            or len(set(concat)) < len(concat)
        ):
            raise InputError(
                f"{where}: concat must name different intermediate nodes, states 2 to {self.num_nodes + 1}; "
                f"got {list(concat)}"
            )

    @classmethod
    def uniform(
        cls, name: str, operations: Sequence[str], num_nodes: int = 4, concat: Sequence[int] | None = None
    ) -> SearchSpace:
        """The same candidates on every edge of both cells; all nodes are concatenated unless `concat` is given."""
        edges = (tuple(operations),) * count_edges(num_nodes)
        return cls(name, num_nodes, edges, edges, tuple(range(2, num_nodes + 2)) if concat is None else tuple(concat))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(node, source state) of every edge, in the order of alpha's rows. Node i is state i + 2."""
        return tuple((node, source) for node in range(self.num_nodes) for source in range(node + 2))

    @property
    def num_edges(self) -> int:
        """Edges of a cell."""
        return count_edges(self.num_nodes)

    @property
    def operation_names(self) -> tuple[str, ...]:
        """Every candidate's name, sorted, each once."""
        return tuple(sorted({name for cell in CELL_TYPES for edge in self.operations(cell) for name in edge}))

    def operations(self, cell_type: str) -> EdgeOperations:
        """Candidates of each edge of the `normal` or `reduce` cell."""
        return self.normal if cell_type == "normal" else self.reduce

    def alpha_shape(self, cell_type: str) -> tuple[int, int]:
        """(edges, candidates of the edge that has most)."""
        return self.num_edges, max(map(len, self.operations(cell_type)))

    def mask(self, cell_type: str) -> np.ndarray:
        """bool[edges, operations]: true where alpha belongs to a candidate, false where a shorter list is padded."""
        counts = np.array([len(edge) for edge in self.operations(cell_type)])
        return np.arange(self.alpha_shape(cell_type)[1]) < counts[:, None]

    def num_genotypes(self) -> int:
        """Different networks (up to the order of a node's edges) that discretisation can return."""
        total = 1
        for cell in CELL_TYPES:
            for node in range(self.num_nodes):
                counts = [len(operations) for operations in self._chosen_from(cell, node)]
                total *= sum(a * b for a, b in combinations(counts, 2))
        return total

    def genotypes(self) -> Iterable[Genotype]:
        """Every network that discretisation can return, once each, in canonical order. S5 has 81."""
        cells = {cell: [self.choices(cell, node) for node in range(self.num_nodes)] for cell in CELL_TYPES}
        for normal in product(*cells["normal"]):
            for reduce in product(*cells["reduce"]):
                yield Genotype(sum(normal, ()), self.concat, sum(reduce, ()), self.concat)

    def check_genotype(self, genotype: Genotype) -> None:
        """Raises InputError, naming the first difference, for a genotype that discretisation cannot return."""
        where = f"genotype: does not belong to space {self.name!r}:"
        if genotype.num_nodes != self.num_nodes:
            raise InputError(f"{where} it has {genotype.num_nodes} nodes a cell, the space {self.num_nodes}")
        for cell in CELL_TYPES:
            if genotype.concat(cell) != self.concat:
                raise InputError(
                    f"{where} the {cell} cell concatenates {list(genotype.concat(cell))}, the space {list(self.concat)}"
                )
            edges = genotype.edges(cell)
            for index, (operation, source) in enumerate(edges):
                node = index // 2
                edge = f"the {cell} cell's edge {source}->{node + 2}"
                candidates = self._chosen_from(cell, node)[source]
                if operation not in candidates:
                    raise InputError(f"{where} {edge} has {operation!r}, the space has {', '.join(candidates)} there")
                if index % 2 and edges[index - 1][1] == source:
                    raise InputError(f"{where} {edge} is there twice; in the space a node reads two different states")

    def choices(self, cell: str, node: int) -> list[tuple[tuple[str, int], ...]]:
        """What discretisation can give a node: two (operation, source state), in all ways."""
        operations = self._chosen_from(cell, node)
        return [
            ((first, a), (second, b))
            for a, b in combinations(range(node + 2), 2)
            for first in operations[a]
            for second in operations[b]
        ]

    def _chosen_from(self, cell: str, node: int) -> list[tuple[str, ...]]:
        first = count_edges(node)
        candidates = self.operations(cell)[first : first + node + 2]
        return [tuple(name for name in edge if name != "none") for edge in candidates]


def count_edges(num_nodes: int) -> int:
    """Edges of a cell with so many intermediate nodes: 2 + 3 + ... + (num_nodes + 1)."""
    return num_nodes * (num_nodes + 3) // 2
