"""What does a table of NAS-Bench-201 say about the cells of a search?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxdarts.errors import InputError
from jaxdarts.runs.pages import charts
from jaxdarts.runs.pages.charts import FIRST, SECOND, THIRD, Line
from jaxdarts.runs.pages.page import Quantities, card
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.spaces import NASBENCH201, Benchmark, CellSpace
from jaxdarts.spaces.benchmark import DATA_SETS
from jaxdarts.spaces.nasbench201 import NUM_CELLS

if TYPE_CHECKING:
    from jaxdarts.runs.record import RunRecord

ENVIRONMENT_VARIABLE = "JAXDARTS_NASBENCH201"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}

BENCHMARK_QUANTITIES: Quantities = (
    *((f"benchmark/{name}/accuracy", f"Benchmark accuracy, {TITLES[name]}", max) for name in DATA_SETS),
    *((f"benchmark/{name}/regret", f"Regret, {TITLES[name]}", min) for name in DATA_SETS),
    *((f"benchmark/{name}/rank", f"Rank of {NUM_CELLS}, {TITLES[name]}", min) for name in DATA_SETS),
)


def find_benchmark(config: SearchConfig, space: CellSpace) -> Benchmark | None:
    """The table that a configuration or the environment names.

    Raises:
      InputError: it cannot be read, or was asked for with a space that it isn't about.
    """
    if config.benchmark is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE)
        return Benchmark.load(path) if path and space == NASBENCH201 else None
    if space != NASBENCH201:
        raise InputError(
            f"benchmark: {config.benchmark!r} is about the cells of {NASBENCH201.name}; space {space.name!r} has none"
        )
    return Benchmark.load(config.benchmark)


def benchmark_sentences(run: RunRecord) -> Iterator[str]:
    """What the table says about the genotype returned, and about the best epoch."""
    parts = []
    for name in DATA_SETS:
        accuracy, rank = (returned_value(run, f"benchmark/{name}/{quantity}") for quantity in ("accuracy", "rank"))
        if accuracy is not None and rank is not None:
            parts.append(f"{accuracy:.2%} on {TITLES[name]} (rank {rank:.0f})")
    if parts:
        yield f"By the benchmark's table the genotype reaches, once trained, {', '.join(parts)} of {NUM_CELLS} cells."


def returned_value(run: RunRecord, key: str) -> float | None:
    """What the table says about the genotype returned; `key` as in BENCHMARK_QUANTITIES."""
    at = run.genotype_epochs()
    return run.values(key)[run.epochs.index(at[-1])] if at else None


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
