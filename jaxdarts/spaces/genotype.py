"""What is a found architecture, and how is it written down?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from jaxdarts.errors import InputError
from jaxdarts.spaces.architecture import Architecture, Edge, check_cell_type
from jaxdarts.spaces.notation import MOST_STATES, as_edge, as_list, as_states, is_list, read_fields
from jaxdarts.values import whole

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


@dataclass(frozen=True)
class Genotype(Architecture):
    """A discrete cell pair (Liu et al. 2019). Hashable, so it can be a static argument of `jax.jit`.

    States 0 and 1 are the outputs of the last two cells; node i is state i + 2. A node adds the results of its edges,
    each a pair of an operation's name and the state it reads: two, or as many as `normal_counts` and `reduce_counts`
    say (fewer in Chu et al. 2020, any number in Gu et al. 2021). A node without edges doesn't exist. Edges from it are
    left out, and the same is asked of the nodes that they led to; nor is it concatenated. So a genotype that was made
    holds only what exists.
    """

    cell_types: ClassVar[tuple[str, ...]] = ("normal", "reduce")
    num_inputs: ClassVar[int] = 2
    macro: ClassVar[str] = "chain"

    normal: tuple[Edge, ...]  # in node order
    normal_concat: tuple[int, ...]  # states concatenated to the cell's output
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]
    normal_counts: tuple[int, ...] | None = None  # edges of each node; None: two each
    reduce_counts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        numbers = []
        for cell in self.cell_types:
            counts = _as_counts(cell, getattr(self, f"{cell}_counts"))
            edges = _as_edges(cell, getattr(self, cell), counts)
            num_nodes = len(edges) // 2 if counts is None else len(counts)
            concat = as_states(f"genotype.{cell}_concat", getattr(self, f"{cell}_concat"), num_nodes + 1)
            if counts is not None:
                left = existing(zip(_owners(counts), edges, strict=True))
                edges = tuple(edge for _, edge in left)
                nodes = [node for node, _ in left]
                counts = tuple(nodes.count(node) for node in range(num_nodes))
                concat = tuple(state for state in concat if state < 2 or counts[state - 2])
                if not edges or not concat:
                    raise InputError(f"genotype.{cell}: no concatenated state is left of the cell's {num_nodes} nodes")
            object.__setattr__(self, cell, edges)
            object.__setattr__(self, f"{cell}_concat", concat)
            object.__setattr__(self, f"{cell}_counts", None if counts is None or set(counts) == {2} else counts)
            numbers.append(num_nodes)
        if numbers[0] != numbers[1]:
            raise InputError(
                f"genotype: normal and reduce must have as many nodes; got {numbers[0]} and {numbers[1]} nodes"
            )

    @property
    def num_nodes(self) -> int:
        """Intermediate nodes of each cell, those that don't exist among them."""
        return len(self.normal) // 2 if self.normal_counts is None else len(self.normal_counts)

    @property
    def is_uneven(self) -> bool:
        """Whether a node has another number of edges than two."""
        return self.normal_counts is not None or self.reduce_counts is not None

    def edges(self, cell_type: str) -> tuple[Edge, ...]:
        """The edges of the `normal` or `reduce` cell."""
        check_cell_type(self, cell_type)
        return self.normal if cell_type == "normal" else self.reduce

    def nodes(self, cell_type: str) -> tuple[int, ...]:
        """The node that each of the edges leads to."""
        check_cell_type(self, cell_type)
        counts = self.normal_counts if cell_type == "normal" else self.reduce_counts
        return _owners((2,) * self.num_nodes if counts is None else counts)

    def concat(self, cell_type: str) -> tuple[int, ...]:
        """The concatenated states of the `normal` or `reduce` cell."""
        check_cell_type(self, cell_type)
        return self.normal_concat if cell_type == "normal" else self.reduce_concat

    def canonical(self) -> Genotype:
        """The same network with each node's edges ordered by source, then operation: for comparing and counting.

        Discretisation writes a node's stronger edge first, so equal networks can differ in that order.
        """

        def ordered(cell: str) -> tuple[Edge, ...]:
            pairs = zip(self.nodes(cell), self.edges(cell), strict=True)
            return tuple(edge for _, edge in sorted(pairs, key=lambda pair: (pair[0], pair[1][1], pair[1][0])))

        return replace(self, normal=ordered("normal"), reduce=ordered("reduce"))

    def to_json(self) -> dict[str, Any]:
        """A JSON object: edges as `[operation, source]` lists, `[operation, state, source]` in an uneven cell.

        The latter are FairDARTS' entries, with the state that an edge leads to.
        """
        fields = self._written()
        return {name: [list(e) if isinstance(e, tuple) else e for e in value] for name, value in fields.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Genotype:
        """Reads what `to_json` wrote. Raises InputError that names the field."""
        if not isinstance(value, Mapping):
            raise InputError(f"genotype: expected an object with {', '.join(FIELDS)}; got {type(value).__name__}")
        missing = [field for field in FIELDS if field not in value]
        if missing:
            raise InputError(f"genotype: {', '.join(missing)} missing; a genotype has {', '.join(FIELDS)}")
        return cls(**_counted({field: as_list(value[field]) for field in FIELDS}))

    def to_text(self) -> str:
        """The notation of the PyTorch codes: `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=...)`.

        Of a cell some of whose nodes have another number of edges than two that of FairDARTS,
        `('sep_conv_3x3', 2, 0)` for the edge from state 0 to 2.
        """
        fields = (f"{field}={value!r}" for field, value in self._written().items())
        return f"Genotype({', '.join(fields)})"

    def _written(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for cell in self.cell_types:
            counts = self.normal_counts if cell == "normal" else self.reduce_counts
            edges, concat = list(self.edges(cell)), list(self.concat(cell))
            if counts is None:
                found |= {cell: edges, f"{cell}_concat": concat}
                continue
            entries = [(name, node + 2, source) for node, (name, source) in zip(self.nodes(cell), edges, strict=True)]
            # Else the last node would be forgotten where it doesn't exist. FairDARTS names such states too.
            found |= {cell: entries, f"{cell}_concat": concat if counts[-1] else [*concat, self.num_nodes + 1]}
        return found

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Reads the notation of the PyTorch codes, `range(2, 6)` and a leading `NAME =` or their log's time included.

        Entries are `(operation, source)` or, as in FairDARTS, `(operation, state, source)`, any number for a state.

        The text is parsed, never evaluated. Raises InputError on anything else.
        """
        return cls.from_json(read_fields(text, FIELDS))


def existing(edges: Iterable[tuple[int, Edge]]) -> list[tuple[int, Edge]]:
    """Of pairs (node, edge) in node order those whose edge reads an input of the cell or a node that has an edge."""
    states, found = {0, 1}, []
    for node, edge in edges:
        if edge[1] in states:
            found.append((node, edge))
            states.add(node + 2)
    return found


def _owners(counts: Iterable[int]) -> tuple[int, ...]:
    return tuple(node for node, count in enumerate(counts) for _ in range(count))


def _counted(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields in which cells with FairDARTS' entries have pairs, and counts of each node's edges."""
    cells = [cell for cell in Genotype.cell_types if is_list(fields[cell]) and _size(fields[cell][:1]) == 3]
    if not cells:
        return fields
    entries = {cell: [_as_entry(cell, index, entry) for index, entry in enumerate(fields[cell])] for cell in cells}
    others = [fields[cell] for cell in Genotype.cell_types if cell not in cells and is_list(fields[cell])]
    states = [state for cell in cells for _, state, _ in entries[cell]]
    concats = [fields[f"{cell}_concat"] for cell in cells]
    states += [whole(state) or 0 for concat in concats if is_list(concat) for state in concat]
    num_nodes = len(others[0]) // 2 if others and others[0] else max(states) - 1
    if max(states) > min(num_nodes + 1, MOST_STATES):
        raise InputError(f"genotype: no state {max(states)} in cells of {num_nodes} nodes")
    found = dict(fields)
    for cell in cells:
        ordered = sorted(entries[cell], key=lambda entry: entry[1])
        own = [state for _, state, _ in ordered]
        found[cell] = [(operation, source) for operation, _, source in ordered]
        found[f"{cell}_counts"] = [own.count(state) for state in range(2, num_nodes + 2)]
    return found


def _size(entries: Sequence[Any]) -> int:
    """Of the only entry, if there is one and it is a list."""
    return len(as_list(entries[0])) if entries and is_list(as_list(entries[0])) else 0


def _as_entry(cell: str, index: int, entry: Any) -> tuple[Any, int, Any]:
    entry = as_list(entry)
    state = whole(entry[1]) if is_list(entry) and len(entry) == 3 else None
    if state is None or state < 2:
        raise InputError(f"genotype.{cell}[{index}]: expected (operation, state from 2 on, source); got {entry!r}")
    return entry[0], state, entry[2]


def _as_counts(cell: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    value = as_list(value)
    if not is_list(value) or not value:
        raise InputError(f"genotype.{cell}_counts: expected a number of edges for every node; got {value!r}")
    counts = []
    for state, count in enumerate(map(whole, value), start=2):
        # From every state before it one, or as FairDARTS may have it two from one.
        if count is None or not 0 <= count <= max(state, 2):
            raise InputError(
                f"genotype.{cell}: state {state} must have 0 to {max(state, 2)} edges; got {value[state - 2]!r}"
            )
        counts.append(count)
    return tuple(counts)


def _as_edges(cell: str, value: Any, counts: tuple[int, ...] | None) -> tuple[Edge, ...]:
    value = as_list(value)
    if not is_list(value) or (counts is None and (not value or len(value) % 2)):
        raise InputError(f"genotype.{cell}: expected a list of two (operation, source) pairs for every node")
    nodes = _owners((2,) * (len(value) // 2) if counts is None else counts)
    if len(nodes) != len(value):
        raise InputError(f"genotype.{cell}: {cell}_counts are those of {len(nodes)} edges; got {len(value)}")
    return tuple(as_edge(f"genotype.{cell}[{index}]", pair, nodes[index] + 2) for index, pair in enumerate(value))
