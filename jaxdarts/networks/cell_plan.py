"""Which operations connect which states of a cell? All that distinguishes a relaxed cell from a discrete one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxdarts.errors import unknown_choice
from jaxdarts.networks.operations import OPERATIONS, Operation


@dataclass(frozen=True)
class Connection:
    """One operation that reads state `source` and adds to node `node`, which is a state after the cell's inputs."""

    node: int
    source: int
    operation: str


class Group(NamedTuple):
    """The connections that apply one operation to one state."""

    name: str  # of the operation
    operation: Operation
    members: tuple[int, ...]  # indices of the connections


@dataclass(frozen=True)
class CellPlan:
    """A cell's connections and outputs: all that distinguishes a relaxed cell from a discrete one."""

    num_nodes: int
    connections: tuple[Connection, ...]
    concat: tuple[int, ...]
    num_inputs: int = 2  # states before the nodes: the last two blocks' outputs, or the last one's as it is
    # Partial channels (Xu et al. 2020): operations get the first of so many equal parts of a state's channels, and the
    # other parts pass by on these edges (node, source), whose gates come after the connections'.
    parts: int = 1
    passes: tuple[tuple[int, int], ...] = ()
    # Edges that add a number to their node everywhere (Dong and Yang 2019); their gates, the numbers, come last.
    constants: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for connection in self.connections:
            if connection.operation not in OPERATIONS:
                raise unknown_choice("operation", connection.operation, OPERATIONS)

    def groups(self, source: int, stride: int) -> list[Group]:
        """The groups that read a state, those with the most layers first."""
        found: dict[str, list[int]] = {}
        for index, connection in enumerate(self.connections):
            if connection.source == source:
                found.setdefault(connection.operation, []).append(index)
        groups = [Group(name, OPERATIONS[name](stride), tuple(members)) for name, members in found.items()]
        return sorted(groups, key=lambda group: (-len(group.operation.layers), group.name))
