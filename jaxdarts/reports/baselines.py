"""How are the curves of searches that only query a table shown?"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxdarts.json_files import write_atomically
from jaxdarts.nasbench201.baselines import Curve
from jaxdarts.reports.charts import legend
from jaxdarts.reports.draw import figure_to_svg


def write_curves(curves: Mapping[str, Curve], folder: str | Path, title: str, best: float) -> list[Path]:
    """Writes `baselines.csv`, a row for each baseline and query, and `baselines.svg`. Returns their paths."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["baseline", "queries", *Curve._fields])
    writer.writerows(_rows(curves))
    write_atomically(path / "baselines.csv", text.getvalue())
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    entries: list[tuple[str, Artist]] = []
    for name, curve in curves.items():
        queries = np.arange(1, len(curve.mean) + 1)
        (line,) = axes.plot(queries, curve.mean, linewidth=2)
        entries.append((name, line))
        axes.fill_between(queries, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    entries.append(("best cell", axes.axhline(best, color="#59636e", linewidth=0.8, linestyle=(0, (4, 3)))))
    lowest = min(float(curve.low[min(9, len(curve.low) - 1)]) for curve in curves.values())
    axes.set(
        xlabel="cells queried", ylabel="test accuracy, %", title=title, ylim=(lowest, best + 0.05 * (best - lowest))
    )
    legend(figure, entries, columns=4)
    write_atomically(path / "baselines.svg", figure_to_svg(figure, "baselines"))
    return [path / "baselines.csv", path / "baselines.svg"]


def _rows(curves: Mapping[str, Curve]) -> Iterator[list[object]]:
    for name, curve in curves.items():
        for query, values in enumerate(zip(*curve, strict=True), start=1):
            yield [name, query, *(f"{value:.4f}" for value in values)]
