"""How does a hypergradient's error depend on the radius? The figure of hypergradient.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def places(rows: Sequence[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by their values of the names, in order."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(tuple(row[name] for name in names), []).append(row)
    return grouped


def draw_figure(errors: Sequence[dict[str, Any]], path: Path) -> None:
    """Error of the whole hypergradient against radius, a panel for each space and number of steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = places(errors, "space", "train_steps")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1 + 4.2 * len(panels), 4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, ((space, steps), rows) in zip(axes[0], panels.items(), strict=True):
        sizes = sorted({row["batch_size"] for row in rows})
        for (batch_size, precision), line in places(rows, "batch_size", "precision").items():
            # Light to dark with the batch; one hue, as the batch size is an ordered quantity.
            colour = plt.get_cmap("viridis")(0.8 * (1 - sizes.index(batch_size) / max(len(sizes) - 1, 1)))
            style = {"linestyle": "-" if precision == "float64" else "--"}
            swept = [row for row in line if row["radius"] is not None]
            radii = [row["radius"] for row in swept]
            style |= {"color": colour, "label": f"difference, batch {batch_size}, {precision}"}
            axis.plot(radii, [row["error"] for row in swept], marker="o", markersize=3, **style)
            if precision == "float64":
                low, high = zip(*(row["error_range"] for row in swept), strict=True)
                axis.fill_between(radii, low, high, color=colour, alpha=0.15, linewidth=0)
        for precision, line in places([row for row in rows if row["radius"] is None], "precision").items():
            if precision[0] != "float64":  # which is the truth
                worst = max(row["error"] for row in line)
                axis.axhline(
                    worst, color="black", linestyle="--", linewidth=1, label=f"exact, all batches, {precision[0]}"
                )
        axis.axhline(1, color="grey", linestyle=":", linewidth=1, label="as far off as zero")
        axis.set(xscale="log", yscale="log", xlabel="radius R", title=f"{space}, after {steps} steps")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("relative error of the hypergradient")
    handles, labels = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
