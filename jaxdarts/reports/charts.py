"""How are a run's numbers drawn for its report?"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from jaxdarts.reports.draw import BACKGROUND, INK, NODE, WIRE, figure_to_svg
from jaxdarts.reports.run_record import Values
from jaxdarts.reports.texts import label

COLOUR_MAP = "viridis"
FIRST, SECOND, THIRD = "#2463c4", "#c2570c", "#1a7f4b"
COLOURS = (FIRST, SECOND, THIRD, "#8a4fc0", "#b0812a", "#5a7d8c", "#c44a7a", "#6b7a2a")  # of lines side by side
MUTED, _GRID = "#59636e", "#d5dae0"
_LETTER, _ROW = 0.08, 0.19  # inches at font size 9: a wide letter, and a row of a legend
_GREATEST = 1e100  # no axis goes beyond
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# What the page's style sheet may replace, for dark screens; the hex value remains the default.
_PAGE_COLOURS = {INK: "ink", BACKGROUND: "surface", WIRE: "wire", NODE: "node", MUTED: "muted", _GRID: "grid"}
_LINE_COLOURS = {FIRST: "first", SECOND: "second", THIRD: "third"}


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    values: Values
    colour: str
    faint: bool = False  # a thin line with points, behind a smoothed one
    stepped: bool = False  # for counts
    band: tuple[Values, Values] | None = None  # lower and upper edge of an area behind it


class LineOptions(TypedDict, total=False):
    """What a chart of lines may be told beside them."""

    width: float
    """In inches, 5.6 if not given; the page scales the element."""
    percent: bool
    """Values are parts of one."""
    counts_up_to: int | None
    """Values are whole numbers from 0 to this."""
    bounds: tuple[float, float] | None
    """The least and the greatest value of all charts that are compared: they get the same axis."""
    zero_line: bool
    """Marks the height 0."""
    marks: Sequence[tuple[int, str]]
    """(epoch, text) of vertical lines."""


def line_chart(identifier: str, epochs: Sequence[int], lines: Sequence[Line], **options: Unpack[LineOptions]) -> str:
    """Lines over epochs as an inline SVG element; empty text if no line has a value.

    Args:
      identifier: distinguishes the elements of one page.
      epochs: the x coordinate of every entry of a line's values.
      options: see LineOptions.
    """
    figure = line_figure(epochs, lines, **options)
    if figure is None:
        return ""
    return _replaceable(inline_svg(figure, identifier, text_as_paths=False), _LINE_COLOURS)


def line_figure(epochs: Sequence[int], lines: Sequence[Line], **options: Unpack[LineOptions]) -> Figure | None:
    """As `line_chart`, before it becomes text; None if no line has a value."""
    width, counts_up_to = options.get("width", 5.6), options.get("counts_up_to")
    lines = [line._replace(values=[drawable(value) for value in line.values]) for line in lines]
    lines = [line for line in lines if any(value is not None for value in line.values)]
    if not lines:
        return None
    figure, axes = _new_figure(width, 2.7)
    if options.get("zero_line"):
        axes.axhline(0.0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    entries: dict[str, Line2D] = {}
    for line in lines:
        known = [(epoch, value) for epoch, value in zip(epochs, line.values, strict=True) if value is not None]
        marked = line.faint or len(epochs) <= 20
        (drawn,) = axes.plot(
            *zip(*known, strict=True),
            color=line.colour,
            linewidth=1.0 if line.faint else 2.0,
            alpha=0.55 if line.faint else 1.0,
            marker="o" if marked else None,
            markersize=3.2 if line.faint else 4.2,
            markeredgewidth=0,
            drawstyle="steps-mid" if line.stepped else "default",
            solid_capstyle="round",
        )
        entries.setdefault(line.name, drawn)
        if line.band is not None:
            edges = [row for row in zip(epochs, *line.band, strict=True) if None not in map(drawable, row)]
            x, low, high = np.array(edges, dtype=float).T
            axes.fill_between(x, low, high, color=line.colour, alpha=0.15, linewidth=0)
    shared: dict[int, list[str]] = {}
    for epoch, text in options.get("marks", ()):
        if epochs[0] <= epoch <= epochs[-1]:
            shared.setdefault(epoch, []).append(text)
    for epoch, texts in shared.items():
        axes.axvline(epoch, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            ", ".join(texts),
            (epoch, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            color=MUTED,
            fontsize=8.5,
        )
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=counts_up_to is not None, nbins=6))
    if options.get("percent"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    bounds = options.get("bounds")
    if bounds is not None:
        reach = 0.05 * (bounds[1] - bounds[0]) or 0.01
        axes.set_ylim(bounds[0] - reach, bounds[1] + reach)
    if counts_up_to is not None:
        axes.set_ylim(-0.3, counts_up_to + 0.3)
    tidy_axes(axes)
    legend(figure, list(entries.items()), columns=max(3, int(width / 1.6)), labelcolor=INK)
    return figure


def bar_chart(
    identifier: str,
    positions: np.ndarray,
    heights: np.ndarray,
    width: float,
    axis_label: str,
    colour: str,
    *,
    counts: bool = False,
) -> str:
    """Bars as an inline SVG element.

    Args:
      identifier: distinguishes the elements of one page.
      positions: centres of the bars.
      heights: one for each; may be negative.
      width: of a bar, in the unit of the positions.
      axis_label: of the axis of positions.
      colour: FIRST, SECOND or THIRD.
      counts: heights are whole numbers.
    """
    figure, axes = _new_figure(5.6, 2.7)
    axes.bar(positions, heights, width=0.92 * width, color=colour, linewidth=0)
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.set_xlabel(axis_label, color=MUTED, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=not counts, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(integer=counts, nbins=6))
    tidy_axes(axes)
    return _replaceable(inline_svg(figure, identifier, text_as_paths=False), _LINE_COLOURS)


class Points(NamedTuple):
    """Points of a scatter plot that look the same."""

    name: str
    kind: str  # of a second distinction, which the marker's shape tells
    coordinates: Sequence[tuple[float, float]]
    colour: str


def scatter_chart(identifier: str, groups: Sequence[Points], labels: tuple[str, str], *, percent: bool = False) -> str:
    """Points in a plane as an inline SVG element; empty text if there is none.

    Args:
      identifier: distinguishes the elements of one page.
      groups: a colour a name and a marker's shape a kind; both get a legend where there are several.
      labels: of the two axes.
      percent: heights are parts of one.
    """
    if not any(group.coordinates for group in groups):
        return ""
    figure, axes = _new_figure(11.4, 3.4)
    shapes = {kind: _MARKERS[index % len(_MARKERS)] for index, kind in enumerate({g.kind: None for g in groups})}
    style: dict[str, Any] = {"linestyle": "", "markersize": 6.5, "markeredgewidth": 0}
    for group in groups:
        horizontal, vertical = zip(*group.coordinates, strict=True)
        axes.plot(horizontal, vertical, marker=shapes[group.kind], color=group.colour, alpha=0.8, **style)
    colours = {group.name: group.colour for group in groups}
    entries = [(name, Line2D([], [], color=colour, marker="o", **style)) for name, colour in colours.items()]
    entries = entries if len(entries) > 1 else []
    if len(shapes) > 1:
        entries += [(kind, Line2D([], [], color=MUTED, marker=shape, **style)) for kind, shape in shapes.items()]
    if entries:
        legend(figure, entries, columns=8, labelcolor=INK, columnspacing=1.2, handletextpad=0.2)
    axes.set_xlabel(labels[0], color=MUTED, fontsize=9)
    axes.set_ylabel(labels[1], color=MUTED, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    tidy_axes(axes)
    return _replaceable(inline_svg(figure, identifier, text_as_paths=False), _LINE_COLOURS)


def legend(figure: Figure, entries: Sequence[tuple[str, Artist]], *, columns: int, **style: Any) -> Legend:
    """A legend above the axes, which makes the figure higher if it needs more than two rows.

    Names come afterwards: matplotlib leaves out entries whose names begin with `_`.
    """
    names = [label(name) for name, _ in entries]
    longest = max(map(len, names))
    columns = max(1, min(columns, len(entries), int(figure.get_figwidth() / (0.5 + _LETTER * longest))))
    rows = math.ceil(len(entries) / columns)
    figure.set_figheight(figure.get_figheight() + _ROW * max(0, rows - 2))
    settings = {"frameon": False, "fontsize": 9, "handlelength": 1.6} | style
    handles = [artist for _, artist in entries]
    found = figure.legend(handles, ["x"] * len(names), loc="outside upper left", ncols=columns, **settings)
    for text, name in zip(found.get_texts(), names, strict=True):
        text.set_text(name)
    return found


def drawable(value: float | None) -> float | None:
    """None for what has no place on an axis: what is missing, not finite or as good as that."""
    return value if value is not None and abs(value) < _GREATEST else None


def _new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), facecolor="none", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot(facecolor="none")


def tidy_axes(axes: Axes) -> None:
    """A grid of heights and no frame."""
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, length=0, pad=5)
    for axis in (axes.xaxis, axes.yaxis):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, ScalarFormatter):
            formatter.set_useOffset(False)  # 1.0985, not 0.0005 below a +1.098 that one overlooks


def inline_svg(figure: Figure, identifier: str, text_as_paths: bool = True) -> str:
    """A figure as an SVG element for a page: fluid width, unique ids, the page's colours and, for text, its font."""
    svg = figure_to_svg(figure, identifier, text_as_paths)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # the page's style sheet has it
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'\bid="', f'id="{identifier}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{identifier}-", svg)
    svg = re.sub(r"""(font: [^;"]*?px) [^;"]*""", r"\1 system-ui, sans-serif", svg)
    svg = _replaceable(svg, _PAGE_COLOURS)
    width, height = figure.get_size_inches()
    return svg.replace("<svg", f'<svg role="img" class="chart" style="aspect-ratio: {width:.3f} / {height:.3f}"', 1)


def _replaceable(svg: str, variables: Mapping[str, str]) -> str:
    for colour, variable in variables.items():
        svg = svg.replace(f": {colour}", f": var(--{variable}, {colour})")
    return svg


def heat_map(strengths: np.ndarray, low: float, high: float) -> str:
    """A PNG data URL with a pixel for each of float[operations, epochs], coloured from `low` to `high`."""
    colours = matplotlib.colormaps[COLOUR_MAP].with_extremes(bad="#8c959f")
    scaled = (np.ma.masked_invalid(strengths) - low) / max(high - low, 1e-12)
    buffer = io.BytesIO()
    imsave(buffer, colours(scaled, bytes=True), format="png", metadata={"Software": "jaxdarts"})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def colour_gradient() -> str:
    """The colour map as a CSS gradient from left to right."""
    stops = [matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps[COLOUR_MAP](np.linspace(0, 1, 9))]
    return f"linear-gradient(to right, {', '.join(stops)})"
