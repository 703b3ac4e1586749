"""Which page belongs to a folder?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import one_line_errors, shorten
from jaxdarts.json_files import write_atomically
from jaxdarts.paths import is_file
from jaxdarts.reports.evaluation_record import RESULT_FILE, read_evaluation, recorded_genotype
from jaxdarts.reports.run_record import (
    REPORT_FILE,
    is_population,
    is_staged,
    read_config,
    read_genotype,
    read_run,
)
from jaxdarts.runs.config_json import run_command
from jaxdarts.runs.messages import say_error
from jaxdarts.runs.sweep.states import SWEEP_FILE
from jaxdarts.spaces.files import GENOTYPE_FILE


def write_report(run_dir: str | Path) -> Path:
    """Writes `report.html` from the files of a search, an evaluation, a table or a sweep, finished or not.

    Tables and sweeps get their tables and figures too, see `write_table_report` and `write_sweep_report`.

    The cells of a run that has ended are drawn into `cells.svg` and `cells.png` too.

    The page loads nothing: pictures are inline. An unfinished run is reported as such, with its newest genotype.
    The file is replaced as a whole. Takes one to three seconds.

    Returns:
      The path of the page.

    Raises:
      InputError: not the folder of a run, no epoch has ended yet, or a file in it cannot be read.
      RunError: the page cannot be written.
    """
    # Here, not above: they draw, and a command's first step should not wait for matplotlib.
    from jaxdarts.reports.draw import save_cells
    from jaxdarts.reports.evaluate import render_evaluation
    from jaxdarts.reports.sweep import write_sweep_report
    from jaxdarts.reports.table import write_table_report

    folder = Path(run_dir)
    if is_file(folder / SWEEP_FILE):
        return write_sweep_report(folder)
    config = read_config(folder)
    command = run_command(config)
    if command == "tabulate":
        return write_table_report(folder)
    if command == "evaluate":
        page = render_evaluation(read_evaluation(folder))
        finished, genotype = (folder / RESULT_FILE).exists(), recorded_genotype
        title = Path(str(config.get("genotype"))).name
    else:
        page = _search_page(folder, config)
        finished, genotype = (folder / GENOTYPE_FILE).exists(), read_genotype
        title = str((config.get("search_space") or config).get("name", config.get("space")))
    path = folder / REPORT_FILE
    if finished:
        with one_line_errors("write", folder):
            save_cells(genotype(folder), folder / "cells.svg", folder / "cells.png", title=title)
    with one_line_errors("write", path):
        write_atomically(path, page)
    return path


def _search_page(folder: Path, config: Mapping[str, Any]) -> str:
    from jaxdarts.reports.population import render_population
    from jaxdarts.reports.search import render_search
    from jaxdarts.reports.stages import render_stages

    if is_population(config):
        return render_population(folder, config)
    return render_stages(folder, config) if is_staged(config) else render_search(read_run(folder))


def write_pages(run_dir: str | Path) -> None:
    """As `write_report`, at the end of a run, whose result is worth more than its page.

    Where a page cannot be made, that is told, with the command that tries again.
    """
    try:
        write_report(run_dir)
    except Exception as error:  # whatever a library says of what it was given
        reason = " ".join(str(error).split()) or type(error).__name__
        say_error(
            f"warning: the result is in {str(run_dir)!r}, but its report could not be written: {shorten(reason, 200)}; "
            f"python -m jaxdarts.report {run_dir} writes it again"
        )


def report_line(run_dir: str | Path) -> str:
    """Where the report is, if there is one: the last line of a command."""
    path = Path(run_dir) / REPORT_FILE
    return f"report: {path}" if path.exists() else f"report: none; python -m jaxdarts.report {run_dir} writes it"
