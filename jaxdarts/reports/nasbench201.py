"""How is what a table of NAS-Bench-201 says about a search's cells shown?"""

from __future__ import annotations

from collections.abc import Iterator

from jaxdarts.nasbench201.benchmark import TITLES
from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST, SECOND, THIRD, Line
from jaxdarts.reports.page import Quantities, card
from jaxdarts.reports.run_record import RunRecord, returned_value
from jaxdarts.spaces.benchmark import DATA_SETS
from jaxdarts.spaces.nasbench201 import NUM_CELLS

BENCHMARK_QUANTITIES: Quantities = (
    *((f"benchmark/{name}/accuracy", f"Benchmark accuracy, {TITLES[name]}", max) for name in DATA_SETS),
    *((f"benchmark/{name}/regret", f"Regret, {TITLES[name]}", min) for name in DATA_SETS),
    *((f"benchmark/{name}/rank", f"Rank of {NUM_CELLS}, {TITLES[name]}", min) for name in DATA_SETS),
)


def benchmark_sentences(run: RunRecord) -> Iterator[str]:
    """What the table says about the genotype returned, and about the best epoch."""
    parts = []
    for name in DATA_SETS:
        accuracy, rank = (returned_value(run, f"benchmark/{name}/{quantity}") for quantity in ("accuracy", "rank"))
        if accuracy is not None and rank is not None:
            parts.append(f"{accuracy:.2%} on {TITLES[name]} (rank {rank:.0f})")
    if parts:
        yield f"By the benchmark's table the genotype reaches, once trained, {', '.join(parts)} of {NUM_CELLS} cells."


def benchmark_cards(run: RunRecord) -> Iterator[str]:
    """Charts of the accuracies, and of what is missing to the best cell."""
    colours = dict(zip(DATA_SETS, (FIRST, SECOND, THIRD), strict=True))
    for quantity, heading in (("accuracy", "Benchmark accuracy of each epoch's cell"), ("regret", "Regret")):
        lines = [
            Line(TITLES[name], run.values(f"benchmark/{name}/{quantity}"), colour, stepped=True)
            for name, colour in colours.items()
        ]
        chart = charts.line_chart(f"benchmark-{quantity}", run.epochs, lines, percent=True)
        if chart:
            note = "Test accuracy of the cell trained from scratch, from the table of NAS-Bench-201."
            yield card(heading, chart, note if quantity == "accuracy" else "What is missing to the best cell.")
