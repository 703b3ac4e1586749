"""How good is the cell of every epoch, by variant? The figure of nasbench201.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.runs.sweep.record import SweepRun

COLUMNS = 5
CURVE = "benchmark/cifar10/accuracy"


def draw_figure(runs: Sequence[SweepRun], path: Path) -> None:
    """A panel a variant, a line a seed: the benchmark's test accuracy on CIFAR-10 of each epoch's cell."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    finished = [run for run in runs if run.curves.get(CURVE)]
    variants = list(dict.fromkeys(run.values["variant"] for run in finished))
    columns = min(COLUMNS, len(variants))
    height = math.ceil(len(variants) / columns)
    figure, axes = plt.subplots(
        height,
        columns,
        figsize=(0.6 + 2.4 * columns, 0.4 + 1.8 * height),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    colours = plt.get_cmap("viridis")
    for axis, variant in zip(axes.flat, variants, strict=False):
        members = [run for run in finished if run.values["variant"] == variant]
        for number, run in enumerate(members):
            known = [
                (epoch, 100 * value) for epoch, value in zip(run.epochs, run.curves[CURVE], strict=True)
                if value is not None
            ]  # fmt: skip
            colour = colours(0.85 * number / max(len(members) - 1, 1))
            axis.step(*zip(*known, strict=True), where="mid", color=colour, linewidth=1.2, alpha=0.85)
        axis.set_title(variant, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(variants) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("test accuracy on CIFAR-10 by the table, %", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
