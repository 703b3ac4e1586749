"""What does the report say about the end of a search: its verdicts, discretisation, spectrum and candidates?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST, SECOND
from jaxdarts.reports.graphs import CELL_NAMES
from jaxdarts.reports.page import card, number, quantity, table
from jaxdarts.reports.run_record import RunRecord, complete_diagnostics
from jaxdarts.runs.events import STOP, describe
from jaxdarts.spaces import genotype_from_json


def verdict_sentences(run: RunRecord) -> Iterator[str]:
    """A sentence for each verdict, one more where going back left a by-product, and how random search selected."""
    for event in run.events:
        yield describe(event)
    if run.events and run.events[0]["action"] != STOP:
        skips = genotype_from_json(run.events[0]["genotype"]).count("skip_connect")
        yield (
            f"Early stopping would have returned the genotype of epoch {run.events[0]['epoch']}, with "
            f"{' and '.join(map(str, skips.values()))} skip connections (it is in events.json)."
        )
    candidates = (run.diagnostics or {}).get("candidates")
    if candidates:
        score = candidates[0].get("accuracy")
        yield (
            f"The genotype returned is the best of {len(candidates)} finalists among random architectures: with the "
            f"shared weights its validation accuracy is {'not known' if score is None else f'{score:.1%}'}."
        )


def ending(run: RunRecord) -> str:
    """Cards about the end of the search; empty text where nothing is known.

    Raises:
      InputError: a field of diagnostics.json is missing.
    """
    found = complete_diagnostics(run)
    if found is None:
        return ""
    note = "Parameter-free: skip connections, poolings and noise."
    cards = [card("The genotype", _operations(found["operations"]), note)]
    if found["discretisation"]:
        cards.append(card("Discretisation without retraining", *_discretisation(found["discretisation"])))
    if found.get("candidates"):
        cards.append(card("Finalists of the random search", _candidates(found["candidates"])))
    if found["eigenvalues"]:
        cards += _spectrum(found["eigenvalues"])
    return f'<h2>End of the search</h2><div class="pair">{"".join(cards)}</div>'


def _operations(counts: dict[str, Any]) -> str:
    cells = list(counts["all"])
    rows = [
        [name, *(f"{counts[key][cell]} of {counts['all'][cell]}" for cell in cells)]
        for key, name in (("skip_connect", "Skip connections"), ("parameter_free", "Parameter-free operations"))
    ]
    return table(["", *(CELL_NAMES[cell] for cell in cells)], rows)


def _discretisation(found: dict[str, Any]) -> tuple[str, str]:
    rows = [
        [name, quantity("accuracy", found[key]["accuracy"]), quantity("loss", found[key]["loss"])]
        for key, name in (("relaxed", "Mixing weights from alpha"), ("one_hot", "Only the genotype's operations"))
    ]
    change = found["accuracy_change"]
    points = "an unknown number of" if change is None else f"{100 * change:+.1f}"
    note = (
        f"The supernet's accuracy on the validation half changes by {points} points when alpha is replaced by the "
        "genotype and nothing is trained again."
    )
    return table(["", "Validation accuracy", "Validation loss"], rows), note


def _candidates(candidates: list[dict[str, Any]]) -> str:
    rows = []
    for rank, candidate in enumerate(candidates, start=1):
        skips = genotype_from_json(candidate["genotype"]).count("skip_connect")
        rows.append([str(rank), quantity("accuracy", candidate["accuracy"]), *map(str, skips.values())])
    return table(["Rank", "Validation accuracy", *(f"Skips, {CELL_NAMES[cell].lower()}" for cell in skips)], rows)


def _spectrum(found: dict[str, Any]) -> Iterator[str]:
    values = np.array([value for value in found["values"] if value is not None])
    residuals = [value for value in found["residuals"] if value is not None]
    if not len(values) or not residuals:
        return
    ranks = np.arange(1, len(values) + 1)
    which = "All" if len(values) == found["of"] else f"The {len(values)} largest by magnitude of {found['of']}"
    residual = max(residuals)
    exact = "exact up to rounding" if residual < 1e-5 * np.abs(values[0]) else f"known to {number(residual)} or better"
    yield card(
        "Eigenvalues of the alpha-Hessian",
        charts.bar_chart("spectrum", ranks, values, 0.8, "rank by magnitude", FIRST),
        f"{which} eigenvalues at the end of the epoch returned, {exact}.",
    )
    counts, edges = np.histogram(values, bins=max(6, min(20, len(values))))
    yield card(
        "Their distribution",
        charts.bar_chart(
            "distribution", (edges[:-1] + edges[1:]) / 2, counts, edges[1] - edges[0], "eigenvalue", SECOND, counts=True
        ),
        "How many of them lie where.",
    )
