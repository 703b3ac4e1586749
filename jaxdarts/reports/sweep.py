"""What came of a sweep, as a page and as tables?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.reports.draw import figure_to_svg
from jaxdarts.reports.measure import Measure
from jaxdarts.reports.page import csv_text, escape, render_plain_page, table, write_files
from jaxdarts.reports.statistics import Estimate, Group, curvature_and_result, group_runs
from jaxdarts.reports.sweep_charts import sweep_charts, sweep_figures
from jaxdarts.reports.sweep_record import BENCHMARK, Quantity, SweepRecord, SweepRun, read_sweep_record, value_text
from jaxdarts.runs.sweep.file import VARIANT

PAGE_FILE, CSV_FILE, MARKDOWN_FILE = "report.html", "table.csv", "table.md"
Table = tuple[list[str], list[list[str]]]  # header and rows


def write_sweep_report(folder: str | Path) -> Path:
    """Writes `report.html`, tables and figures into a sweep's folder, from the runs that have finished.

    A row of `table.csv` and `table.md` is a combination of the grid's fields without the seed: mean and sample standard
    deviation over seeds, and the test error of the best seed by validation accuracy (of language modelling both are
    perplexities; where runs are of several tasks there are columns for each). Where the method varies, tables
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


def format_estimate(quantity: Quantity, value: Estimate | None) -> str:
    """`3.05 ± 0.07`, what is a part of one in percent; nothing for None."""
    if value is None:
        return ""
    scale, digits = 100 if quantity.percent else 1, quantity.digits
    mean = f"{scale * value.mean:.{digits}f}"
    return mean if value.std is None else f"{mean} ± {scale * value.std:.{digits}f}"


def _labels(sweep: SweepRecord) -> list[str]:
    """The fields that tell rows apart; at least one."""
    return [field for field in sweep.fields if field != "seed"]


def _main_table(groups: Sequence[Group], sweep: SweepRecord) -> Table:
    labels, names = _labels(sweep), _measured(groups, sweep)
    header = [*labels, "runs", *(sweep.quantities[name].heading for name in names)]
    tested = _tested(groups, sweep)
    header += [f"Best seed's test {measure.result}{measure.unit}" for measure in tested]
    rows = []
    for group in groups:
        row = [*(value_text(group.values[label]) for label in labels), f"{len(group.runs)} of {group.planned}"]
        row += [format_estimate(sweep.quantities[name], group.estimates[name]) for name in names]
        rows.append(row + [_best_result(measure, group) for measure in tested])
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
    names = [*(f"test_{measure.result}" for measure in sweep.measures), *BENCHMARK]
    names += [*(f"valid_{measure.objective}" for measure in sweep.measures), "dominant_eigenvalue"]
    measured = _measured(groups, sweep)
    for name in (name for name in names if name in measured):
        of_task = [group for group in groups if name in group.runs[0].quantities]
        quantity = sweep.quantities[name]
        found = _by_method(of_task, sweep, partial(_group_text, name, quantity))
        if found is not None:
            tables[f"{quantity.heading}, by {_compared(sweep)}"] = found
    for measure in _tested(groups, sweep):
        of_task = [group for group in groups if group.measure == measure]
        best = _by_method(of_task, sweep, partial(_best_result, measure))
        if best is not None:
            heading = f"Test {measure.result} of the best seed by validation{measure.unit}, by {_compared(sweep)}"
            tables[heading] = best
    return tables


def _notes(groups: Sequence[Group], sweep: SweepRecord) -> list[str]:
    """What a reader of the tables has to know."""
    notes = [
        f"Validation {measure.objective} and dominant eigenvalue are those of the supernet in the epoch whose genotype "
        f"is returned, the discretisation {measure.way} what its {measure.objective} "
        f"{'loses' if measure.more else 'gains'} without retraining."
        for measure in sweep.measures
    ]
    for measure in _tested(groups, sweep):
        bests = [group.best for group in groups if group.measure == measure and group.best is not None]
        by = sorted({_chosen_by(measure, best.by) for best in bests})
        if by:
            notes.append(
                f"The best seed is chosen by validation {measure.objective} ({'; '.join(by)}), never by the test "
                f"{measure.result}."
            )
        notes.append(_correlation_text(sweep, measure))
    return notes


def _chosen_by(measure: Measure, quantity: str) -> str:
    held_out = quantity == f"held_out_{measure.objective}"
    return f"retrained, on held-out {measure.words.examples}" if held_out else "of the search"


def _correlation_text(sweep: SweepRecord, measure: Measure) -> str:
    found = curvature_and_result(sweep.finished, measure)
    if found is None:
        return (
            f"No correlation of dominant eigenvalue and test {measure.result}: it needs 4 runs that have both, and in "
            "which both vary."
        )
    return (
        f"Pearson correlation of dominant eigenvalue and test {measure.result} over {found.runs} runs: "
        f"{found.value:.3f}, 95 % confidence interval {found.low:.3f} to {found.high:.3f} (Fisher's z)."
    )


def _csv(groups: Sequence[Group], sweep: SweepRecord) -> str:
    """All digits, one column for each mean and each deviation; accuracies and errors are parts of one."""
    labels, rows, tests = _labels(sweep), [], [f"test_{measure.result}" for measure in sweep.measures]
    header = [*labels, "runs", "runs_planned"]
    header += [f"{name}_{part}" for name in sweep.quantities for part in ("mean", "std")]
    for group in groups:
        row: list[Any] = [*(group.values[label] for label in labels), len(group.runs), group.planned]
        for name in sweep.quantities:
            found = group.estimates[name]
            row += [None, None] if found is None else [found.mean, found.std]
        best = group.best
        row += [best.run.name, best.by, *map(best.run.value, tests)] if best else [None, None, *(None for _ in tests)]
        rows.append(row)
    return csv_text([*header, "best_run", "best_by", *(f"best_{test}" for test in tests)], rows)


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
    sections += sweep_charts(sweep, partial(_correlation_text, sweep))
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
    kept = {n: q for n, q in sweep.quantities.items() if any(run.value(n) is not None for run in sweep.runs)}
    for run in sweep.runs:
        found = [format_estimate(quantity, _single(run, name)) for name, quantity in kept.items()]
        rows.append([run.name, run.state, *found, run.error or ""])
    return ["Run", "State", *(quantity.heading for quantity in kept.values()), "Error"], rows


def _group_text(name: str, quantity: Quantity, group: Group) -> str:
    return format_estimate(quantity, group.estimates[name])


def _best_result(measure: Measure, group: Group) -> str:
    """Nothing where no seed is the best, or the group is of another task."""
    name, best = f"test_{measure.result}", group.best
    if best is None or name not in best.run.quantities:
        return ""
    return format_estimate(best.run.quantities[name], _single(best.run, name))


def _single(run: SweepRun, name: str) -> Estimate | None:
    value = run.value(name)
    return None if value is None else Estimate(value, None, 1)


def _measured(groups: Sequence[Group], sweep: SweepRecord) -> list[str]:
    return [name for name in sweep.quantities if any(group.estimates[name] is not None for group in groups)]


def _tested(groups: Sequence[Group], sweep: SweepRecord) -> list[Measure]:
    """Those whose result is known of a run."""
    measured = _measured(groups, sweep)
    return [measure for measure in sweep.measures if f"test_{measure.result}" in measured]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
