"""What came of a sweep, as a page and as tables?"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.runs import charts
from jaxdarts.runs.charts import COLOURS, Line, Points
from jaxdarts.runs.files import write_atomically
from jaxdarts.runs.folder import one_line_errors
from jaxdarts.runs.page import card, escape, render_plain_page, table
from jaxdarts.runs.sweep_record import QUANTITIES, SweepRecord, SweepRun, read_sweep_record
from jaxdarts.runs.sweep_statistics import Estimate, Group, curvature_and_error, group_runs

PAGE_FILE, CSV_FILE, MARKDOWN_FILE = "report.html", "table.csv", "table.md"
_BENCHMARK = tuple(name for name in QUANTITIES if name.startswith("benchmark/"))
_PERCENT = ("valid_accuracy", "test_error", "accuracy_drop", *_BENCHMARK)
_CHOSEN_BY = {"held_out_accuracy": "retrained, on held-out images", "valid_accuracy": "of the search"}
Table = tuple[list[str], list[list[str]]]  # header and rows


def write_sweep_report(folder: str | Path) -> Path:
    """Writes `report.html`, `table.csv` and `table.md` into a sweep's folder, from the runs that have finished.

    A row is a combination of the grid's fields without the seed: mean and sample standard deviation over seeds, and the
    test error of the best seed by validation accuracy. Where the method varies, tables with a column a method follow,
    as in Zela et al. 2020, tables 1, 3 and 6. Each file is replaced as a whole.

    Returns:
      The path of the page.

    Raises:
      InputError: not the folder of a sweep, no run has finished, or a file in it cannot be read.
      RunError: a file cannot be written.
    """
    folder = Path(folder)
    sweep = read_sweep_record(folder)
    if not sweep.finished:
        raise InputError(f"run_dir: no run of the sweep in {str(folder)!r} has finished yet; a report needs one")
    groups = group_runs(sweep.runs, sweep.fields)
    for name, text in (
        (CSV_FILE, _csv(groups, sweep)),
        (MARKDOWN_FILE, _markdown(groups, sweep)),
        (PAGE_FILE, _page(groups, sweep)),
    ):
        with one_line_errors("write", folder / name):
            write_atomically(folder / name, text)
    return folder / PAGE_FILE


def format_estimate(name: str, value: Estimate | None) -> str:
    """`3.05 ± 0.07`; accuracies, errors and drops in percent; nothing for None."""
    if value is None:
        return ""
    scale, digits = (100, 2) if name in _PERCENT else (1, 1) if name.startswith("skip_") else (1, 4)
    mean = f"{scale * value.mean:.{digits}f}"
    return mean if value.std is None else f"{mean} ± {scale * value.std:.{digits}f}"


def _labels(sweep: SweepRecord) -> list[str]:
    """The fields that tell rows apart; at least one."""
    return [field for field in sweep.fields if field != "seed"]


def _main_table(groups: Sequence[Group], sweep: SweepRecord) -> Table:
    labels, names = _labels(sweep), _measured(groups)
    header = [*labels, "runs", *(_heading(name) for name in names)]
    with_best = "test_error" in names
    header += ["Best seed's test error, %"] if with_best else []
    rows = []
    for group in groups:
        row = [*(_text(group.values[label]) for label in labels), f"{len(group.runs)} of {group.planned}"]
        row += [format_estimate(name, group.estimates[name]) for name in names]
        rows.append(row + ([_best_error(group)] if with_best else []))
    return (header, rows) if labels else (["", *header], [["all", *row] for row in rows])


def _by_method(groups: Sequence[Group], sweep: SweepRecord, cell: Callable[[Group], str]) -> Table | None:
    """A column a method, a row a combination of the other fields; None if there is one method only."""
    others = [label for label in _labels(sweep) if label != "method"]
    methods = list(dict.fromkeys(group.values.get("method") for group in groups))
    if len(methods) < 2:
        return None
    cells: dict[tuple[str, ...], dict[Any, str]] = {}
    for group in groups:
        key = tuple(_text(group.values[other]) for other in others) or ("all",)
        cells.setdefault(key, {})[group.values["method"]] = cell(group)
    rows = [[*key, *(row.get(method, "") for method in methods)] for key, row in cells.items()]
    return [*(others or [""]), *map(str, methods)], rows


def _tables(groups: Sequence[Group], sweep: SweepRecord) -> dict[str, Table]:
    """All tables by their headings."""
    tables = {"Mean ± standard deviation over seeds": _main_table(groups, sweep)}
    for name in ("test_error", *_BENCHMARK, "valid_accuracy", "dominant_eigenvalue"):
        found = _by_method(groups, sweep, partial(_group_text, name)) if name in _measured(groups) else None
        if found is not None:
            tables[f"{_heading(name)}, by method"] = found
    best = _by_method(groups, sweep, _best_error) if "test_error" in _measured(groups) else None
    if best is not None:
        tables["Test error of the best seed by validation, %, by method"] = best
    return tables


def _notes(groups: Sequence[Group], sweep: SweepRecord) -> list[str]:
    """What a reader of the tables has to know."""
    notes = [
        "Validation accuracy and dominant eigenvalue are those of the supernet in the epoch whose genotype is "
        "returned, the discretisation drop what its accuracy loses without retraining."
    ]
    by = sorted({_CHOSEN_BY[group.best.by] for group in groups if group.best is not None})
    if by and "test_error" in _measured(groups):
        notes.append(f"The best seed is chosen by validation accuracy ({'; '.join(by)}), never by the test error.")
    if "test_error" in _measured(groups):
        notes.append(_correlation_text(sweep))
    return notes


def _correlation_text(sweep: SweepRecord) -> str:
    found = curvature_and_error(sweep.finished)
    if found is None:
        return (
            "No correlation of dominant eigenvalue and test error: it needs 4 runs that have both, and in which both "
            "vary."
        )
    return (
        f"Pearson correlation of dominant eigenvalue and test error over {found.runs} runs: {found.value:.3f}, "
        f"95 % confidence interval {found.low:.3f} to {found.high:.3f} (Fisher's z)."
    )


def _csv(groups: Sequence[Group], sweep: SweepRecord) -> str:
    """All digits, one column for each mean and each deviation; accuracies and errors are parts of one."""
    labels, text = _labels(sweep), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = [*labels, "runs", "runs_planned"]
    header += [f"{name}_{part}" for name in QUANTITIES for part in ("mean", "std")]
    writer.writerow([*header, "best_run", "best_by", "best_test_error"])
    for group in groups:
        row: list[Any] = [*(group.values[label] for label in labels), len(group.runs), group.planned]
        for name in QUANTITIES:
            found = group.estimates[name]
            row += [None, None] if found is None else [found.mean, found.std]
        best = group.best
        row += [best.run.name, best.by, (best.run.result or {}).get("test_error")] if best else [None, None, None]
        writer.writerow(row)
    return text.getvalue()


def _markdown(groups: Sequence[Group], sweep: SweepRecord) -> str:
    parts = [f"# {sweep.name}", *_notes(groups, sweep)]
    for heading, (header, rows) in _tables(groups, sweep).items():
        lines = [header, ["---"] * len(header), *rows]
        parts += [f"## {heading}", "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)]
    failed = [run for run in sweep.runs if run.state == "failed"]
    if failed:
        parts += ["## Failed", "\n".join(f"- `{run.name}`: {run.error}" for run in failed)]
    return "\n\n".join(parts) + "\n"


def _page(groups: Sequence[Group], sweep: SweepRecord) -> str:
    done, failed = len(sweep.finished), sum(run.state == "failed" for run in sweep.runs)
    state = f"{done} of {len(sweep.runs)} runs have finished" + (f", {failed} failed." if failed else ".")
    varied = {field: list(dict.fromkeys(_text(run.values[field]) for run in sweep.runs)) for field in sweep.fields}
    sections = [f'<h2>{escape(heading)}</h2><div class="card scroll">{table(*found)}</div>' for heading, found in
                _tables(groups, sweep).items()]  # fmt: skip
    sections.append(f"<h2>Dominant eigenvalue</h2>{_eigenvalue_charts(sweep)}")
    sections.append(_curvature_and_error_chart(sweep))
    sections.append(f'<h2>Runs</h2><div class="card scroll">{table(*_run_table(sweep))}</div>')
    return render_plain_page(
        heading=f"Sweep {sweep.name}",
        subheading=f"{len(sweep.runs)} runs",
        facts={
            **{name: _text(value) for name, value in sweep.search.items()},
            **{field: ", ".join(values) for field, values in varied.items()},
        },  # fmt: skip
        outcome=" ".join([state, *_notes(groups, sweep)]),
        finished=done == len(sweep.runs),
        sections="".join(sections),
    )


def _run_table(sweep: SweepRecord) -> Table:
    rows = []
    names = [name for name in QUANTITIES if any((run.result or {}).get(name) is not None for run in sweep.runs)]
    for run in sweep.runs:
        found = [format_estimate(name, _single(run, name)) for name in names]
        rows.append([run.name, run.state, *found, run.error or ""])
    return ["Run", "State", *(_heading(name) for name in names), "Error"], rows


def _eigenvalue_charts(sweep: SweepRecord) -> str:
    """A chart for each space and data set; a line a run, a colour for the method and whatever else varies."""
    panels: dict[str, list[SweepRun]] = {}
    for run in sweep.finished:
        panels.setdefault(_panel(run), []).append(run)
    cards = []
    for number, (heading, runs) in enumerate(panels.items()):
        epochs = sorted({epoch for run in runs for epoch in run.epochs})
        colours: dict[str, str] = {}
        lines = []
        for run in runs:
            name = _line_name(run)
            first = name not in colours
            colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
            known = dict(zip(run.epochs, run.eigenvalues, strict=True))
            # A name that begins with _ is left out of the legend.
            lines.append(Line(name if first else f"_{run.name}", [known.get(epoch) for epoch in epochs], colour))
        cards.append(card(escape(heading), charts.line_chart(f"eigenvalues{number}", epochs, lines), "A line a run."))
    return f'<div class="pair">{"".join(cards)}</div>'


def _curvature_and_error_chart(sweep: SweepRecord) -> str:
    """A point a run that has both, in the colour of its method; empty text if no run has (Zela et al. 2020, fig. 4)."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in sweep.finished:
        eigenvalue, error = (_single(run, name) for name in ("dominant_eigenvalue", "test_error"))
        if eigenvalue is not None and error is not None:
            points.setdefault((_line_name(run), _panel(run)), []).append((eigenvalue.mean, error.mean))
    names = list(dict.fromkeys(name for name, _ in points))
    groups = [
        Points(name, panel, coordinates, COLOURS[names.index(name) % len(COLOURS)])
        for (name, panel), coordinates in points.items()
    ]
    if not groups:
        return ""
    chart = charts.scatter_chart("correlation", groups, ("dominant eigenvalue", "test error"), percent=True)
    note = f"A point a run: the last eigenvalue up to the epoch whose genotype is returned. {_correlation_text(sweep)}"
    return f'<h2>Curvature and test error</h2><div class="wide">{card("All runs", chart, note)}</div>'


def _panel(run: SweepRun) -> str:
    panel = [_text(run.values[field]) for field in ("space", "dataset") if field in run.values]
    return ", ".join(panel) or "All runs"


def _line_name(run: SweepRun) -> str:
    rest = {field: value for field, value in run.values.items() if field not in ("space", "dataset", "seed")}
    return ", ".join(_text(v) if isinstance(v, str) else f"{f} {_text(v)}" for f, v in rest.items()) or "run"


def _group_text(name: str, group: Group) -> str:
    return format_estimate(name, group.estimates[name])


def _best_error(group: Group) -> str:
    return "" if group.best is None else format_estimate("test_error", _single(group.best.run, "test_error"))


def _single(run: SweepRun, name: str) -> Estimate | None:
    value = None if run.result is None else run.result.get(name)
    return None if value is None else Estimate(value, None, 1)


def _measured(groups: Sequence[Group]) -> list[str]:
    return [name for name in QUANTITIES if any(group.estimates[name] is not None for group in groups)]


def _heading(name: str) -> str:
    return QUANTITIES[name] + (", %" if name in _PERCENT else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
