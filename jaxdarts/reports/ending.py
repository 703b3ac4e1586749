"""What does the report say about the end of a search: its verdicts, discretisation, spectrum and candidates?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST, SECOND
from jaxdarts.reports.counts import count_headings, count_phrase, count_table, count_texts
from jaxdarts.reports.measure import Measure
from jaxdarts.reports.page import card, number, quantity, table
from jaxdarts.reports.run_record import RunRecord, complete_diagnostics
from jaxdarts.runs.events import STOP, describe
from jaxdarts.spaces import genotype_from_json


def verdict_sentences(run: RunRecord) -> Iterator[str]:
    """A sentence for each verdict, one more where going back left a by-product, and how random search selected."""
    for event in run.events:
        yield describe(event)
    first = next((event for event in run.events if "genotype" in event), None)
    if first is not None and first["action"] != STOP:
        counted = count_phrase(genotype_from_json(first["genotype"]))
        yield (
            f"Early stopping would have returned the genotype of epoch {first['epoch']}, with {counted} (it is "
            "in events.json)."
        )
    candidates = (run.diagnostics or {}).get("candidates")
    if candidates:
        measure = run.measure
        score = candidates[0].get(measure.objective)
        yield (
            f"The genotype returned is the best of {len(candidates)} finalists among random architectures: with the "
            f"shared weights its validation {measure.objective} is "
            f"{'not known' if score is None else measure.rounded(score)}."
        )


def ending(run: RunRecord) -> str:
    """Cards about the end of the search; empty text where nothing is known.

    Raises:
      InputError: a field of diagnostics.json is missing.
    """
    found = complete_diagnostics(run)
    if found is None:
        return ""
    header, rows, note = count_table(run.genotype, found["operations"])
    cards = [card("The genotype", table(header, rows), note)]
    if found["discretisation"]:
        shown = _discretisation(found["discretisation"], run.measure)
        cards.append(card("Discretisation without retraining", *shown))
    if found.get("candidates"):
        cards.append(card("Finalists of the random search", _candidates(found["candidates"], run.measure)))
    if found["eigenvalues"]:
        cards += _spectrum(found["eigenvalues"])
    return f'<h2>End of the search</h2><div class="pair">{"".join(cards)}</div>'


def _discretisation(found: Mapping[str, Any], measure: Measure) -> tuple[str, str]:
    objective = measure.objective
    rows = [
        [name, measure.text(found[key][objective]), quantity("loss", found[key]["loss"])]
        for key, name in (("relaxed", "Mixing weights from alpha"), ("one_hot", "Only the genotype's operations"))
    ]
    change = measure.change(found[f"{objective}_change"])
    note = (
        f"The supernet's {objective} on {measure.words.valid} changes by {change} when alpha is replaced by the "
        "genotype and nothing is trained again."
    )
    return table(["", f"Validation {objective}", "Validation loss"], rows), note


def _candidates(candidates: list[dict[str, Any]], measure: Measure) -> str:
    rows = []
    for rank, candidate in enumerate(candidates, start=1):
        genotype = genotype_from_json(candidate["genotype"])
        rows.append([str(rank), measure.text(candidate[measure.objective]), *count_texts(genotype)])
    return table(["Rank", f"Validation {measure.objective}", *count_headings(genotype)], rows)


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
