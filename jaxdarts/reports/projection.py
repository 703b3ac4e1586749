"""How was a supernet made discrete, edge by edge, in a selection by perturbation?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxdarts.methods.perturbation import PROJECTION
from jaxdarts.reports.graphs import CELL_NAMES, state_name
from jaxdarts.reports.page import card, escape, quantity, table
from jaxdarts.reports.run_record import RunRecord
from jaxdarts.spaces import genotype_from_json

_MEASURES = {"accuracy": "Accuracy without it", "loss": "Loss without it"}


def tournaments(run: RunRecord) -> str:
    """A table for every decision, in the order in which they fell; empty text where there were none."""
    cards: dict[str, list[str]] = {cell: [] for cell in run.space.cell_types}
    for record in run.metrics:
        for decision in record.get(PROJECTION) or ():
            if decision["cell"] in cards:
                heading, rows = _decision(run, decision)
                measured = [text for name, text in _MEASURES.items() if name in decision]
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
    inputs = run.space.num_inputs
    if "edge" in decision:
        node, source = run.space.edges[decision["edge"]]
        names = decision["candidates"]
        kept = [name == decision["chosen"] for name in names]
        heading = f"operation of {_edge(node, source, inputs)}"
    else:
        names = [state_name(source, inputs) for source in decision["sources"]]
        kept = [source in decision["kept"] for source in decision["sources"]]
        heading = f"edges of {state_name(decision['node'] + inputs, inputs)}"
    rows = []
    for number, name in enumerate(names):
        measured = [quantity(key, decision[key][number]) for key in _MEASURES if key in decision]
        rows.append([name, quantity("", decision["weights"][number]), *measured, "kept" if kept[number] else ""])
    return heading, rows


def _edge(node: int, source: int, inputs: int) -> str:
    return f"{state_name(node + inputs, inputs)} \N{LEFTWARDS ARROW} {state_name(source, inputs)}"


def selections(run: RunRecord) -> str:
    """What each way of selecting makes of the supernet as the search left it; empty text where that isn't known."""
    found = (run.diagnostics or {}).get("selections") or {}
    rows = []
    for name, value in found.items():
        genotype = genotype_from_json(value["genotype"])
        skips = genotype.count("skip_connect")
        rows.append(
            [
                _SELECTIONS.get(name, name),
                quantity("accuracy", value.get("accuracy")),
                quantity("loss", value.get("loss")),
                *(str(count) for count in skips.values()),
                f"{_differing(genotype, run.genotype)}",
            ]
        )
    if not rows:
        return ""
    cells = [f"Skips, {CELL_NAMES[cell].lower()}" for cell in run.genotype.cell_types]
    header = ["", "Validation accuracy", "Validation loss", *cells, "Edges that differ from the result"]
    note = (
        "Of the supernet as it was before the first decision, with only the genotype's operations and nothing trained "
        "again (Wang et al. 2021 compare after retraining: python -m jaxdarts.evaluate)."
    )
    return f'<div class="wide">{card("Selections", table(header, rows), note)}</div>'


_SELECTIONS = {
    "objective": "By perturbation, accuracy",
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
