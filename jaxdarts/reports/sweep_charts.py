"""How are the runs of a sweep drawn side by side?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxdarts.reports import charts
from jaxdarts.reports.charts import COLOURS, MUTED, Line, Points, drawable, legend, tidy_axes
from jaxdarts.reports.draw import INK
from jaxdarts.reports.measure import Measure
from jaxdarts.reports.page import card, escape
from jaxdarts.reports.sweep_record import SweepRecord, SweepRun, value_text

_COLUMNS = 5  # of panels in a figure


class _Curves(NamedTuple):
    """What is drawn over the epochs, and how."""

    key: str  # of a run's curves
    panel: Callable[[SweepRun], str]  # the panel that a run belongs to
    line: Callable[[SweepRun], str]  # the name of its line
    percent: bool = False
    shared: bool = False  # panels have the same axis of values, to be compared with each other


def sweep_figures(sweep: SweepRecord) -> dict[str, Figure]:
    """What was measured over the epochs as pictures by themselves, by name, such as a paper or a README shows.

    `eigenvalues`: a panel a space and data set; `benchmark_accuracies`: a panel a variant, all with the same axis.
    """
    found = {
        "eigenvalues": _curve_figure(sweep.finished, _EIGENVALUES),
        "benchmark_accuracies": _curve_figure(sweep.finished, _ACCURACIES),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def sweep_charts(sweep: SweepRecord, correlation: Callable[[Measure], str]) -> Iterator[str]:
    """Sections of the page, of what was measured: eigenvalues, benchmark accuracies, curvature and test error.

    Args:
      correlation: a sentence about the last of these, of a task.
    """
    cards = _curve_cards(sweep.finished, _EIGENVALUES)
    if cards:
        yield f'<h2>Dominant eigenvalue</h2><div class="pair">{"".join(cards)}</div>'
    cards = _curve_cards(sweep.finished, _ACCURACIES)
    if cards:
        yield f'<h2>Benchmark accuracy of each epoch\'s cell, CIFAR-10</h2><div class="pair">{"".join(cards)}</div>'
    for number, measure in enumerate(sweep.measures):
        yield from _curvature_and_result(sweep, measure, correlation(measure), f"correlation{number or ''}")


def _curve_cards(runs: Sequence[SweepRun], curves: _Curves) -> list[str]:
    """A chart a panel that has values, a line a run, a colour and an entry in the legend for each name of lines."""
    panels = _panels(runs, curves)
    values = [value for run in runs for value in map(drawable, run.curves.get(curves.key, ())) if value is not None]
    cards = []
    for number, (heading, members) in enumerate(panels.items()):
        epochs = sorted({epoch for run in members for epoch in run.epochs})
        colours: dict[str, str] = {}
        lines = []
        for run in members:
            name = curves.line(run)
            colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
            known = dict(zip(run.epochs, run.curves[curves.key], strict=True))
            lines.append(Line(name, [known.get(epoch) for epoch in epochs], colour))
        name = f"{curves.key.replace('/', '-')}{number}"
        bounds = (min(values), max(values)) if curves.shared else None
        chart = charts.line_chart(name, epochs, lines, percent=curves.percent, bounds=bounds)
        cards.append(card(escape(heading), chart, "A line a run."))
    return cards


def _curve_figure(runs: Sequence[SweepRun], curves: _Curves) -> Figure | None:
    """As the cards, in one figure with one legend; None if there are no values."""
    panels = _panels(runs, curves)
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    height = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(0.4 + 2.5 * columns, 0.6 + 2.0 * height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(height, columns, sharex=True, sharey=curves.shared, squeeze=False)
    names = list(dict.fromkeys(curves.line(run) for members in panels.values() for run in members))
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    handles: dict[str, Line2D] = {}
    for axis, (heading, members) in zip(axes.flat, panels.items(), strict=False):
        for run in members:
            pairs = zip(run.epochs, map(drawable, run.curves[curves.key]), strict=True)
            known = [pair for pair in pairs if pair[1] is not None]
            step = "steps-mid" if curves.shared else "default"
            (drawn,) = axis.plot(
                *zip(*known, strict=True), color=colours[curves.line(run)], linewidth=1.2, drawstyle=step
            )
            handles.setdefault(curves.line(run), drawn)
        axis.set_title(heading, fontsize=9, color=INK)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        if curves.percent:
            axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        tidy_axes(axis)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9, color=MUTED)
    legend(figure, list(handles.items()), columns=2 * columns, labelcolor=INK)
    return figure


def _panels(runs: Sequence[SweepRun], curves: _Curves) -> dict[str, list[SweepRun]]:
    """The runs that have the curve, by the panel they belong to."""
    found: dict[str, list[SweepRun]] = {}
    for run in runs:
        if any(drawable(value) is not None for value in run.curves.get(curves.key, ())):
            found.setdefault(curves.panel(run), []).append(run)
    return found


def _curvature_and_result(sweep: SweepRecord, measure: Measure, correlation: str, identifier: str) -> Iterator[str]:
    """A point a run that has both, in the colour of its method (Zela et al. 2020, figure 4)."""
    result = f"test {measure.result}"
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in sweep.finished:
        names = ("dominant_eigenvalue", f"test_{measure.result}")
        eigenvalue, value = (drawable(run.value(name)) for name in names)
        if eigenvalue is not None and value is not None:
            points.setdefault((_label(run), _setting(run)), []).append((eigenvalue, value))
    labels = list(dict.fromkeys(name for name, _ in points))
    groups = [
        Points(name, setting, coordinates, COLOURS[labels.index(name) % len(COLOURS)])
        for (name, setting), coordinates in points.items()
    ]
    if groups:
        axes = ("dominant eigenvalue", result)
        chart = charts.scatter_chart(identifier, groups, axes, percent=measure.percent)
        note = f"A point a run: the last eigenvalue up to the epoch whose genotype is returned. {correlation}"
        yield f'<h2>Curvature and {result}</h2><div class="wide">{card("All runs", chart, note)}</div>'


def _setting(run: SweepRun) -> str:
    """What is searched: space and data set, where they vary."""
    setting = [value_text(run.values[field]) for field in ("space", "dataset") if field in run.values]
    return ", ".join(setting) or "All runs"


def _label(run: SweepRun) -> str:
    """How it is searched: variant, method and whatever else varies, without the seed."""
    rest = {field: value for field, value in run.values.items() if field not in ("space", "dataset", "seed")}
    texts = (value_text(value) if isinstance(value, str) else f"{field} {value_text(value)}"
             for field, value in rest.items())  # fmt: skip
    return ", ".join(texts) or "run"


def _seed(run: SweepRun) -> str:
    return f"seed {run.values['seed']}" if "seed" in run.values else "run"


_EIGENVALUES = _Curves("dominant_eigenvalue", panel=_setting, line=_label)
_ACCURACIES = _Curves("benchmark/cifar10/accuracy", panel=_label, line=_seed, percent=True, shared=True)
