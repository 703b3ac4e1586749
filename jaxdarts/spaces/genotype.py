"""What is a found architecture, and how is it written down?"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jaxdarts.errors import InputError, shorten
from jaxdarts.spaces.architecture import Architecture, Edge, check_cell_type
from jaxdarts.values import plain, whole

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
# What their logs put before it: `03/14 01:59:26 PM genotype = Genotype(...)`.
_LOGGED = re.compile(r"^\s*\d.*?(?=\bGenotype\s*\()")
_MOST_STATES = 10_000


@dataclass(frozen=True)
class Genotype(Architecture):
    """A discrete cell pair (Liu et al. 2019). Hashable, so it can be a static argument of `jax.jit`.

    States 0 and 1 are the outputs of the last two cells; node i is state i + 2. Every node adds the results of two
    edges, each a pair of an operation's name and the state it reads.
    """

    cell_types: ClassVar[tuple[str, ...]] = ("normal", "reduce")
    num_inputs: ClassVar[int] = 2
    macro: ClassVar[str] = "chain"

    normal: tuple[Edge, ...]  # two edges a node, in node order
    normal_concat: tuple[int, ...]  # states concatenated to the cell's output
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for cell in ("normal", "reduce"):
            edges = _as_edges(cell, getattr(self, cell))
            concat = _as_concat(cell, getattr(self, f"{cell}_concat"), len(edges) // 2)
            object.__setattr__(self, cell, edges)
            object.__setattr__(self, f"{cell}_concat", concat)
        if len(self.normal) != len(self.reduce):
            raise InputError(
                f"genotype: normal and reduce must have as many nodes; got "
                f"{len(self.normal) // 2} and {len(self.reduce) // 2} nodes"
            )

    @property
    def num_nodes(self) -> int:
        """Intermediate nodes of each cell."""
        return len(self.normal) // 2

    def edges(self, cell_type: str) -> tuple[Edge, ...]:
        """The edges of the `normal` or `reduce` cell."""
        check_cell_type(self, cell_type)
        return self.normal if cell_type == "normal" else self.reduce

    def nodes(self, cell_type: str) -> tuple[int, ...]:
        """The node that each of the edges leads to: two lead to every node."""
        return tuple(index // 2 for index in range(len(self.edges(cell_type))))

    def concat(self, cell_type: str) -> tuple[int, ...]:
        """The concatenated states of the `normal` or `reduce` cell."""
        check_cell_type(self, cell_type)
        return self.normal_concat if cell_type == "normal" else self.reduce_concat

    def canonical(self) -> Genotype:
        """The same network with each node's edges ordered by source, then operation: for comparing and counting.

        Discretisation writes a node's stronger edge first, so equal networks can differ in that order.
        """

        def ordered(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
            pairs = (sorted(edges[i : i + 2], key=lambda edge: (edge[1], edge[0])) for i in range(0, len(edges), 2))
            return tuple(edge for pair in pairs for edge in pair)

        return Genotype(ordered(self.normal), self.normal_concat, ordered(self.reduce), self.reduce_concat)

    def to_json(self) -> dict[str, Any]:
        """A JSON object: edges as `[operation, source]` lists."""
        return {
            "normal": [list(edge) for edge in self.normal],
            "normal_concat": list(self.normal_concat),
            "reduce": [list(edge) for edge in self.reduce],
            "reduce_concat": list(self.reduce_concat),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Genotype:
        """Reads what `to_json` wrote. Raises InputError that names the field."""
        if not isinstance(value, Mapping):
            raise InputError(f"genotype: expected an object with {', '.join(_FIELDS)}; got {type(value).__name__}")
        missing = [field for field in _FIELDS if field not in value]
        if missing:
            raise InputError(f"genotype: {', '.join(missing)} missing; a genotype has {', '.join(_FIELDS)}")
        return cls(**{field: value[field] for field in _FIELDS})

    def to_text(self) -> str:
        """The notation of the PyTorch codes: `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=...)`."""
        fields = (
            f"{field}=" + (repr(list(getattr(self, field)))) for field in _FIELDS
        )  # lists, as those codes print them
        return f"Genotype({', '.join(fields)})"

    @classmethod
    def from_text(cls, text: str) -> Genotype:
        """Reads the notation of the PyTorch codes, `range(2, 6)` and a leading `NAME =` or their log's time included.

        The text is parsed, never evaluated. Raises InputError on anything else.
        """
        try:
            tree = ast.parse(_LOGGED.sub("", text).strip())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: deep nesting
            raise InputError(f"genotype: cannot read {shorten(text)!r} as Genotype(normal=[...], ...)") from error
        statement = tree.body[0] if len(tree.body) == 1 else None
        call = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
            raise InputError(f"genotype: expected Genotype(normal=[...], ...); got {shorten(text)!r}")
        names = [*_FIELDS[: len(call.args)], *(keyword.arg or "**" for keyword in call.keywords)]
        if len(call.args) > len(_FIELDS) or len(set(names)) < len(names) or not set(names) <= set(_FIELDS):
            raise InputError(f"genotype: has the fields {', '.join(_FIELDS)}, each once; got {shorten(text)!r}")
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        return cls.from_json({name: _literal(value) for name, value in zip(names, values, strict=True)})


def _literal(node: ast.expr) -> Any:
    """A Python literal or `range(...)` of integers, as a list or tuple too."""
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple") and len(node.args) == 1:
            return _literal(node.args[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            # Cut, so that no text can fill the memory; states that high don't exist and are refused later.
            return list(range(*(ast.literal_eval(argument) for argument in node.args))[:_MOST_STATES])
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise InputError(f"genotype: cannot read {shorten(ast.unparse(node))!r}; expected a list") from error


def _as_list(value: Any) -> Any:
    """An array as nested lists, rows of an edge's name and number as they are."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _as_edges(cell: str, value: Any) -> tuple[Edge, ...]:
    value = _as_list(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value or len(value) % 2:
        raise InputError(f"genotype.{cell}: expected a list of two (operation, source) pairs for every node")
    edges = []
    for index, pair in enumerate(value):
        where = f"genotype.{cell}[{index}]"
        pair = _as_list(pair)
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"{where}: expected a pair (operation, source); got {pair!r}")
        operation, source = plain(pair[0]), whole(pair[1])
        if not isinstance(operation, str):
            raise InputError(f"{where}: the operation must be a name; got {operation!r}")
        state = index // 2 + 2
        if source is None or not 0 <= source < state:
            raise InputError(
                f"{where}: state {state} cannot read from {pair[1]!r}; choose a state from 0 to {state - 1}"
            )
        edges.append((operation, source))
    return tuple(edges)


def _as_concat(cell: str, value: Any, num_nodes: int) -> tuple[int, ...]:
    where = f"genotype.{cell}_concat"
    value = _as_list(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InputError(f"{where}: expected a list of states; got {value!r}")
    states = []
    for given in value:
        state = whole(given)
        if state is None or not 0 <= state < num_nodes + 2:
            raise InputError(f"{where}: no state {given!r}; choose states from 0 to {num_nodes + 1}")
        states.append(state)
    return tuple(states)
