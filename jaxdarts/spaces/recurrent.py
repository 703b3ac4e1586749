"""What may be chosen, and found, in a recurrent cell: of every node one activation and the state that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.spaces.architecture import Architecture, Edge, check_cell_type
from jaxdarts.spaces.base import CellSpace, EdgeOperations, check_nodes, count_edges
from jaxdarts.spaces.notation import as_edge, as_list, as_states, is_list, read_fields

ACTIVATION_NAMES = ("none", "tanh", "relu", "sigmoid", "identity")  # in the published order
FIELDS = ("recurrent", "concat")


@dataclass(frozen=True)
class RecurrentGenotype(Architecture):
    """A discrete recurrent cell (Liu et al. 2019, 3.1.2). Hashable, so it can be a static argument of `jax.jit`.

    State 0 is made of the cell's input x and of its output h one time step before; node i is state i + 1. A node reads
    one earlier state s by one activation f: it is s + c (f(u) - s), where the gate c and u are made of s. The mean of
    the states in `recurrent_concat` is the cell's output.
    """

    cell_types: ClassVar[tuple[str, ...]] = ("recurrent",)
    num_inputs: ClassVar[int] = 1
    macro: ClassVar[str] = "recurrent"
    task: ClassVar[str] = "language"  # a name in `tasks.TASKS`

    recurrent: tuple[Edge, ...]  # (activation, source state), one for every node
    recurrent_concat: tuple[int, ...]  # different states, whose mean is the output

    def __post_init__(self) -> None:
        given = as_list(self.recurrent)
        if not is_list(given) or not given:
            raise InputError("genotype.recurrent: expected a list of one (activation, source) pair for every node")
        edges = tuple(as_edge(f"genotype.recurrent[{node}]", pair, node + 1) for node, pair in enumerate(given))
        for node, (activation, _) in enumerate(edges):
            if activation not in _OF_GENOTYPES:
                raise unknown_choice(f"activation in genotype.recurrent[{node}]:", activation, _OF_GENOTYPES)
        concat = as_states("genotype.concat", self.recurrent_concat, len(edges))
        if len(set(concat)) < len(concat):
            raise InputError(f"genotype.concat: lists a state twice, which a mean has once; got {list(concat)}")
        object.__setattr__(self, "recurrent", edges)
        object.__setattr__(self, "recurrent_concat", concat)

    @property
    def num_nodes(self) -> int:
        """Nodes of the cell: all states but the first."""
        return len(self.recurrent)

    def edges(self, cell_type: str = "recurrent") -> tuple[Edge, ...]:
        """(activation, source) of every node."""
        check_cell_type(self, cell_type)
        return self.recurrent

    def nodes(self, cell_type: str = "recurrent") -> tuple[int, ...]:
        """The node that each of the edges leads to: every node once, in order."""
        check_cell_type(self, cell_type)
        return tuple(range(self.num_nodes))

    def concat(self, cell_type: str = "recurrent") -> tuple[int, ...]:
        """The states whose mean is the output. They are not concatenated, though the PyTorch code's name says so."""
        check_cell_type(self, cell_type)
        return self.recurrent_concat

    def canonical(self) -> RecurrentGenotype:
        """The same cell with its averaged states in ascending order, since a mean has none."""
        return replace(self, recurrent_concat=tuple(sorted(self.recurrent_concat)))

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the PyTorch code's fields, edges as `[activation, source]` lists."""
        return {"recurrent": [list(edge) for edge in self.recurrent], "concat": list(self.recurrent_concat)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RecurrentGenotype:
        """Reads what `to_json` wrote. Raises InputError that names the field."""
        if not isinstance(value, Mapping):
            raise InputError(f"genotype: expected an object with {', '.join(FIELDS)}; got {type(value).__name__}")
        missing = [field for field in FIELDS if field not in value]
        if missing:
            raise InputError(f"genotype: {', '.join(missing)} missing; a recurrent genotype has {', '.join(FIELDS)}")
        return cls(value["recurrent"], value["concat"])

    def to_text(self) -> str:
        """The notation of the PyTorch code: `Genotype(recurrent=[('sigmoid', 0), ...], concat=range(1, 9))`."""
        concat: list[int] | range = list(self.recurrent_concat)
        successive = range(concat[0], concat[-1] + 1)
        concat = successive if concat == list(successive) else concat
        return f"Genotype(recurrent={list(self.recurrent)!r}, concat={concat!r})"

    @classmethod
    def from_text(cls, text: str) -> RecurrentGenotype:
        """Reads the notation of the PyTorch code, as `read_fields` does. Raises InputError on anything else."""
        return cls.from_json(read_fields(text, FIELDS))


_OF_GENOTYPES = tuple(name for name in ACTIVATION_NAMES if name != "none")


@dataclass(frozen=True)
class RecurrentSpace(CellSpace):
    """A space of recurrent cells (Liu et al. 2019, 3.1.2): a node keeps its strongest edge, and never chooses `none`.

    State 0 is made of x and h, and node i, which is state i + 1, reads every earlier state: 1 + 2 + ... edges, 36 of
    eight nodes. Candidates are names in ACTIVATION_NAMES. All nodes are averaged to the output.
    """

    cell_types: ClassVar[tuple[str, ...]] = RecurrentGenotype.cell_types
    num_inputs: ClassVar[int] = RecurrentGenotype.num_inputs
    edges_kept: ClassVar[int | None] = 1
    chooses_none: ClassVar[bool] = False
    macro: ClassVar[str] = RecurrentGenotype.macro
    task: ClassVar[str] = RecurrentGenotype.task

    name: str
    num_nodes: int
    recurrent: EdgeOperations  # candidates of each edge, in edge order

    def __post_init__(self) -> None:
        candidates = self._checked_operations("recurrent", self.recurrent)
        for name in sorted({name for edge in candidates for name in edge}, key=str):
            if name not in ACTIVATION_NAMES:
                raise unknown_choice(f"activation in space {self.name!r}:", name, ACTIVATION_NAMES)
        object.__setattr__(self, "recurrent", candidates)

    @classmethod
    def uniform(cls, name: str, activations: Sequence[str], num_nodes: int = 8) -> RecurrentSpace:
        """The same candidates on every edge."""
        num_nodes = check_nodes(f"space {name!r}", num_nodes)
        return cls(name, num_nodes, (tuple(activations),) * count_edges(num_nodes, cls.num_inputs))

    @property
    def concat(self) -> tuple[int, ...]:  # type: ignore[override]
        """All nodes' states, whose mean is the output."""
        return tuple(range(1, self.num_nodes + 1))

    def operations(self, cell_type: str = "recurrent") -> EdgeOperations:
        """Candidates of each edge."""
        check_cell_type(self, cell_type)
        return self.recurrent

    def architecture(
        self, edges: Mapping[str, tuple[Edge, ...]], counts: Mapping[str, tuple[int, ...]] | None = None
    ) -> RecurrentGenotype:
        """The cell with these edges, one for every node. Raises InputError where `counts` says otherwise."""
        if counts is not None and set(counts["recurrent"]) != {1}:
            raise InputError(
                f"space {self.name!r}: every node of a recurrent cell reads one state; "
                f"got nodes with {', '.join(map(str, counts['recurrent']))} edges"
            )
        return RecurrentGenotype(edges["recurrent"], self.concat)

    def to_json(self) -> dict[str, Any]:
        """The whole space as a JSON object."""
        return {"name": self.name, "num_nodes": self.num_nodes, "recurrent": [list(edge) for edge in self.recurrent]}
