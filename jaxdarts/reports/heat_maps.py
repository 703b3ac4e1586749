"""How are the weights of operations and edges drawn over the epochs of a search?"""

from __future__ import annotations

import numpy as np

from jaxdarts.reports import charts
from jaxdarts.reports.draw import operation_colour
from jaxdarts.reports.graphs import CELL_NAMES, state_name
from jaxdarts.reports.page import escape
from jaxdarts.reports.run_record import RunRecord


def operation_maps(run: RunRecord, cell_type: str) -> str:
    """A heat map for every edge of a cell, a row a candidate, in one colour scale."""
    candidates = run.space.operations(cell_type)
    by_epoch = run.strengths(cell_type)
    maps = [np.stack([strengths[edge] for strengths in by_epoch], axis=1) for edge in range(len(candidates))]
    everything = np.concatenate([strengths.ravel() for strengths in maps])
    if not np.isfinite(everything).any():
        return f'<h3>{CELL_NAMES[cell_type]}</h3><p class="muted">No strengths were recorded.</p>'
    low, high, digits = _range(everything)
    chosen = _chosen(run, cell_type)
    cards = []
    for edge, operations, strengths in zip(run.space.edges, candidates, maps, strict=True):
        names = [
            f'<span class="swatch" style="background:{operation_colour(name)}"></span>'
            + (f"<b>{escape(name)}</b>" if chosen.get(edge) == name else escape(name))
            for name in operations
        ]
        label = f"strengths of {', '.join(operations)} over epochs"
        cards.append(
            f'<div class="card edge{" chosen" if edge in chosen else ""}"><h4>{_edge_name(run, cell_type, edge)}</h4>'
            f'<div class="map">{_rows(names, strengths, low, high, digits, label)}</div></div>'
        )
    note = f"{run.method.mixing.says.format(_alpha(run))}, {_epochs(run)}. Outlined: edges in the genotype, their "
    scale = _scale(low, high, digits, f"{note}operation in bold.")
    return f'<h3>{CELL_NAMES[cell_type]}</h3>{scale}<div class="edges">{"".join(cards)}</div>'


def edge_maps(run: RunRecord) -> str:
    """A heat map for every type of cell, a row an edge, in one colour scale; empty text where edges have no weights.

    Nodes have different numbers of edges, so the colour is a weight in relation to what it is if all are alike.
    """
    space = run.space
    maps = {cell: np.stack(run.edge_strengths(cell), axis=1) for cell in space.cell_types}
    of_node = np.array([[node + space.num_inputs] for node, _ in space.edges])  # how many edges lead there
    everything = np.concatenate([(strengths * of_node).ravel() for strengths in maps.values()])
    if not np.isfinite(everything).any():
        return ""
    low, high, digits = _range(everything)
    cards = []
    for cell, strengths in maps.items():
        chosen = _chosen(run, cell)
        rows = ""
        for node in range(space.num_nodes):
            own = space.incoming(node)
            edges = space.edges[own]
            texts = [_edge_name(run, cell, edge) for edge in edges]
            names = [f"<b>{text}</b>" if edge in chosen else text for edge, text in zip(edges, texts, strict=True)]
            label = f"weights of {', '.join(texts)} over epochs"
            rows += _rows(names, strengths[own], low, high, digits, label, len(edges))
        cards.append(f'<div class="card edge"><h4>{CELL_NAMES[cell]}</h4><div class="map">{rows}</div></div>')
    note = (
        f"{run.method.mixing.edges_say.format(_alpha(run))}, {_epochs(run)}. The colour is the weight "
        "times the number of these edges; 1: all are alike. In bold: edges in the genotype."
    )
    scale = _scale(low, high, digits, note)
    return f'<h2>Edge weights</h2>{scale}<div class="pair">{"".join(cards)}</div>'


def _range(values: np.ndarray) -> tuple[float, float, int]:
    """Least and greatest value, and the digits to show of each."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, high, 3 if high - low > 0.05 else 5  # in a short search alpha hardly moves


def _chosen(run: RunRecord, cell_type: str) -> dict[tuple[int, int], str]:
    """The operation in the genotype, by its edge."""
    edges = zip(run.genotype.nodes(cell_type), run.genotype.edges(cell_type), strict=True)
    return {(node, source): name for node, (name, source) in edges}


def _edge_name(run: RunRecord, cell_type: str, edge: tuple[int, int]) -> str:
    inputs = run.space.num_inputs
    return f"{state_name(edge[0] + inputs, inputs)} \N{LEFTWARDS ARROW} {state_name(edge[1], inputs, cell_type)}"


def _alpha(run: RunRecord) -> str:
    return "alpha / temperature" if run.is_tempered else "alpha"


def _epochs(run: RunRecord) -> str:
    return f"from epoch {run.epochs[0]} (left) to {run.epochs[-1]} (right, with its value)"


def _rows(
    names: list[str], values: np.ndarray, low: float, high: float, digits: int, label: str, scale: float = 1.0
) -> str:
    """Names as HTML, the map of `scale` times float[rows, epochs], and the last values."""
    numbers = "<br>".join("" if np.isnan(value) else f"{value:.{digits}f}" for value in values[:, -1])
    image = charts.heat_map(scale * values, low, high)
    return (
        f'<div>{"<br>".join(names)}</div><div class="image"><img alt="{escape(label)}" src="{image}"></div>'
        f'<div class="number">{numbers}</div>'
    )


def _scale(low: float, high: float, digits: int, note: str) -> str:
    return (
        f'<div class="scale small"><span>{low:.{digits}f}</span><i></i>'
        f'<span>{high:.{digits}f}</span><span class="muted">{note}</span></div>'
    )
