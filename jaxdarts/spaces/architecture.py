"""What do all found architectures have in common? Operations on the edges of one or more types of cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

from jaxdarts.errors import unknown_choice

Edge = tuple[str, int]  # an operation's name and the state that it reads


class _Cells(Protocol):
    """What has cells of one or more types: an architecture, a space."""

    @property
    def cell_types(self) -> tuple[str, ...]:
        """Their names."""


def check_cell_type(of: _Cells, cell_type: str) -> None:
    """Raises InputError for the name of a cell type that there isn't."""
    if cell_type not in of.cell_types:
        raise unknown_choice("cell type", cell_type, of.cell_types)


class Architecture(ABC):
    """What discretisation returns. Subclasses are frozen dataclasses: hashable, a static argument of `jax.jit`.

    A cell's states are its `num_inputs` inputs and then its nodes: node i is state i + num_inputs.
    """

    cell_types: ClassVar[tuple[str, ...]]
    num_inputs: ClassVar[int]
    macro: ClassVar[str]  # how cells become a network, a name in `networks.macro.MACROS`

    @property
    @abstractmethod
    def num_nodes(self) -> int:
        """Intermediate nodes of each cell."""

    @abstractmethod
    def edges(self, cell_type: str) -> tuple[Edge, ...]:
        """The edges of a cell, ordered by the node that they lead to."""

    @abstractmethod
    def nodes(self, cell_type: str) -> tuple[int, ...]:
        """The node that each of the edges leads to."""

    @abstractmethod
    def concat(self, cell_type: str) -> tuple[int, ...]:
        """The states concatenated to a cell's output."""

    @abstractmethod
    def canonical(self) -> Architecture:
        """The same edges in an order that doesn't depend on how they were found: for comparing and counting."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """A JSON object."""

    @abstractmethod
    def to_text(self) -> str:
        """The notation of the PyTorch codes."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the operations used, sorted, each once."""
        return tuple(sorted({operation for cell in self.cell_types for operation, _ in self.edges(cell)}))

    def count(self, operation: str) -> dict[str, int]:
        """How often an operation occurs in each cell type, e.g. `{"normal": 2, "reduce": 0}`."""
        return {cell: sum(name == operation for name, _ in self.edges(cell)) for cell in self.cell_types}
