"""What happened in a search, on one page?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jaxdarts.methods.parts import describe_parts
from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST, SECOND, THIRD, Line
from jaxdarts.reports.draw import operation_colour
from jaxdarts.reports.ending import ending, verdict_sentences
from jaxdarts.reports.graphs import CELL_NAMES, state_name
from jaxdarts.reports.nasbench201 import BENCHMARK_QUANTITIES, benchmark_cards, benchmark_sentences
from jaxdarts.reports.page import Quantities, card, escape, line_card, number, render_page, time_text, versions_text
from jaxdarts.reports.run_record import RunRecord
from jaxdarts.runs.events import STOP

SEARCH_QUANTITIES: Quantities = (
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
    ("skip_cell", "Skip connections", None),
    ("learning_rate", "Learning rate", None),
    ("l2", "L2 factor", None),
    ("drop_path", "Drop-path probability", None),
    ("beta_weight", "Weight of Beta-Decay", None),
    ("temperature", "Temperature", None),
    ("spread_normal", "Spread of strengths, normal", None),
    ("spread_reduce", "Spread of strengths, reduction", None),
    ("spread_cell", "Spread of strengths", None),
    *BENCHMARK_QUANTITIES,
    ("seconds", "Seconds", None),
)


def render_search(run: RunRecord) -> str:
    """The page as HTML."""
    strengths = "".join(_strengths(run, cell_type) for cell_type in run.space.cell_types)
    return render_page(
        heading=f"Search in {run.config.get('space', run.space.name)} on {run.config.get('dataset', 'unknown data')}",
        name=run.name,
        facts={
            "Search space": run.config.get("space", run.space.name),
            "Data set": run.config.get("dataset"),
            "Method": run.config.get("method"),
            "Hypergradient": run.config.get("hypergradient") if run.learns_alpha else "none",
            **(describe_parts(run.settings) if run.learns_alpha else {}),
            "Seed": run.config.get("seed"),
            "Epochs": f"{len(run.epochs)} of {run.config.get('epochs', len(run.epochs))}",
            "Time": time_text(run.values("seconds")),
            "Device": run.config.get("device"),
            "Versions": versions_text(run.config),
        },
        outcome=" ".join(_outcome(run)),
        finished=run.finished,
        cells_heading="Found cells" if run.finished else f"Cells after epoch {run.epochs[-1]}",
        genotype=run.genotype,
        sections=f"<h2>Search</h2>{_charts(run)}{ending(run)}<h2>Operation strengths</h2>{strengths}",
        config=run.config,
        run=run,
        quantities=SEARCH_QUANTITIES,
    )


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
    skips = run.genotype.count("skip_connect")
    counts = [
        f"{count} of {len(run.genotype.edges(cell))} operations in the {CELL_NAMES[cell].lower()}"
        for cell, count in skips.items()
    ]
    yield f"Skip connections: {', '.join(counts)}."
    yield from benchmark_sentences(run)
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
    names = {cell: CELL_NAMES[cell].lower() for cell in run.space.cell_types}
    losses = {"train_loss": "training", "alpha_loss": "outer objective, training mode", "valid_loss": "validation"}
    accuracies = {"train_accuracy": "training", "valid_accuracy": "validation"}
    note = "Standard deviation of the mixing weights on an edge, averaged over edges; 0: all operations are alike."
    most = max(len(run.genotype.edges(cell)) for cell in run.genotype.cell_types)
    pairs = [
        line_card("Losses", "losses", run, losses, colours=(FIRST, THIRD, SECOND)),
        line_card("Accuracies", "accuracies", run, accuracies, percent=True),
        line_card(
            f"Skip connections in the {'genotype' if run.learns_alpha else 'architecture drawn last'}",
            "skips",
            run,
            {f"skip_{cell}": name for cell, name in names.items()},
            stepped=True,
            counts_up_to=most,
        ),
        line_card("Hypergradient norm", "norms", run, {"hypergradient_norm": "norm"}),
        line_card(
            "Spread of the operation strengths",
            "spread",
            run,
            {f"spread_{cell}": name for cell, name in names.items()},
            note,
        ),
        *benchmark_cards(run),
    ]
    for key, heading, name in (
        ("beta_weight", "Weight of Beta-Decay", "weight"),
        ("temperature", "Temperature", "temperature"),
    ):
        if any(value is not None for value in run.values(key)):
            pairs.append(line_card(heading, key, run, {key: name}, colours=(THIRD,)))
    return f'<div class="wide">{_curvature(run)}</div><div class="pair">{"".join(pairs)}</div>'


def _curvature(run: RunRecord) -> str:
    lines = [
        Line("dominant eigenvalue", run.values("dominant_eigenvalue"), FIRST, faint=True),
        Line("its local average", run.values("local_average"), FIRST),
        Line("smallest eigenvalue", run.values("smallest_eigenvalue"), SECOND, faint=True),
    ]
    for event in run.events:
        abandoned = {entry["epoch"]: entry["dominant_eigenvalue"] for entry in event.get("abandoned", ())}
        values = [abandoned.get(epoch) for epoch in run.epochs]
        lines.append(Line(f"given up, L2 {event.get('l2_before')}", values, THIRD, faint=True))
    marks = [(event["decided_at"], "stopped") for event in run.events if event["action"] == STOP]
    marks += [(event["epoch"], f"L2 to {event['l2']:g}") for event in run.events if event["action"] != STOP]
    return card(
        "Curvature of the validation loss in alpha",
        charts.line_chart("eigenvalues", run.epochs, lines, width=11.4, zero_line=True, marks=marks),
        "Ends of the Hessian's spectrum; the local average is the centred mean of "
        f"{2 * run.rule.reach + 1} measurements. A dominant "
        "eigenvalue that keeps growing goes with architectures that generalise worse (Zela et al. 2020).",
    )


def _strengths(run: RunRecord, cell_type: str) -> str:
    """A heat map for every edge of a cell, in one colour scale."""
    candidates = run.space.operations(cell_type)
    by_epoch = run.strengths(cell_type)
    maps = [np.stack([strengths[edge] for strengths in by_epoch], axis=1) for edge in range(len(candidates))]
    everything = np.concatenate([strengths.ravel() for strengths in maps])
    if not np.isfinite(everything).any():
        return f'<h3>{CELL_NAMES[cell_type]}</h3><p class="muted">No strengths were recorded.</p>'
    low, high = float(np.nanmin(everything)), float(np.nanmax(everything))
    digits = 3 if high - low > 0.05 else 5  # in a short search alpha hardly moves
    edges = zip(run.genotype.nodes(cell_type), run.genotype.edges(cell_type), strict=True)
    chosen = {(node, source): name for node, (name, source) in edges}
    cards = []
    for edge, operations, strengths in zip(run.space.edges, candidates, maps, strict=True):
        inputs = run.space.num_inputs
        title = f"{state_name(edge[0] + inputs, inputs)} \N{LEFTWARDS ARROW} {state_name(edge[1], inputs)}"
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
    divided = "alpha / temperature" if run.is_tempered else "alpha"
    note = (
        f"Softmax of {divided} over an edge's candidates, from epoch {run.epochs[0]} (left) to {run.epochs[-1]} "
        "(right, with its value). Outlined: edges in the genotype, their operation in bold."
    )
    return (
        f'<h3>{CELL_NAMES[cell_type]}</h3><div class="scale small"><span>{low:.{digits}f}</span><i></i>'
        f'<span>{high:.{digits}f}</span><span class="muted">{note}</span></div>'
        f'<div class="edges">{"".join(cards)}</div>'
    )
