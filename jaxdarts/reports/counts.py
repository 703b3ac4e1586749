"""Which operations of a cell does a page count, and how does it tell how many there are?

Of cells of convolutions the skip connections, since too many of them are what a search fails by (Zela et al. 2020). A
recurrent cell has none: of it every activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdarts.reports.graphs import CELL_NAMES
from jaxdarts.reports.strengths import SKIP
from jaxdarts.spaces import Architecture, CellSpace, genotype_from_json
from jaxdarts.spaces.recurrent import ACTIVATION_NAMES

ACTIVATIONS = tuple(name for name in ACTIVATION_NAMES if name != "none")


def is_recurrent(cells: CellSpace | Architecture) -> bool:
    """Whether nodes have activations instead of operations on images."""
    return cells.macro == "recurrent"


def activations(space: CellSpace) -> tuple[str, ...]:
    """Those that nodes can have, in the published order; of other cells none."""
    return tuple(name for name in ACTIVATIONS if name in space.operation_names) if is_recurrent(space) else ()


def activation_counts(genotype: Architecture) -> dict[str, int]:
    """Nodes of a recurrent cell by activation, the most frequent first."""
    counts = {name: sum(genotype.count(name).values()) for name in ACTIVATIONS}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def count_headings(cells: CellSpace | Architecture, short: bool = False) -> list[str]:
    """Of a table's columns, of which `count_texts` has the entries."""
    if is_recurrent(cells):
        return ["Activations"]
    names = [CELL_NAMES[cell].lower() for cell in cells.cell_types]
    return [f"Skips, {name.removesuffix(' cell') if short else name}" for name in names]


def count_texts(genotype: Architecture) -> list[str]:
    """`["3", "0"]`, of each type of cell; of a recurrent cell `["5 relu, 3 tanh"]`."""
    if is_recurrent(genotype):
        return [_in_order(genotype)]
    return [str(count) for count in genotype.count(SKIP).values()]


def count_sentence(genotype: Architecture, with_all: bool = False) -> str:
    """What a genotype has of them; `with_all`: and of how many operations."""
    if is_recurrent(genotype):
        return f"Activations: {_in_order(genotype)}."
    counts = [
        f"{count} of {len(genotype.edges(cell))} operations in the {CELL_NAMES[cell].lower()}"
        if with_all
        else f"{count} in the {CELL_NAMES[cell].lower()}"
        for cell, count in genotype.count(SKIP).items()
    ]
    return f"Skip connections: {', '.join(counts)}."


def count_phrase(genotype: Architecture) -> str:
    """As a part of a sentence: `5 and 1 skip connections`, `the activations 5 relu, 3 tanh`."""
    if is_recurrent(genotype):
        return f"the activations {_in_order(genotype)}"
    return f"{' and '.join(count_texts(genotype))} skip connections"


def count_table(genotype: Architecture, found: Mapping[str, Any]) -> tuple[list[str], list[list[str]], str]:
    """Header, rows and note of a table about an ended search.

    Args:
      genotype: that was returned.
      found: what diagnostics.json says of its operations.
    """
    if is_recurrent(genotype):
        total = genotype.num_nodes
        rows = [[name, f"{count} of {total}"] for name, count in activation_counts(genotype).items() if count]
        return ["", *(CELL_NAMES[cell] for cell in genotype.cell_types)], rows, "Activations of the nodes."
    cells = list(found["all"])
    rows = [
        [name, *(f"{found[key][cell]} of {found['all'][cell]}" for cell in cells)]
        for key, name in (("skip_connect", "Skip connections"), ("parameter_free", "Parameter-free operations"))
    ]
    note = "Parameter-free: skip connections, poolings and noise."
    return ["", *(CELL_NAMES[cell] for cell in cells)], rows, note


def count_lines(space: CellSpace) -> tuple[str, dict[str, str]]:
    """What is counted after every epoch: its name, and of each quantity (see `count_of`) the name of its line."""
    if is_recurrent(space):
        return "Activations", {f"activation_{name}": name for name in activations(space)}
    return "Skip connections", {f"skip_{cell}": CELL_NAMES[cell].lower() for cell in space.cell_types}


def is_count(quantity: str) -> bool:
    """Whether a quantity of an epoch is such a number."""
    return quantity.startswith("activation_") or quantity in ("skip_normal", "skip_reduce", "skip_cell")


def count_of(records: Sequence[Mapping[str, Any]], quantity: str) -> list[int | None]:
    """The number after every epoch in metrics.jsonl; None where none was recorded."""
    kind, _, name = quantity.partition("_")
    if kind == "skip":
        return [(record.get("skip_connections") or {}).get(name) for record in records]
    found = [genotype_from_json(record.get("genotype")) if record.get("genotype") else None for record in records]
    return [activation_counts(one).get(name) if one is not None and is_recurrent(one) else None for one in found]


def _in_order(genotype: Architecture) -> str:
    return ", ".join(f"{count} {name}" for name, count in activation_counts(genotype).items() if count)


COUNT_QUANTITIES = (
    ("skip_normal", "Skip connections, normal"),
    ("skip_reduce", "Skip connections, reduction"),
    ("skip_cell", "Skip connections"),
    *((f"activation_{name}", f"Activations, {name}") for name in ACTIVATIONS),
)
