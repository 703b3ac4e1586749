"""What happened in a run, on one page that needs nothing else?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.runs import charts
from jaxdarts.runs.charts import FIRST, SECOND, THIRD, Line
from jaxdarts.runs.draw import CELL_NAMES, draw_cells, operation_colour, state_name
from jaxdarts.runs.ending import ending, verdict_sentences
from jaxdarts.runs.events import STOP
from jaxdarts.runs.files import write_atomically
from jaxdarts.runs.folder import one_line_errors
from jaxdarts.runs.page import card, escape, number, table
from jaxdarts.runs.record import RunRecord, read_run
from jaxdarts.spaces import CELL_TYPES

REPORT_FILE = "report.html"
# (key, name, which end is better, if one is); accuracies are shown in percent
_QUANTITIES = (
    ("train_loss", "Training loss", min),
    ("train_accuracy", "Training accuracy", max),
    ("alpha_loss", "Outer objective", min),
    ("valid_loss", "Validation loss", min),
    ("valid_accuracy", "Validation accuracy", max),
    ("dominant_eigenvalue", "Dominant eigenvalue", None),
    ("local_average", "Local average of it", None),
    ("largest_magnitude_eigenvalue", "Eigenvalue of largest magnitude", None),
    ("smallest_eigenvalue", "Smallest eigenvalue", None),
    ("hypergradient_norm", "Hypergradient norm", None),
    ("skip_normal", "Skip connections, normal", None),
    ("skip_reduce", "Skip connections, reduction", None),
    ("learning_rate", "Learning rate", None),
    ("l2", "L2 factor", None),
    ("drop_path", "Drop-path probability", None),
    ("seconds", "Seconds", None),
)


def write_report(run_dir: str | Path) -> Path:
    """Writes `report.html` from a run's config.json, metrics.jsonl and, if it has ended, genotype.json.

    The page loads nothing: pictures are inline. An unfinished run is reported as such, with its newest genotype.
    The file is replaced as a whole. Takes one to three seconds.

    Returns:
      The path of the page.

    Raises:
      InputError: not the folder of a run, no epoch has ended yet, or a file in it cannot be read.
      RunError: the page cannot be written.
    """
    path = Path(run_dir) / REPORT_FILE
    page = _render(read_run(Path(run_dir)))
    with one_line_errors("write", path):
        write_atomically(path, page)
    return path


def _render(run: RunRecord) -> str:
    cells = draw_cells(run.genotype)
    heading = f"Search in {run.config.get('space', run.space.name)} on {run.config.get('dataset', 'unknown data')}"
    parts = {
        "title": escape(f"{heading} ({run.name})"),
        "heading": escape(heading),
        "subheading": escape(f"Run {run.name}"),
        "facts": _facts(run),
        "state": "" if run.finished else "unfinished",
        "outcome": escape(" ".join(_outcome(run))),
        "cells_heading": "Found cells" if run.finished else f"Cells after epoch {run.epochs[-1]}",
        "cells": charts.inline_svg(cells, "cells"),
        "cells_width": f"{cells.get_figwidth() * 100:.0f}",
        "charts": _charts(run),
        "ending": ending(run),
        "gradient": charts.colour_gradient(),
        "strengths": "".join(_strengths(run, cell_type) for cell_type in CELL_TYPES),
        "genotype": escape(run.genotype.to_text()),
        "table": _summary_table(run),
        "epoch_table": _epoch_table(run),
        "settings": _settings(run),
    }
    template = resources.files("jaxdarts.runs").joinpath("report_template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _facts(run: RunRecord) -> str:
    versions = run.config.get("versions") or {}
    seconds = [value for value in run.values("seconds") if value is not None]
    facts = {
        "Search space": run.config.get("space", run.space.name),
        "Data set": run.config.get("dataset"),
        "Method": run.config.get("method"),
        "Hypergradient": run.config.get("hypergradient") if run.learns_alpha else "none",
        "Seed": run.config.get("seed"),
        "Epochs": f"{len(run.epochs)} of {run.config.get('epochs', len(run.epochs))}",
        "Time": _duration(sum(seconds)) if seconds else None,
        "Device": run.config.get("device"),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    shown = {name: "not recorded" if value in (None, "") else value for name, value in facts.items()}
    return "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in shown.items())


def _outcome(run: RunRecord) -> Iterable[str]:
    """A few sentences that say how the run ended."""
    planned = run.config.get("epochs", len(run.epochs))
    if not run.finished:
        yield f"This run has not finished: {len(run.epochs)} of {planned} epochs are done."
    elif len(run.epochs) < planned and not run.events:
        yield f"The search stopped after {len(run.epochs)} of {planned} epochs."
    yield from verdict_sentences(run)
    accuracy = {
        epoch: value for epoch, value in zip(run.epochs, run.values("valid_accuracy"), strict=True) if value is not None
    }
    if accuracy:
        last, best = max(accuracy), max(accuracy, key=lambda epoch: accuracy[epoch])
        note = ", the best of all epochs" if best == last else f" (best: {accuracy[best]:.1%}, epoch {best})"
        note = note if len(accuracy) > 1 else ""
        of = "" if run.learns_alpha else ", restricted to the architecture drawn last,"
        yield f"The supernet's validation accuracy{of} after epoch {last} is {accuracy[last]:.1%}{note}."
    skips, total = run.genotype.count("skip_connect"), 2 * run.genotype.num_nodes
    yield (
        f"Skip connections: {skips['normal']} of {total} operations in the normal cell, "
        f"{skips['reduce']} of {total} in the reduction cell."
    )
    average = [value for value in run.values("local_average") if value is not None]
    if average:
        ratio = f" ({average[-1] / average[0]:.2f} times)" if average[0] > 0 else ""
        yield (
            f"The dominant eigenvalue's local average went from {number(average[0])} to {number(average[-1])}{ratio}."
        )
    stopped = bool(run.events) and run.events[-1]["action"] == STOP
    if stopped or (run.diagnostics or {}).get("candidates"):  # said above
        return
    chosen = run.genotype_epochs()
    if run.finished and chosen and chosen[-1] != run.epochs[-1]:
        yield f"The genotype returned is that of epoch {chosen[-1]}, not of the last epoch."
    elif chosen and len(run.epochs) > 1:
        since = next((epoch for epoch in reversed(run.epochs) if epoch not in chosen), None)
        if since is None:
            yield "The genotype was the same after every epoch."
        else:
            yield f"The genotype last changed in epoch {min(epoch for epoch in chosen if epoch > since)}."


def _charts(run: RunRecord) -> str:
    def line(key: str, name: str, colour: str, faint: bool = False, stepped: bool = False) -> Line:
        return Line(name, run.values(key), colour, faint, stepped)

    losses = [
        line("train_loss", "training", FIRST),
        line("alpha_loss", "outer objective, training mode", THIRD),
        line("valid_loss", "validation", SECOND),
    ]
    accuracies = [line("train_accuracy", "training", FIRST), line("valid_accuracy", "validation", SECOND)]
    eigenvalues = [
        line("dominant_eigenvalue", "dominant eigenvalue", FIRST, faint=True),
        line("local_average", "its local average", FIRST),
        line("smallest_eigenvalue", "smallest eigenvalue", SECOND, faint=True),
    ]
    for event in run.events:
        abandoned = {entry["epoch"]: entry["dominant_eigenvalue"] for entry in event.get("abandoned", ())}
        values = [abandoned.get(epoch) for epoch in run.epochs]
        eigenvalues.append(Line(f"given up, L2 {event.get('l2_before')}", values, THIRD, faint=True))
    skips = [
        line("skip_normal", "normal cell", FIRST, stepped=True),
        line("skip_reduce", "reduction cell", SECOND, stepped=True),
    ]
    norms = [line("hypergradient_norm", "norm", FIRST)]
    epochs = run.epochs
    marks = [(event["decided_at"], "stopped") for event in run.events if event["action"] == STOP]
    marks += [(event["epoch"], f"L2 to {event['l2']:g}") for event in run.events if event["action"] != STOP]
    wide = card(
        "Curvature of the validation loss in alpha",
        charts.line_chart("eigenvalues", epochs, eigenvalues, width=11.4, zero_line=True, marks=marks),
        "Ends of the Hessian's spectrum; the local average is the centred mean of "
        f"{2 * run.rule.reach + 1} measurements. A dominant "
        "eigenvalue that keeps growing goes with architectures that generalise worse (Zela et al. 2020).",
    )
    pairs = [
        card("Losses", charts.line_chart("losses", epochs, losses)),
        card("Accuracies", charts.line_chart("accuracies", epochs, accuracies, percent=True)),
        card(
            f"Skip connections in the {'genotype' if run.learns_alpha else 'architecture drawn last'}",
            charts.line_chart("skips", epochs, skips, counts_up_to=2 * run.space.num_nodes),
        ),
        card("Hypergradient norm", charts.line_chart("norms", epochs, norms)),
    ]
    return f'<div class="wide">{wide}</div><div class="pair">{"".join(pairs)}</div>'


def _strengths(run: RunRecord, cell_type: str) -> str:
    """A heat map for every edge of a cell, in one colour scale."""
    candidates = run.space.operations(cell_type)
    counts = [len(operations) for operations in candidates]
    try:
        by_epoch = [
            charts.operation_strengths((entry.get("alpha") or {}).get(cell_type), counts) for entry in run.metrics
        ]
    except (ValueError, IndexError, TypeError) as error:
        raise InputError(f"metrics: alpha[{cell_type!r}] does not fit space {run.space.name!r}: {error}") from error
    maps = [np.stack([strengths[edge] for strengths in by_epoch], axis=1) for edge in range(len(candidates))]
    everything = np.concatenate([strengths.ravel() for strengths in maps])
    if not np.isfinite(everything).any():
        return f'<h3>{CELL_NAMES[cell_type]}</h3><p class="muted">No strengths were recorded.</p>'
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    digits = 3 if high - low > 0.05 else 5  # in a short search alpha hardly moves
    chosen = {(index // 2, source): name for index, (name, source) in enumerate(run.genotype.edges(cell_type))}
    cards = []
    for edge, operations, strengths in zip(run.space.edges, candidates, maps, strict=True):
        title = f"node {edge[0]} \N{LEFTWARDS ARROW} {state_name(edge[1])}"
        names = "<br>".join(
            f'<span class="swatch" style="background:{operation_colour(name)}"></span>'
            + (f"<b>{escape(name)}</b>" if chosen.get(edge) == name else escape(name))
            for name in operations
        )
        numbers = "<br>".join("" if np.isnan(value) else f"{value:.{digits}f}" for value in strengths[:, -1])
        image = charts.heat_map(strengths, low, high)
        label = f"strengths of {', '.join(operations)} over epochs"
        cards.append(
            f'<div class="card edge{" chosen" if edge in chosen else ""}"><h4>{title}</h4><div class="map">'
            f'<div>{names}</div><div class="image"><img alt="{escape(label)}" src="{image}"></div>'
            f'<div class="number">{numbers}</div></div></div>'
        )
    note = (
        f"Softmax of alpha over an edge's candidates, from epoch {run.epochs[0]} (left) to {run.epochs[-1]} (right, "
        "with its value). Outlined: edges in the genotype, their operation in bold."
    )
    return (
        f'<h3>{CELL_NAMES[cell_type]}</h3><div class="scale small"><span>{low:.{digits}f}</span><i></i>'
        f'<span>{high:.{digits}f}</span><span class="muted">{note}</span></div>'
        f'<div class="edges">{"".join(cards)}</div>'
    )


def _summary_table(run: RunRecord) -> str:
    rows = []
    for key, name, best_of in _QUANTITIES:
        known = [(value, epoch) for value, epoch in zip(run.values(key), run.epochs, strict=True) if value is not None]
        if not known:
            continue
        best = best_of(known) if best_of else None
        values = [known[0][0], known[-1][0], *((min(known)[0], max(known)[0]) if len(run.epochs) > 1 else (None, None))]
        rows.append([name, *(_quantity(key, value) for value in values), str(best[1]) if best else ""])
    return table(["", "First", "Last", "Least", "Greatest", "Best in epoch"], rows)


def _epoch_table(run: RunRecord) -> str:
    kept = [(key, name) for key, name, _ in _QUANTITIES if any(value is not None for value in run.values(key))]
    columns = [[_quantity(key, value) for value in run.values(key)] for key, _ in kept]
    rows = [[str(epoch), *row] for epoch, row in zip(run.epochs, zip(*columns, strict=True), strict=True)]
    return table(["Epoch", *(name for _, name in kept)], rows)


def _settings(run: RunRecord) -> str:
    hidden = ("versions", "device", "search_space")  # in the header, and shown edge by edge
    entries = [(name, value) for name, value in run.config.items() if name not in hidden]
    texts = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in entries]
    return "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in texts)


def _quantity(key: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if key.endswith("accuracy") else number(value)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
