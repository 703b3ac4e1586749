"""What came of a sweep, as a page and as tables?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.reports.draw import figure_to_svg
from jaxdarts.reports.page import csv_text, escape, render_plain_page, table, write_files
from jaxdarts.reports.statistics import Estimate, Group, curvature_and_error, group_runs
from jaxdarts.reports.sweep_charts import sweep_charts, sweep_figures
from jaxdarts.reports.sweep_record import QUANTITIES, SweepRecord, SweepRun, read_sweep_record, value_text
from jaxdarts.runs.sweep.file import VARIANT

PAGE_FILE, CSV_FILE, MARKDOWN_FILE = "report.html", "table.csv", "table.md"
_BENCHMARK = tuple(name for name in QUANTITIES if name.startswith("benchmark/"))
_PERCENT = ("valid_accuracy", "test_error", "accuracy_drop", *_BENCHMARK)
_CHOSEN_BY = {"held_out_accuracy": "retrained, on held-out images", "valid_accuracy": "of the search"}
Table = tuple[list[str], list[list[str]]]  # header and rows


def write_sweep_report(folder: str | Path) -> Path:
    """Writes `report.html`, tables and figures into a sweep's folder, from the runs that have finished.

    A row of `table.csv` and `table.md` is a combination of the grid's fields without the seed: mean and sample standard
    deviation over seeds, and the test error of the best seed by validation accuracy. Where the method varies, tables
    with a column a method follow, as in Zela et al. 2020, tables 1, 3 and 6; where variants do, a column a variant.
    `eigenvalues.svg` and `benchmark_accuracies.svg` are drawn if these were measured. Each file is replaced as a whole.

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
    figures = {f"{name}.svg": figure_to_svg(figure, name) for name, figure in sweep_figures(sweep).items()}
    tables = {CSV_FILE: _csv(groups, sweep), MARKDOWN_FILE: _markdown(groups, sweep)}
    write_files(folder, {**tables, **figures, PAGE_FILE: _page(groups, sweep)})
    return folder / PAGE_FILE


def format_estimate(name: str, value: Estimate | None) -> str:
    """`3.05 ± 0.07`; accuracies, errors and drops in percent; nothing for None."""
    if value is None:
        return ""
    scale, digits = (100, 2) if name in _PERCENT else (1, 1) if name.startswith(("skip_", "noise_")) else (1, 4)
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
        row = [*(value_text(group.values[label]) for label in labels), f"{len(group.runs)} of {group.planned}"]
        row += [format_estimate(name, group.estimates[name]) for name in names]
        rows.append(row + ([_best_error(group)] if with_best else []))
    return (header, rows) if labels else (["", *header], [["all", *row] for row in rows])


def _compared(sweep: SweepRecord) -> str:
    """The field whose values get a column each."""
    return VARIANT if VARIANT in sweep.fields else "method"


def _by_method(groups: Sequence[Group], sweep: SweepRecord, cell: Callable[[Group], str]) -> Table | None:
    """A column a method or variant, a row a combination of the other fields; None if there are no two columns.

    Variants alone, with nothing else to make rows of, are rows of the main table only.
    """
    compared = _compared(sweep)
    others = [label for label in _labels(sweep) if label != compared]
    methods = list(dict.fromkeys(group.values.get(compared) for group in groups))
    if len(methods) < 2 or (compared == VARIANT and not others):
        return None
    cells: dict[tuple[str, ...], dict[Any, str]] = {}
    for group in groups:
        key = tuple(value_text(group.values[other]) for other in others) or ("all",)
        cells.setdefault(key, {})[group.values[compared]] = cell(group)
    rows = [[*key, *(row.get(method, "") for method in methods)] for key, row in cells.items()]
    return [*(others or [""]), *map(str, methods)], rows


def _tables(groups: Sequence[Group], sweep: SweepRecord) -> dict[str, Table]:
    """All tables by their headings."""
    tables = {"Mean ± standard deviation over seeds": _main_table(groups, sweep)}
    for name in ("test_error", *_BENCHMARK, "valid_accuracy", "dominant_eigenvalue"):
        found = _by_method(groups, sweep, partial(_group_text, name)) if name in _measured(groups) else None
        if found is not None:
            tables[f"{_heading(name)}, by {_compared(sweep)}"] = found
    best = _by_method(groups, sweep, _best_error) if "test_error" in _measured(groups) else None
    if best is not None:
        tables[f"Test error of the best seed by validation, %, by {_compared(sweep)}"] = best
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
    labels, rows = _labels(sweep), []
    header = [*labels, "runs", "runs_planned"]
    header += [f"{name}_{part}" for name in QUANTITIES for part in ("mean", "std")]
    for group in groups:
        row: list[Any] = [*(group.values[label] for label in labels), len(group.runs), group.planned]
        for name in QUANTITIES:
            found = group.estimates[name]
            row += [None, None] if found is None else [found.mean, found.std]
        best = group.best
        row += [best.run.name, best.by, (best.run.result or {}).get("test_error")] if best else [None, None, None]
        rows.append(row)
    return csv_text([*header, "best_run", "best_by", "best_test_error"], rows)


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
    varied = {field: list(dict.fromkeys(value_text(run.values[field]) for run in sweep.runs)) for field in sweep.fields}
    sections = [f'<h2>{escape(heading)}</h2><div class="card scroll">{table(*found)}</div>' for heading, found in
                _tables(groups, sweep).items()]  # fmt: skip
    if sweep.variants:
        sections.append(f'<h2>Variants</h2><div class="card scroll">{table(*_variant_table(sweep))}</div>')
    sections += sweep_charts(sweep, _correlation_text(sweep))
    sections.append(f'<h2>Runs</h2><div class="card scroll">{table(*_run_table(sweep))}</div>')
    return render_plain_page(
        heading=f"Sweep {sweep.name}",
        subheading=f"{len(sweep.runs)} runs",
        facts={
            **{name: value_text(value) for name, value in sweep.search.items()},
            **{field: ", ".join(values) for field, values in varied.items()},
        },  # fmt: skip
        outcome=" ".join([state, *_notes(groups, sweep)]),
        finished=done == len(sweep.runs),
        sections="".join(sections),
    )


def _variant_table(sweep: SweepRecord) -> Table:
    rows = [[name, ", ".join(f"{field} {value_text(value)}" for field, value in changed.items()) or "as above"]
            for name, changed in sweep.variants.items()]  # fmt: skip
    return ["Variant", "Settings"], rows


def _run_table(sweep: SweepRecord) -> Table:
    rows = []
    names = [name for name in QUANTITIES if any(run.value(name) is not None for run in sweep.runs)]
    for run in sweep.runs:
        found = [format_estimate(name, _single(run, name)) for name in names]
        rows.append([run.name, run.state, *found, run.error or ""])
    return ["Run", "State", *(_heading(name) for name in names), "Error"], rows


def _group_text(name: str, group: Group) -> str:
    return format_estimate(name, group.estimates[name])


def _best_error(group: Group) -> str:
    return "" if group.best is None else format_estimate("test_error", _single(group.best.run, "test_error"))


def _single(run: SweepRun, name: str) -> Estimate | None:
    value = run.value(name)
    return None if value is None else Estimate(value, None, 1)


def _measured(groups: Sequence[Group]) -> list[str]:
    return [name for name in QUANTITIES if any(group.estimates[name] is not None for group in groups)]


def _heading(name: str) -> str:
    return QUANTITIES[name] + (", %" if name in _PERCENT else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
