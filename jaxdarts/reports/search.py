"""What happened in a search, on one page?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxdarts.methods import METHODS
from jaxdarts.methods.parts import describe_parts
from jaxdarts.methods.perturbation import PROJECTION, SAYS
from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST, SECOND, THIRD, Line
from jaxdarts.reports.counts import COUNT_QUANTITIES, count_lines, count_sentence
from jaxdarts.reports.ending import ending, verdict_sentences
from jaxdarts.reports.graphs import CELL_NAMES
from jaxdarts.reports.heat_maps import edge_maps, operation_maps
from jaxdarts.reports.measure import Measure, plural
from jaxdarts.reports.nasbench201 import BENCHMARK_QUANTITIES, benchmark_cards, benchmark_sentences
from jaxdarts.reports.page import Quantities, card, line_card, number, render_page, time_text, versions_text
from jaxdarts.reports.projection import tournaments
from jaxdarts.reports.run_record import RunRecord
from jaxdarts.runs.events import ROLL_BACK, STOP

# Schedules of single methods, by their names in a record.
DRAWS = {name: heading for entry in METHODS.values() for name, heading in entry.draws.items()}
_OTHERS: Quantities = (
    ("dominant_eigenvalue", "Dominant eigenvalue", None),
    ("local_average", "Local average of it", None),
    ("largest_magnitude_eigenvalue", "Eigenvalue of largest magnitude", None),
    ("smallest_eigenvalue", "Smallest eigenvalue", None),
    ("hypergradient_norm", "Hypergradient norm", None),
    *((name, heading, None) for name, heading in COUNT_QUANTITIES),
    ("learning_rate", "Learning rate", None),
    ("l2", "L2 factor", None),
    ("drop_path", "Drop-path probability", None),
    ("beta_weight", "Weight of Beta-Decay", None),
    ("temperature", "Temperature", None),
    *((name, heading, None) for name, heading in DRAWS.items()),
    ("spread_normal", "Spread of strengths, normal", None),
    ("spread_reduce", "Spread of strengths, reduction", None),
    ("spread_cell", "Spread of strengths", None),
    ("spread_recurrent", "Spread of strengths", None),
    ("entropy_normal", "Entropy of operation weights, normal", None),
    ("entropy_reduce", "Entropy of operation weights, reduction", None),
    ("entropy_cell", "Entropy of operation weights", None),
    ("entropy_recurrent", "Entropy of operation weights", None),
    ("skip_share_normal", "Share of skip_connect, normal", None),
    ("skip_share_reduce", "Share of skip_connect, reduction", None),
    ("skip_share_cell", "Share of skip_connect", None),
    *BENCHMARK_QUANTITIES,
    ("seconds", "Seconds", None),
)


def search_quantities(measure: Measure) -> Quantities:
    """What is measured in a search by this measure."""
    objective = measure.objective
    measured: dict[str, tuple[str, Any]] = {
        "train_loss": ("Training loss", min),
        f"train_{objective}": (f"Training {objective}", measure.best),
        "penalty": ("Penalty of outputs", None),
        "alpha_loss": ("Outer objective", min),
        "valid_loss": ("Validation loss", min),
        f"valid_{objective}": (f"Validation {objective}", measure.best),
    }
    return [*((key, *told) for key, told in measured.items()), *_OTHERS]


def render_search(run: RunRecord) -> str:
    """The page as HTML."""
    strengths = "".join(operation_maps(run, cell_type) for cell_type in run.space.cell_types)
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
        sections=f"<h2>Search</h2>{_charts(run)}{ending(run)}{tournaments(run)}"
        f"<h2>Operation strengths</h2>{strengths}{edge_maps(run)}",
        config=run.config,
        run=run,
        quantities=search_quantities(run.measure),
    )


def how_decided(config: Mapping[str, Any]) -> Iterator[str]:
    """A sentence that says how the method of a run decides, if it is known."""
    name = config.get("method")
    if config.get("stage") == PROJECTION:
        yield f"The projection returns {SAYS}."
    elif name in METHODS:
        yield f"{name} returns {METHODS[name].says}."


def _outcome(run: RunRecord) -> Iterable[str]:
    """A few sentences that say how the run decides and how it ended."""
    yield from how_decided(run.config)
    planned = run.config.get("epochs", len(run.epochs))
    if not run.finished:
        yield f"This run has not finished: {len(run.epochs)} of {planned} epochs are done."
    elif len(run.epochs) < planned and not run.events:
        yield f"The search stopped after {len(run.epochs)} of {planned} epochs."
    yield from verdict_sentences(run)
    measure = run.measure
    objectives = zip(run.epochs, run.values(f"valid_{measure.objective}"), strict=True)
    known = {epoch: value for epoch, value in objectives if value is not None}
    if known:
        last, best = max(known), measure.best(known, key=lambda epoch: known[epoch])
        note = ", the best of all epochs" if best == last else f" (best: {measure.rounded(known[best])}, epoch {best})"
        note = note if len(known) > 1 else ""
        of = "" if run.learns_alpha else ", restricted to the architecture drawn last,"
        value = measure.rounded(known[last])
        yield f"The supernet's validation {measure.objective}{of} after epoch {last} is {value}{note}."
    yield count_sentence(run.genotype, with_all=True)
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
    measure, (counted, counts) = run.measure, count_lines(run.space)
    objectives = {f"train_{measure.objective}": "training", f"valid_{measure.objective}": "validation"}
    most = max(len(run.genotype.edges(cell)) for cell in run.genotype.cell_types)
    cards = [
        line_card("Losses", "losses", run, losses, colours=(FIRST, THIRD, SECOND)),
        *_objectives(run, objectives),
        line_card(
            f"{counted} in the {'genotype' if run.learns_alpha else 'architecture drawn last'}",
            "skips",
            run,
            counts,
            stepped=True,
            counts_up_to=most,
        ),
        line_card("Hypergradient norm", "norms", run, {"hypergradient_norm": "norm"}),
        *_measures(run, names),
        *benchmark_cards(run),
    ]
    schedules = {"beta_weight": "Weight of Beta-Decay", "temperature": "Temperature", **DRAWS}
    for key, heading in schedules.items():
        if any(value is not None for value in run.values(key)):
            name = heading[0].lower() + heading[1:]
            cards.append(line_card(heading, key, run, {key: name}, colours=(THIRD,)))
    return f'<div class="wide">{_curvature(run)}</div><div class="pair">{"".join(cards)}</div>'


def _objectives(run: RunRecord, lines: Mapping[str, str]) -> Iterator[str]:
    """The card of the objective, where that is no loss."""
    name = plural(run.measure.objective)
    if run.measure.objective != "loss":
        yield line_card(name.capitalize(), name, run, lines, percent=run.measure.percent)


def _measures(run: RunRecord, names: Mapping[str, str]) -> Iterator[str]:
    """Cards of what operation strengths come to, with a line for each type of cell."""
    most = max(len(operations) for cell in names for operations in run.space.operations(cell))
    for measure, heading, note in (
        (
            "spread",
            "Spread of the operation strengths",
            "Standard deviation of the mixing weights on an edge, averaged over edges; 0: all operations are alike.",
        ),
        (
            "entropy",
            "Entropy of the operation weights",
            "In nats, of the mixing weights on an edge as parts of their sum, averaged over edges; "
            f"{math.log(most):.2f}: all of {most} operations are alike, 0: one has all the weight.",
        ),
        (
            "skip_share",
            "Share of skip_connect",
            "Mixing weight of skip_connect, averaged over the edges that have it among their candidates.",
        ),
    ):
        lines = {f"{measure}_{cell}": name for cell, name in names.items()}
        if any(value is not None for key in lines for value in run.values(key)):
            yield line_card(heading, measure, run, lines, note)


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
    marks += [(event["epoch"], f"L2 to {event['l2']:g}") for event in run.events if event["action"] == ROLL_BACK]
    return card(
        "Curvature of the validation loss in alpha",
        charts.line_chart("eigenvalues", run.epochs, lines, width=11.4, zero_line=True, marks=marks),
        "Ends of the Hessian's spectrum; the local average is the centred mean of "
        f"{2 * run.rule.reach + 1} measurements. A dominant "
        "eigenvalue that keeps growing goes with architectures that generalise worse (Zela et al. 2020).",
    )
