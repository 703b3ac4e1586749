"""What does a found cell look like?"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
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
from jaxdarts.reports.cell_layout import BOX_HEIGHT, INPUT_WIDTH, LANE, OUTPUT_WIDTH, RADIUS, Layout
from jaxdarts.reports.graphs import CELL_NAMES, CELLS_IN_A_ROW, RECURRENT, node_number, words_of
from jaxdarts.reports.texts import label
from jaxdarts.spaces import Architecture, RecurrentGenotype

INK, BACKGROUND, WIRE, NODE = "#1f2328", "#ffffff", "#8c959f", "#e9edf1"
# The only texts that are read as mathematics.
FORMULAS = frozenset(f"${name}$" for words in (CELLS_IN_A_ROW, RECURRENT) for name in (*words.inputs, words.output))
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
    ("tanh", "#2463c4", "tanh"),
    ("relu", "#b4540a", "relu"),
    ("sigmoid", "#7c3fc4", "sigmoid"),
    ("identity", "#1a7f4b", "identity"),
    ("none", "#5c6570", "none"),
    ("", "#0f7285", "other operation"),
)

_MARGIN, _TITLE_HEIGHT, _HEADING_HEIGHT, _LEGEND_ROW = 0.25, 0.42, 0.36, 0.3  # inches
_BOX_WIDTH, _NARROW_BOX_WIDTH, _BOX_PADDING, _CORNER = 1.12, 0.84, 0.11, 0.1
_FONT_SIZE = 8.5


def draw_cells(genotype: Architecture, title: str | None = None) -> Figure:
    """The cells of a genotype, coloured by kind of operation, with a legend.

    Left, the outputs of the last two cells, or of the last block; each numbered node adds the results of its
    operations; right, the concatenation. Of a recurrent cell left its input and last output, right the mean of states.
    Places are fixed by the number of nodes (and by the longest name, where that is unusually long), so that the
    drawings of different epochs can be laid side by side; that of a node that does not exist stays free. No global
    matplotlib state is used.
    """
    names = set(genotype.operations)
    count = len(genotype.cell_types)
    incoming = [genotype.nodes(cell).count(node) for cell in genotype.cell_types for node in range(genotype.num_nodes)]
    # The least width and number of a node's operations: as usual for the kind of cell, whatever was found.
    narrowest, least = (_NARROW_BOX_WIDTH, 1) if isinstance(genotype, RecurrentGenotype) else (_BOX_WIDTH, 2)
    box_width = max([narrowest, *(_text_width(name) + 2 * _BOX_PADDING for name in names)])
    layout = Layout(genotype.num_nodes, box_width, genotype.num_inputs, max(least, *incoming))
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


def _draw_cell(axes: Axes, genotype: Architecture, cell_type: str, layout: Layout, x0: float, y0: float) -> None:
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
            lane_x = x0 + layout.lanes_x(node) + (len(own) - 1 - place) * LANE
            end = (lane_x, y - BOX_HEIGHT / 2) if layout.from_above else (box_x, y)
            _wire(axes, x0 + layout.right_x(source), y0 + layout.state_y(source), lane_x, end)
            colour = operation_colour(name)
            _arrow(axes, (box_x + layout.box_width, y), (node_x - RADIUS, node_y + (y - node_y) * 0.3), colour)
            _box(axes, box_x, y - BOX_HEIGHT / 2, layout.box_width, BOX_HEIGHT, colour)
            _text(axes, box_x + layout.box_width / 2, y, name, color=_LABEL, fontsize=_FONT_SIZE, fontweight="bold")
        axes.add_patch(Circle((node_x, node_y), RADIUS, facecolor=NODE, edgecolor=INK, linewidth=1.2, zorder=3))
        _text(axes, node_x, node_y, str(node_number(node + inputs, inputs)), fontsize=11)
    words = words_of(cell_type)
    for state, name in enumerate(words.inputs[-inputs:]):
        y = y0 + layout.state_y(state)
        _box(axes, x0, y - 0.18, INPUT_WIDTH, 0.36, NODE, edge=INK)
        _text(axes, x0 + INPUT_WIDTH / 2, y, f"${name}$", fontsize=11, va="center")
    output_x, heights = x0 + layout.output_x, [y0 + layout.state_y(state) for state in genotype.concat(cell_type)]
    for state, y in zip(genotype.concat(cell_type), heights, strict=True):
        _arrow(axes, (x0 + layout.right_x(state), y), (output_x, y), WIRE)
    top, bottom = min(heights) - 0.25, max(heights) + 0.25
    _box(axes, output_x, top, OUTPUT_WIDTH, bottom - top, NODE, edge=INK)
    middle_x, middle = output_x + OUTPUT_WIDTH / 2, (top + bottom) / 2
    is_mean = words is RECURRENT  # said, since a concatenation is what one expects
    _text(axes, middle_x, middle - 0.1 * is_mean, f"${words.output}$", fontsize=12, va="center")
    if is_mean:
        _text(axes, middle_x, middle + 0.1, words.joined, fontsize=_FONT_SIZE)


def _wire(axes: Axes, x: float, y: float, lane_x: float, end: tuple[float, float]) -> None:
    """Right along y, down the lane and, unless the end is there, right to the operation, with rounded corners."""
    r, (end_x, end_y) = _CORNER, end
    points = [(x, y), (lane_x - r, y), (lane_x, y), (lane_x, y + r)]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    if end_x > lane_x:
        points += [(lane_x, end_y - r), (lane_x, end_y), (lane_x + r, end_y)]
        codes += [Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    curve = Curve([*points, end], [*codes, Curve.LINETO])
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
