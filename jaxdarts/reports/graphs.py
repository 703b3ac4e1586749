"""How are cells called in text, and written as graphs that other tools draw?"""

from __future__ import annotations

import re
from typing import NamedTuple

from jaxdarts.reports.texts import printable
from jaxdarts.spaces import Architecture

CELL_NAMES = {"normal": "Normal cell", "reduce": "Reduction cell", "cell": "Cell", "recurrent": "Recurrent cell"}


class Words(NamedTuple):
    """How the states of a cell that are no nodes are called."""

    inputs: tuple[str, ...]  # of cells with fewer inputs the last ones
    output: str
    joined: str  # how the output is made of states


CELLS_IN_A_ROW = Words(("c_{k-2}", "c_{k-1}"), "c_{k}", "concat")
RECURRENT = Words(("x, h",), "h", "mean")


def words_of(cell_type: str) -> Words:
    """Those for the states of a cell of this type."""
    return RECURRENT if cell_type == "recurrent" else CELLS_IN_A_ROW


def to_dot(genotype: Architecture) -> str:
    """The cells in Graphviz' DOT language."""

    def quote(text: str) -> str:
        escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    lines = ["digraph genotype {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    for cell_type in genotype.cell_types:
        lines += [f"  subgraph cluster_{cell_type} {{", f"    label={quote(CELL_NAMES[cell_type])};"]
        lines += [f"    {cell_type}_{state} [label={quote(name)}];" for state, name in _states(genotype, cell_type)]
        lines += [f"    {a} -> {b} [label={quote(label)}];" for a, label, b in _connections(genotype, cell_type)]
        lines += ["  }"]
    return "\n".join([*lines, "}", ""])


def to_mermaid(genotype: Architecture) -> str:
    """The cells as a Mermaid flowchart, which code hosts show in Markdown."""

    def quote(text: str) -> str:
        # Beside quotes: codes, HTML, Markdown, mathematics, directives and line breaks, all of which Mermaid reads.
        escaped = re.sub(r"[#&<>`|\\$%]", lambda match: f"#{ord(match[0])};", printable(text))
        return '"' + escaped.replace('"', "#quot;") + '"'

    lines = ["flowchart LR"]
    for cell_type in genotype.cell_types:
        lines += [f"  subgraph {cell_type}[{quote(CELL_NAMES[cell_type])}]"]
        lines += [f"    {cell_type}_{state}({quote(name)})" for state, name in _states(genotype, cell_type)]
        lines += [f"    {a} -->|{quote(label)}| {b}" for a, label, b in _connections(genotype, cell_type)]
        lines += ["  end"]
    return "\n".join([*lines, ""])


def state_name(state: int, num_inputs: int = 2, cell_type: str = "") -> str:
    """How a state is called in text: `c_{k-2}`, `c_{k-1}`, `node 0`, `node 1`, ...

    With one input the nodes have the numbers of their states, as in NAS-Bench-201: `c_{k-1}`, `node 1`, ... In a
    `recurrent` cell that input is `x, h`.
    """
    if state >= num_inputs:
        return f"node {node_number(state, num_inputs)}"
    return words_of(cell_type).inputs[state - num_inputs]


def node_number(state: int, num_inputs: int) -> int:
    """The number that a node's state has in pictures and text."""
    return state if num_inputs == 1 else state - num_inputs


def _states(genotype: Architecture, cell_type: str) -> list[tuple[int, str]]:
    """The inputs, the nodes that exist, and the output."""
    inputs = genotype.num_inputs
    nodes = sorted(set(genotype.nodes(cell_type)))
    states = [*range(inputs), *(node + inputs for node in nodes)]
    output = (genotype.num_nodes + inputs, words_of(cell_type).output)
    return [(state, state_name(state, inputs, cell_type)) for state in states] + [output]


def _connections(genotype: Architecture, cell_type: str) -> list[tuple[str, str, str]]:
    """(from, label, to) of every operation, then of what the output is made of."""
    first = genotype.num_inputs
    edges = [
        (f"{cell_type}_{source}", name, f"{cell_type}_{node + first}")
        for node, (name, source) in zip(genotype.nodes(cell_type), genotype.edges(cell_type), strict=True)
    ]
    output = f"{cell_type}_{genotype.num_nodes + first}"
    joined = words_of(cell_type).joined
    return edges + [(f"{cell_type}_{state}", joined, output) for state in genotype.concat(cell_type)]
