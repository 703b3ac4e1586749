"""How is the regret of searches shown, as a figure, a page and a table?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.errors import one_line_errors
from jaxdarts.paths import is_folder
from jaxdarts.reports import charts
from jaxdarts.reports.charts import COLOURS, Line
from jaxdarts.reports.draw import figure_to_svg
from jaxdarts.reports.measure import Measure
from jaxdarts.reports.page import card, csv_text, render_plain_page, table, write_files
from jaxdarts.reports.regret_curves import Curve, RunRegret, check_finished, group_curves, run_regret, search_folders
from jaxdarts.reports.table import cell_text
from jaxdarts.reports.table_record import Table, read_table

PAGE_FILE, CSV_FILE, FIGURE_FILE = "regret.html", "regret.csv", "regret.svg"


def write_regret(table_path: str | Path, run_dirs: Sequence[str | Path], output_dir: str | Path | None = None) -> Path:
    """Writes `regret.svg`, `regret.csv` and `regret.html`: the test regret of searches' current genotypes by epoch.

    Test regret is the test error of a genotype in a table minus the least in it (Zela et al. 2020, figures 2 and 10).
    A line is the mean over runs that differ in the seed only, the area behind it goes from the least to the greatest.

    Args:
      table_path: a finished table's folder or file.
      run_dirs: folders of searches, or of sweeps.
      output_dir: where the files go; None: the table's folder.

    Returns:
      The path of the page.

    Raises:
      InputError: a file cannot be read, the table is not finished, or a run is of another space or data set.
      RunError: a file cannot be written.
    """
    found = read_table(table_path)
    check_finished(found)
    folders = search_folders([Path(path) for path in run_dirs])
    runs = [run_regret(found, folder) for folder in folders]
    curves = group_curves(runs)
    default = Path(table_path) if is_folder(table_path) else Path(table_path).parent
    folder = default if output_dir is None else Path(output_dir)
    files = {CSV_FILE: _csv(found, curves), FIGURE_FILE: _figure(found, curves), PAGE_FILE: _page(found, curves)}
    with one_line_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, files)
    return folder / PAGE_FILE


def _lines(curves: Sequence[Curve]) -> tuple[range, list[Line]]:
    lines = [
        Line(curve.label, curve.mean, COLOURS[number % len(COLOURS)], band=(curve.least, curve.greatest))
        for number, curve in enumerate(curves)
    ]
    return range(len(curves[0].mean)), lines


def _figure(found: Table, curves: Sequence[Curve]) -> str:
    epochs, lines = _lines(curves)
    figure = charts.line_figure(epochs, lines, width=9.0, percent=found.measure.percent, zero_line=True)
    assert figure is not None  # a curve has a run, and a run an epoch
    figure.set_facecolor("white")
    figure.axes[0].set_ylabel("test regret", fontsize=9)
    return figure_to_svg(figure, "regret")


def _csv(found: Table, curves: Sequence[Curve]) -> str:
    """A row an epoch of a run; errors are parts of one."""
    rows: list[list[object]] = []
    for curve in curves:
        for run in curve.runs:
            for epoch, (genotype, regret) in enumerate(zip(run.genotypes, run.regrets, strict=True)):
                known = ["", "", ""] if genotype is None else [found.errors[genotype], regret, genotype.to_text()]
                rows.append([curve.label, run.folder.name, run.config.get("seed"), epoch, *known])
    return csv_text(["curve", "run", "seed", "epoch", f"test_{found.measure.result}", "regret", "genotype"], rows)


def _page(found: Table, curves: Sequence[Curve]) -> str:
    config, errors, result, text = found.config, found.errors, found.measure.result, found.measure.text
    best = next(iter(errors))
    epochs, lines = _lines(curves)
    chart = charts.line_chart("regret", epochs, lines, width=11.4, percent=found.measure.percent, zero_line=True)
    note = (
        f"Test {result} of the genotype that the search would have returned after the epoch, trained from scratch, "
        "minus the least of all architectures. Lines: mean over runs; areas: from the least to the greatest."
    )
    random = statistics.mean(errors.values()) - errors[best]
    return render_plain_page(
        heading=f"Test regret in {found.space.name} on {config.get('dataset', 'unknown data')}",
        subheading=f"{sum(len(curve.runs) for curve in curves)} searches beside the table {found.name}",
        facts={
            "Architectures": len(errors),
            "Trainings of each": config.get("seeds"),
            f"Least test {result}": text(errors[best]),
            f"Greatest test {result}": text(max(errors.values())),
            "Mean regret of all architectures": text(random),
            **{f"Best: {cell} cell": cell_text(best, cell) for cell in best.cell_types},
        },
        outcome=" ".join(_sentence(curve, found.measure) for curve in curves),
        finished=all(run.returned is not None for curve in curves for run in curve.runs),
        sections=f'<div class="wide">{card("Test regret", chart, note)}</div>'
        f'<h2>Over seeds</h2><div class="card scroll">{table(*_summary(curves, found.measure))}</div>'
        f'<h2>Runs</h2><div class="card scroll">{table(*_runs(curves, found.measure))}</div>',
    )


def _sentence(curve: Curve, measure: Measure) -> str:
    known = [(value, epoch) for epoch, value in enumerate(curve.mean) if value is not None]
    low, epoch = min(known)
    first, last = measure.text(low), measure.text(known[-1][0])
    return f"{curve.label}: the mean regret is least after epoch {epoch}, {first}, and {last} after the last."


def _summary(curves: Sequence[Curve], measure: Measure) -> tuple[list[str], list[list[str]]]:
    rows = []

    def text(value: float) -> str:
        return f"{measure.scale * value:.{measure.digits}f}"

    for curve in curves:
        known = [(value, epoch) for epoch, value in enumerate(curve.mean) if value is not None]
        low, epoch = min(known)
        returned = [run.returned for run in curve.runs if run.returned is not None]
        spread = f" ± {text(statistics.stdev(returned))}" if len(returned) > 1 else ""
        ended = f"{text(statistics.mean(returned))}{spread}" if returned else ""
        rows.append([curve.label, str(len(curve.runs)), text(known[0][0]), text(low), str(epoch), ended])
    unit = measure.unit
    header = ["", "Runs", f"First{unit}", f"Least mean{unit}", "after epoch"]
    return [*header, f"Returned{unit} (mean ± standard deviation)"], rows


def _runs(curves: Sequence[Curve], measure: Measure) -> tuple[list[str], list[list[str]]]:
    rows = [[run.folder.name, *_run(run, measure), curve.label] for curve in curves for run in curve.runs]
    return ["Run", "Seed", "Least regret", "after epoch", "Returned", "Curve"], rows


def _run(run: RunRegret, measure: Measure) -> list[str]:
    low, epoch = min((value, epoch) for epoch, value in enumerate(run.regrets) if value is not None)
    return [str(run.config.get("seed")), measure.text(low), str(epoch), measure.text(run.returned)]
