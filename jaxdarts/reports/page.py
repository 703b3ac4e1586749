"""What are the pages of reports made of?"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, Unpack

from jaxdarts.errors import one_line_errors
from jaxdarts.json_files import write_atomically
from jaxdarts.reports import charts
from jaxdarts.reports.draw import draw_cells
from jaxdarts.reports.measure import measure_named
from jaxdarts.reports.run_record import Values
from jaxdarts.reports.texts import escape
from jaxdarts.runs.progress import format_seconds
from jaxdarts.spaces import Architecture

# (key, name, which end is better, if one is); see `quantity` for how each is shown
Quantities = Sequence[tuple[str, str, Callable[[Any], Any] | None]]


class Numbers(Protocol):
    """What a run measured."""

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those that have ended."""

    def values(self, key: str) -> Values:
        """A quantity of every epoch."""


def render_page(
    *,
    heading: str,
    name: str,
    facts: Mapping[str, object],
    outcome: str,
    finished: bool,
    cells_heading: str,
    genotype: Architecture,
    sections: str,
    config: Mapping[str, Any],
    run: Numbers,
    quantities: Quantities,
) -> str:
    """A whole page that loads nothing. `sections` is HTML between the cells and the genotype; all else is text."""
    cells = draw_cells(genotype)
    parts = {
        "title": escape(f"{heading} ({name})"),
        "heading": escape(heading),
        "subheading": escape(f"Run {name}"),
        "facts": _facts(facts),
        "state": "" if finished else "unfinished",
        "outcome": escape(outcome),
        "cells_heading": cells_heading,
        "cells": charts.inline_svg(cells, "cells"),
        "cells_width": f"{cells.get_figwidth() * 100:.0f}",
        "gradient": charts.colour_gradient(),
        "sections": sections,
        "genotype": escape(genotype.to_text()),
        "table": summary_table(run, quantities),
        "epoch_table": epoch_table(run, quantities),
        "settings": settings(config),
    }
    return _fill(_template(), parts)


def render_plain_page(
    *, heading: str, subheading: str, facts: Mapping[str, object], outcome: str, finished: bool, sections: str
) -> str:
    """As `render_page`, for what is not one run: `sections` is all that follows the outcome."""
    before, _, rest = _template().partition("<!-- run -->")
    parts = {
        "title": escape(heading),
        "heading": escape(heading),
        "subheading": escape(subheading),
        "facts": _facts(facts),
        "state": "" if finished else "unfinished",
        "outcome": escape(outcome),
        "sections": sections,
        "cells_width": "0",
        "gradient": "none",
    }
    return _fill(before + "{{sections}}" + rest.partition("<!-- end of run -->")[2], parts)


def _facts(facts: Mapping[str, object]) -> str:
    shown = {fact: "not recorded" if value in (None, "") else value for fact, value in facts.items()}
    return "".join(f"<div><dt>{escape(fact)}</dt><dd>{escape(value)}</dd></div>" for fact, value in shown.items())


def _template() -> str:
    return resources.files("jaxdarts.reports").joinpath("report_template.html").read_text(encoding="utf-8")


def _fill(template: str, parts: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def versions_text(config: Mapping[str, Any]) -> str:
    """The packages' versions in a run's config.json."""
    return ", ".join(f"{name} {version}" for name, version in (config.get("versions") or {}).items())


def time_text(seconds: Values) -> str | None:
    """How long epochs took together; None: it is not known of any."""
    known = [value for value in seconds if value is not None]
    return format_seconds(sum(known)) if known else None


def card(heading: str, chart: str, note: str = "") -> str:
    """A box with a heading, a chart or the remark that there is none, and what the chart shows."""
    note = f'<p class="muted small">{note}</p>' if chart and note else ""
    chart = chart or '<p class="muted">Nothing was measured.</p>'
    return f'<section class="card"><h3>{heading}</h3>{chart}{note}</section>'


def line_card(
    heading: str,
    identifier: str,
    run: Numbers,
    names: Mapping[str, str],
    note: str = "",
    *,
    colours: Sequence[str] = charts.COLOURS,
    stepped: bool = False,
    **options: Unpack[charts.LineOptions],
) -> str:
    """A card with a line for each of a run's quantities, given with their names in the legend."""
    lines = [
        charts.Line(name, run.values(key), colour, stepped=stepped)
        for (key, name), colour in zip(names.items(), colours, strict=False)
    ]
    return card(heading, charts.line_chart(identifier, run.epochs, lines, **options), note)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Each file is replaced as a whole. Raises RunError where one cannot be written."""
    for name, text in files.items():
        with one_line_errors("write", folder / name):
            write_atomically(folder / name, text)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Comma-separated values; nothing for None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def summary_table(run: Numbers, quantities: Quantities) -> str:
    """First, last and extreme values of every quantity that was measured."""
    rows = []
    for key, name, best_of in quantities:
        known = [(value, epoch) for value, epoch in zip(run.values(key), run.epochs, strict=True) if value is not None]
        if not known:
            continue
        best = best_of(known) if best_of else None
        values = [known[0][0], known[-1][0], *((min(known)[0], max(known)[0]) if len(run.epochs) > 1 else (None, None))]
        rows.append([name, *(quantity(key, value) for value in values), str(best[1]) if best else ""])
    return table(["", "First", "Last", "Least", "Greatest", "Best in epoch"], rows)


def epoch_table(run: Numbers, quantities: Quantities) -> str:
    """Every quantity that was measured, after every epoch."""
    kept = [(key, name) for key, name, _ in quantities if any(value is not None for value in run.values(key))]
    columns = [[quantity(key, value) for value in run.values(key)] for key, _ in kept]
    rows = [[str(epoch), *row] for epoch, row in zip(run.epochs, zip(*columns, strict=True), strict=True)]
    return table(["Epoch", *(name for _, name in kept)], rows)


def settings(config: Mapping[str, Any]) -> str:
    """The rows of a table of a run's config.json."""
    # In the header, and shown edge by edge.
    hidden = ("versions", "device", "search_space", "architecture", "entries", "members", "stages", "part_of")
    entries = [(name, value) for name, value in config.items() if name not in hidden]
    texts = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in entries]
    return "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in texts)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of text whose first column is no number."""

    def row(cells: list[str], tag: str) -> str:
        first, *rest = (escape(cell) for cell in cells)
        return f"<tr><{tag}>{first}</{tag}>{''.join(f'<{tag} class=number>{cell}</{tag}>' for cell in rest)}</tr>"

    return f"<table>{row(header, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def quantity(key: str, value: float | None) -> str:
    """A value as text, by what it is."""
    if value is None:
        return ""
    measure = measure_named(key)
    if measure is not None:
        return measure.text(value)
    return f"{value:.2%}" if key.endswith("regret") else number(value)


def number(value: float) -> str:
    """Four digits; whole numbers as they are."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"
