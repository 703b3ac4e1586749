"""How good are the architectures of a space, as a page and as a table?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.reports import charts
from jaxdarts.reports.charts import FIRST
from jaxdarts.reports.evaluate import network_fact
from jaxdarts.reports.graphs import CELL_NAMES
from jaxdarts.reports.measure import plural
from jaxdarts.reports.page import card, csv_text, render_plain_page, settings, table, versions_text, write_files
from jaxdarts.reports.table_record import Entry, Table, read_table
from jaxdarts.runs.progress import format_seconds
from jaxdarts.spaces import Architecture

PAGE_FILE, CSV_FILE = "report.html", "table.csv"


def write_table_report(folder: str | Path) -> Path:
    """Writes `report.html` and `table.csv` into a table's folder: all architectures trained so far, the best first.

    Each file is replaced as a whole.

    Returns:
      The path of the page.

    Raises:
      InputError: not the folder of a table, no training has ended, or the table cannot be read.
      RunError: a file cannot be written.
    """
    folder = Path(folder)
    found = read_table(folder)
    if not found.entries:
        raise InputError(f"run_dir: no training of the table in {str(folder)!r} has ended yet; a report needs one")
    write_files(folder, {CSV_FILE: _csv(found), PAGE_FILE: _page(found)})
    return folder / PAGE_FILE


def cell_text(genotype: Architecture, cell: str) -> str:
    """`sep_conv_3x3(0) + skip_connect(1)`: a node's operations with the states that they read; nodes by commas."""
    nodes: dict[int, list[str]] = {}
    for node, (operation, source) in zip(genotype.nodes(cell), genotype.edges(cell), strict=True):
        nodes.setdefault(node, []).append(f"{operation}({source})")
    return ", ".join(map(" + ".join, nodes.values()))


def _by_genotype(found: Table) -> list[tuple[Architecture, list[Entry]]]:
    """The best mean test error first."""
    entries: dict[Architecture, list[Entry]] = {genotype: [] for genotype in found.errors}
    for entry in found.entries:
        entries[entry.genotype].append(entry)
    return list(entries.items())


def _csv(found: Table) -> str:
    """A row an architecture; errors are parts of one, several seeds' are separated by blanks."""
    result = found.measure.result
    columns = [f"{part}_{plural(result)}" for part in ("test", "valid")]
    columns += ["seeds", "parameters", "multiply_adds", "seconds", "genotype"]
    rows = []
    least = min(found.errors.values())
    for rank, (genotype, entries) in enumerate(_by_genotype(found), start=1):
        error = found.errors[genotype]
        rows.append(
            [
                rank,
                error,
                error - least,
                _joined([entry.test_error for entry in entries]),
                _joined([entry.valid_error for entry in entries]),
                _joined([entry.seed for entry in entries]),
                entries[0].parameters,
                entries[0].multiply_adds,
                sum(entry.seconds for entry in entries),
                genotype.to_text(),
            ]
        )
    return csv_text(["rank", f"test_{result}", "regret", *columns], rows)


def _joined(values: Sequence[float | None]) -> str:
    return " ".join("" if value is None else repr(value) for value in values).strip()


def _page(found: Table) -> str:
    config, errors = found.config, found.errors
    count, trainings = found.space.num_genotypes(), len(found.entries)
    best, measure = next(iter(errors)), found.measure
    text, names = measure.text, plural(measure.result)
    sentences = [f"{trainings} of {found.planned} trainings have ended."] if not found.is_finished else []
    sentences.append(
        f"Test {names} go from {text(min(errors.values()))} to {text(max(errors.values()))}, their median is "
        f"{text(statistics.median(errors.values()))}. The best have {_cells_text(best)} cell."
    )
    values = np.array(list(errors.values()))
    heights, edges = np.histogram(measure.scale * values, bins=max(6, min(20, len(values))))
    centres, width, axis = (edges[:-1] + edges[1:]) / 2, edges[1] - edges[0], f"test {measure.result}{measure.unit}"
    chart = charts.bar_chart(names, centres, heights, width, axis, FIRST, counts=True)
    return render_plain_page(
        heading=f"All architectures of {found.space.name} on {config.get('dataset', 'unknown data')}",
        subheading=f"Table {found.name}",
        facts={
            "Architectures": f"{len(errors)} of {count}",
            "Seeds": config.get("seeds"),
            "Data set": config.get("dataset"),
            **network_fact(config, best),
            "Epochs": config.get("epochs"),
            "Time": format_seconds(sum(entry.seconds for entry in found.entries)),
            "Device": config.get("device"),
            "Versions": versions_text(config),
        },
        outcome=" ".join(sentences),
        finished=found.is_finished,
        sections=f'<div class="pair">{card(f"Test {names}", chart, "How many architectures have which.")}</div>'
        f'<h2>Architectures</h2><div class="card scroll">{table(*_rows(found))}</div>'
        f'<h2>Settings</h2><div class="card scroll"><table>{settings(config)}</table></div>',
    )


def _cells_text(genotype: Architecture) -> str:
    names = {cell: CELL_NAMES[cell].lower().removesuffix(" cell") for cell in genotype.cell_types}
    return " and ".join(f"{cell_text(genotype, cell)} in the {name}" for cell, name in names.items())


def _rows(found: Table) -> tuple[list[str], list[list[str]]]:
    least, with_std = min(found.errors.values()), found.config.get("seeds", 1) > 1
    rows, text = [], found.measure.text
    for rank, (genotype, entries) in enumerate(_by_genotype(found), start=1):
        values = [entry.test_error for entry in entries]
        std = [text(statistics.stdev(values)) if len(values) > 1 else ""] if with_std else []
        error = found.errors[genotype]
        sizes = [f"{entries[0].parameters:,}", f"{entries[0].multiply_adds:,}"]
        cells = [cell_text(genotype, cell) for cell in found.space.cell_types]
        rows.append([str(rank), text(error), *std, text(error - least), *sizes, *cells])
    spread = ["Standard deviation"] if with_std else []
    cells = [CELL_NAMES[cell] for cell in found.space.cell_types]
    return ["Rank", f"Test {found.measure.result}", *spread, "Regret", "Parameters", "Multiply-adds", *cells], rows
