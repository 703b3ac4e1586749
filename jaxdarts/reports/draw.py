"""What does a found cell look like?"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from jaxdarts.json_files import write_atomically
from jaxdarts.reports.graphs import CELL_NAMES, node_number
from jaxdarts.reports.texts import label
from jaxdarts.spaces import Architecture

INK, BACKGROUND, WIRE, NODE = "#1f2328", "#ffffff", "#8c959f", "#e9edf1"
FORMULAS = ("$c_{k-2}$", "$c_{k-1}$", "$c_{k}$")  # the only texts that are read as mathematics
_LABEL = "#fefefe"  # on an operation's colour; not the background's white, which a dark page replaces
# (what a name starts with, colour, name in the legend); white text is readable on every colour
_KINDS = (
    ("sep_conv", "#2463c4", "separable convolution"),
    ("nor_conv", "#2463c4", "convolution"),
    ("dil_conv", "#7c3fc4", "dilated convolution"),
    ("max_pool", "#b4540a", "pooling"),
    ("avg_pool", "#b4540a", "pooling"),
    ("skip_connect", "#1a7f4b", "skip connection"),
    ("noise", "#bb2649", "noise"),
    ("none", "#5c6570", "none"),
    ("", "#0f7285", "other operation"),
)

# Inches. A cell is a staircase: every state has a height of its own, its wires run to the right at that height and
# drop, left of a node, into one of the node's two operations. So no label can meet another label, a node or a wire.
_MARGIN, _TITLE_HEIGHT, _HEADING_HEIGHT, _LEGEND_ROW = 0.25, 0.42, 0.36, 0.3
_BOX_HEIGHT, _BOX_OFFSET, _BOX_WIDTH, _BOX_PADDING = 0.27, 0.165, 1.12, 0.11
_INPUT_STEP, _FIRST_STEP, _STEP, _RADIUS, _CORNER = 0.5, 0.66, 0.8, 0.2, 0.1
_INPUT_WIDTH, _OUTPUT_WIDTH, _LANE, _LANE_TO_BOX, _BOX_TO_NODE = 0.66, 0.54, 0.15, 0.26, 0.36
_FONT_SIZE = 8.5


def draw_cells(genotype: Architecture, title: str | None = None) -> Figure:
    """The cells of a genotype, coloured by kind of operation, with a legend.

    Left, the outputs of the last two cells, or of the last block; each numbered node adds the results of its
    operations; right, the concatenation. Places are fixed by the number of nodes (and by the longest name, where that
    is unusually long), so that the drawings of different epochs can be laid side by side; that of a node that does not
    exist stays free. No global matplotlib state is used.
    """
    names = set(genotype.operations)
    count = len(genotype.cell_types)
    incoming = [genotype.nodes(cell).count(node) for cell in genotype.cell_types for node in range(genotype.num_nodes)]
    box_width = max([_BOX_WIDTH, *(_text_width(name) + 2 * _BOX_PADDING for name in names)])
    layout = _Layout(genotype.num_nodes, box_width, genotype.num_inputs, max(2, *incoming))
    columns = 2 if layout.width < 4.5 and count > 1 else 1  # small cells stand side by side
    width = columns * layout.width + (columns + 1) * _MARGIN
    legend = _legend_rows(names, width - 2 * _MARGIN)
    cell_height = _HEADING_HEIGHT + layout.height
    top = _MARGIN + (_TITLE_HEIGHT if title else 0.0)
    legend_top = top + -(-count // columns) * (cell_height + _MARGIN)
    height = legend_top + len(legend) * _LEGEND_ROW + _MARGIN / 2

    figure = Figure(figsize=(width, height), facecolor=BACKGROUND, dpi=160)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))  # one unit is one inch; y grows downwards
    axes.set_axis_off()
    if title:
        _text(axes, _MARGIN, _MARGIN + 0.1, title, ha="left", fontsize=13, fontweight="bold")
    for index, cell_type in enumerate(genotype.cell_types):
        x = _MARGIN + (index % columns) * (layout.width + _MARGIN)
        y = top + (index // columns) * (cell_height + _MARGIN)
        _text(axes, x, y + 0.1, CELL_NAMES[cell_type], ha="left", fontsize=11, fontweight="bold")
        _draw_cell(axes, genotype, cell_type, layout, x, y + _HEADING_HEIGHT)
    for row, entries in enumerate(legend):
        for x, colour, name in entries:
            y = legend_top + (row + 0.5) * _LEGEND_ROW
            _box(axes, _MARGIN + x, y - 0.07, 0.22, 0.14, colour, rounding=0.05)
            _text(axes, _MARGIN + x + 0.3, y, name, ha="left", fontsize=_FONT_SIZE)
    as_they_are(figure)
    return figure


def save_cells(
    genotype: Architecture, svg_path: str | Path, png_path: str | Path | None = None, title: str | None = None
) -> None:
    """Draws the cells to an SVG file, and to a PNG file where one is named.

    Files are replaced as a whole. The SVG's bytes are the same for the same genotype, title and matplotlib. Raises
    OSError where a file cannot be written.
    """
    figure = draw_cells(genotype, title)
    write_atomically(svg_path, figure_to_svg(figure, "cells"))
    if png_path is not None:
        buffer = io.BytesIO()
        _save(figure, buffer, format="png", metadata={"Software": None})
        write_atomically(png_path, buffer.getvalue())


def as_they_are(figure: Figure) -> None:
    """Every text of a figure but FORMULAS is shown as it is, whatever it means to matplotlib.

    All pictures pass through here before they are drawn. Else a pair of `$` would begin mathematics, with a traceback
    where it is none.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text() not in FORMULAS:
            text.set_parse_math(False)
            text.set_text(label(text.get_text()))


def figure_to_svg(figure: Figure, salt: str, text_as_paths: bool = True) -> str:
    """The figure as SVG text without dates or random identifiers; `salt` separates figures of one page."""
    buffer = io.StringIO()
    settings: dict[Any, Any] = {"svg.hashsalt": salt, "svg.fonttype": "path" if text_as_paths else "none"}
    with matplotlib.rc_context(settings):
        _save(figure, buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _save(figure: Figure, buffer: io.StringIO | io.BytesIO, **options: Any) -> None:
    as_they_are(figure)
    with _missing_glyphs():
        figure.savefig(buffer, **options)


@contextlib.contextmanager
def _missing_glyphs() -> Iterator[None]:
    """Says nothing of letters that the font lacks: a box stands for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def operation_colour(operation: str) -> str:
    """The colour of the operation's kind, `#rrggbb`."""
    return _kind(operation)[0]


def _kind(operation: str) -> tuple[str, str]:
    return next((colour, name) for prefix, colour, name in _KINDS if operation.startswith(prefix))


@dataclass(frozen=True)
class _Layout:
    """Where things stand within one cell, in inches from its upper left corner."""

    num_nodes: int
    box_width: float
    num_inputs: int
    most_incoming: int  # operations of the node that has most

    @property
    def lanes_width(self) -> float:
        return self.most_incoming * _LANE

    def state_y(self, state: int) -> float:
        if state < self.num_inputs:
            return 0.2 + state * _INPUT_STEP
        last_input = 0.2 + (self.num_inputs - 1) * _INPUT_STEP
        taller = (self.most_incoming - 2) * _BOX_OFFSET  # a node's operations stand above and below its height
        return last_input + _FIRST_STEP + taller + (state - self.num_inputs) * (_STEP + 2 * taller)

    def box_y(self, place: int, count: int) -> float:
        """Relative to the node: its operations, evenly above and below."""
        return (2 * place - count + 1) * _BOX_OFFSET

    def lanes_x(self, node: int) -> float:
        """The left one of a node's vertical lanes."""
        pitch = self.lanes_width + _LANE_TO_BOX + self.box_width + _BOX_TO_NODE + 2 * _RADIUS
        return _INPUT_WIDTH + _LANE + node * pitch

    def box_x(self, node: int) -> float:
        return self.lanes_x(node) + self.lanes_width - _LANE + _LANE_TO_BOX

    def node_x(self, node: int) -> float:
        return self.box_x(node) + self.box_width + _BOX_TO_NODE + _RADIUS

    def right_x(self, state: int) -> float:
        """Where the wires of a state begin."""
        return _INPUT_WIDTH if state < self.num_inputs else self.node_x(state - self.num_inputs) + _RADIUS

    @property
    def output_x(self) -> float:
        return self.node_x(self.num_nodes - 1) + _RADIUS + 0.34

    @property
    def width(self) -> float:
        return self.output_x + _OUTPUT_WIDTH

    @property
    def height(self) -> float:
        lowest = self.state_y(self.num_nodes + self.num_inputs - 1)
        return lowest + (self.most_incoming - 1) * _BOX_OFFSET + _BOX_HEIGHT / 2


def _draw_cell(axes: Axes, genotype: Architecture, cell_type: str, layout: _Layout, x0: float, y0: float) -> None:
    edges, inputs = list(zip(genotype.nodes(cell_type), genotype.edges(cell_type), strict=True)), layout.num_inputs
    for node in range(genotype.num_nodes):
        node_x, node_y = x0 + layout.node_x(node), y0 + layout.state_y(node + inputs)
        box_x = x0 + layout.box_x(node)
        # The higher source feeds the upper operation by the right lane: the node's wires cannot cross.
        own = sorted((edge for to, edge in edges if to == node), key=lambda edge: edge[1])
        if not own:  # such a node doesn't exist; its place stays free
            continue
        for place, (name, source) in enumerate(own):
            y = node_y + layout.box_y(place, len(own))
            lane_x = x0 + layout.lanes_x(node) + (len(own) - 1 - place) * _LANE
            _wire(axes, x0 + layout.right_x(source), y0 + layout.state_y(source), lane_x, y, box_x)
            colour = operation_colour(name)
            _arrow(axes, (box_x + layout.box_width, y), (node_x - _RADIUS, node_y + (y - node_y) * 0.3), colour)
            _box(axes, box_x, y - _BOX_HEIGHT / 2, layout.box_width, _BOX_HEIGHT, colour)
            _text(axes, box_x + layout.box_width / 2, y, name, color=_LABEL, fontsize=_FONT_SIZE, fontweight="bold")
        axes.add_patch(Circle((node_x, node_y), _RADIUS, facecolor=NODE, edgecolor=INK, linewidth=1.2, zorder=3))
        _text(axes, node_x, node_y, str(node_number(node + inputs, inputs)), fontsize=11)
    for state, formula in enumerate(FORMULAS[:2][-inputs:]):
        y = y0 + layout.state_y(state)
        _box(axes, x0, y - 0.18, _INPUT_WIDTH, 0.36, NODE, edge=INK)
        _text(axes, x0 + _INPUT_WIDTH / 2, y, formula, fontsize=11, va="center")
    output_x, heights = x0 + layout.output_x, [y0 + layout.state_y(state) for state in genotype.concat(cell_type)]
    for state, y in zip(genotype.concat(cell_type), heights, strict=True):
        _arrow(axes, (x0 + layout.right_x(state), y), (output_x, y), WIRE)
    _box(axes, output_x, min(heights) - 0.25, _OUTPUT_WIDTH, max(heights) - min(heights) + 0.5, NODE, edge=INK)
    middle = (min(heights) + max(heights)) / 2
    _text(axes, output_x + _OUTPUT_WIDTH / 2, middle, FORMULAS[2], fontsize=12, va="center")


def _wire(axes: Axes, x: float, y: float, lane_x: float, end_y: float, end_x: float) -> None:
    """Right along y, down the lane, right to the operation, with rounded corners."""
    r = _CORNER
    points = [(x, y), (lane_x - r, y), (lane_x, y), (lane_x, y + r), (lane_x, end_y - r), (lane_x, end_y)]
    points += [(lane_x + r, end_y), (end_x, end_y)]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    curve = Curve(points, [*codes, Curve.LINETO])
    axes.add_patch(PathPatch(curve, facecolor="none", edgecolor=WIRE, linewidth=1.5, zorder=1))


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = "-|>,head_width=2.6,head_length=4.5"
    arrow = FancyArrowPatch(start, end, arrowstyle=style, color=colour, linewidth=1.5, shrinkA=0, shrinkB=0, zorder=2)
    axes.add_patch(arrow)


def _box(
    axes: Axes, x: float, y: float, width: float, height: float, face: str, edge: str = "none", rounding: float = 0.1
) -> None:
    style = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=edge, linewidth=1.2, zorder=3)
    )


def _text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    settings: dict[str, Any] = {"color": INK, "ha": "center", "va": "center_baseline", "zorder": 4}
    axes.text(x, y, text, **(settings | style))


def _text_width(text: str, weight: str = "bold") -> float:
    """Inches at the operations' font size."""
    text = label(text)
    if not text.strip():
        return 0.0
    font = FontProperties(family="DejaVu Sans", weight=weight)
    with _missing_glyphs():
        return float(TextPath((0, 0), text.replace("$", r"\$"), size=_FONT_SIZE, prop=font).get_extents().width) / 72


def _legend_rows(operations: set[str], width: float) -> list[list[tuple[float, str, str]]]:
    """Rows of (x, colour, name) that fit the width."""
    used = {_kind(operation) for operation in operations}
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for colour, name in dict.fromkeys((colour, name) for _, colour, name in _KINDS if (colour, name) in used):
        needed = 0.3 + _text_width(name, "normal") + 0.3
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, colour, name))
        x += needed
    return rows
