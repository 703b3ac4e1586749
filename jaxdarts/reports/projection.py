"""How was a supernet made discrete, edge by edge, in a selection by perturbation?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxdarts.methods.perturbation import PROJECTION
from jaxdarts.reports.counts import count_headings, count_texts
from jaxdarts.reports.graphs import CELL_NAMES, state_name
from jaxdarts.reports.page import card, escape, quantity, table
from jaxdarts.reports.run_record import RunRecord
from jaxdarts.spaces import genotype_from_json


def tournaments(run: RunRecord) -> str:
    """A table for every decision, in the order in which they fell; empty text where there were none."""
    cards: dict[str, list[str]] = {cell: [] for cell in run.space.cell_types}
    headings = {name: f"{name.capitalize()} without it" for name in _measured(run)}
    for record in run.metrics:
        for decision in record.get(PROJECTION) or ():
            if decision["cell"] in cards:
                heading, rows = _decision(run, decision)
                measured = [text for name, text in headings.items() if name in decision]
                shown = table(["", "Weight", *measured, ""], rows)
                cards[decision["cell"]].append(card(f"Epoch {record['epoch']}: {escape(heading)}", shown))
    if not any(cards.values()):
        return ""
    note = (
        "What the supernet does on the validation part, normalised by each batch's own statistics, without each "
        "candidate; its weight is that of the moment. What it does worst without is kept."
    )
    found = f'<h2>Decisions</h2><p class="muted">{note}</p>{selections(run)}'
    for cell, own in cards.items():
        found += f'<h3>{CELL_NAMES[cell]}</h3><div class="pair">{"".join(own)}</div>' if own else ""
    return found


def _decision(run: RunRecord, decision: Mapping[str, Any]) -> tuple[str, list[list[str]]]:
    inputs, cell = run.space.num_inputs, decision["cell"]
    if "edge" in decision:
        node, source = run.space.edges[decision["edge"]]
        names = decision["candidates"]
        kept = [name == decision["chosen"] for name in names]
        heading = f"operation of {_edge(node, source, inputs, cell)}"
    else:
        names = [state_name(source, inputs, cell) for source in decision["sources"]]
        kept = [source in decision["kept"] for source in decision["sources"]]
        heading = f"edges of {state_name(decision['node'] + inputs, inputs)}"
    rows = []
    for number, name in enumerate(names):
        measured = [quantity(key, decision[key][number]) for key in _measured(run) if key in decision]
        rows.append([name, quantity("", decision["weights"][number]), *measured, "kept" if kept[number] else ""])
    return heading, rows


def _measured(run: RunRecord) -> dict[str, None]:
    """What decisions were measured by, in the order of columns; each once."""
    return dict.fromkeys((run.measure.objective, "loss"))


def _edge(node: int, source: int, inputs: int, cell: str) -> str:
    return f"{state_name(node + inputs, inputs)} \N{LEFTWARDS ARROW} {state_name(source, inputs, cell)}"


def selections(run: RunRecord) -> str:
    """What each way of selecting makes of the supernet as the search left it; empty text where that isn't known."""
    found = (run.diagnostics or {}).get("selections") or {}
    rows, measure = [], run.measure
    names = {name: text.format(measure.objective) for name, text in _SELECTIONS.items()}
    for name, value in found.items():
        genotype = genotype_from_json(value["genotype"])
        rows.append(
            [
                names.get(name, name),
                measure.text(value.get(measure.objective)),
                quantity("loss", value.get("loss")),
                *count_texts(genotype),
                f"{_differing(genotype, run.genotype)}",
            ]
        )
    if not rows:
        return ""
    header = ["", f"Validation {measure.objective}", "Validation loss", *count_headings(run.genotype)]
    header.append("Edges that differ from the result")
    note = (
        "Of the supernet as it was before the first decision, with only the genotype's operations and nothing trained "
        "again (Wang et al. 2021 compare after retraining: python -m jaxdarts.evaluate)."
    )
    return f'<div class="wide">{card("Selections", table(header, rows), note)}</div>'


_SELECTIONS = {
    "objective": "By perturbation, {}",
    "loss": "By perturbation, loss",
    "alpha": "By the largest alpha",
    "random": "At random",
}


def _differing(genotype: Any, other: Any) -> int:
    """Edges of one that the other has not, or with another operation."""
    return sum(
        len(set(zip(genotype.nodes(cell), genotype.edges(cell), strict=True)) - set(_edges(other, cell)))
        for cell in genotype.cell_types
    )


def _edges(genotype: Any, cell: str) -> Iterator[Any]:
    return zip(genotype.nodes(cell), genotype.edges(cell), strict=True)
