"""The command `python -m jaxdarts.sweep`: how is a grid of searches run from a shell?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdarts.errors import InputError
from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say
from jaxdarts.runs.parser import CommandParser

if TYPE_CHECKING:
    from jaxdarts.runs.sweep.loop import SweepResult


def run_sweep(path: str | Path, sweep_dir: str | Path | None = None, **options: Any) -> SweepResult:
    """All runs of a sweep file that have not finished yet, then the tables: what `python -m jaxdarts.sweep` does.

    Arguments and errors are those of `jaxdarts.runs.sweep.loop.run_sweep`: `jobs`, `retry`, `variants`, `executor`,
    `stream`.
    """
    from jaxdarts.reports.sweep_record import told
    from jaxdarts.reports.write import write_pages
    from jaxdarts.runs.sweep import loop

    return loop.run_sweep(path, sweep_dir, told=told, on_result=write_pages, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what a sweep file asks for and has not finished yet, and prints where the tables are.

    Returns:
      The exit code, as `exit_code` says; 1 also if any run failed.
    """
    return exit_code(lambda: _sweep(argv))


def _sweep(argv: Sequence[str] | None) -> None:
    parser = CommandParser(
        prog="python -m jaxdarts.sweep",
        description="Runs a grid of searches, each in a process and a folder of its own, and writes tables over seeds. "
        "The same command continues a sweep that was stopped; finished runs are not repeated.",
    )
    parser.add_argument("file", metavar="SWEEP_FILE", help="TOML file with the tables search, grid and evaluate")
    parser.add_argument(
        "--sweep-dir", metavar="DIR", help="folder for the runs; runs/ and the file's name if not given"
    )
    parser.add_argument("--jobs", metavar="N", type=int, help="runs at a time (default 1; on a cluster as many as fit)")
    parser.add_argument("--variants", metavar="NAMES", help="only runs of these variants, with commas between them")
    parser.add_argument("--retry", action="store_true", help="also continue runs that failed earlier")
    cluster = parser.add_argument_group("several machines, which must see the same folder DIR")
    cluster.add_argument("--cluster", metavar="ADDRESS", help="of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT")
    cluster.add_argument("--cpus-per-run", metavar="N", type=float, help="CPUs set aside for a run (default 1)")
    cluster.add_argument(
        "--gpus-per-run", metavar="N", type=float, help="GPUs for a run, or a part of one (default 1 if there are any)"
    )
    cluster.add_argument(
        "--attempts", metavar="N", type=int, help="how often a run is started when machines are lost (default 3)"
    )
    arguments = parser.parse_args(argv)
    executor = None
    options = {name: getattr(arguments, name) for name in ("cpus_per_run", "gpus_per_run", "attempts")}
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.cluster is None and options:
        raise InputError(f"{', '.join(options)}: only with --cluster ADDRESS")
    if arguments.cluster is not None:
        from jaxdarts.runs.sweep.cluster import RayExecutor

        executor = RayExecutor(arguments.cluster, jobs=arguments.jobs, **options)
    from jaxdarts.reports.write import report_line
    from jaxdarts.runs.sweep.loop import raise_for_failures

    result = run_sweep(
        arguments.file,
        arguments.sweep_dir,
        jobs=1 if arguments.jobs is None else arguments.jobs,
        retry=arguments.retry,
        variants=None if arguments.variants is None else arguments.variants.split(","),
        executor=executor,
    )
    if any(entry["state"] == "done" for entry in result.states.values()):
        say(report_line(result.sweep_dir))
    raise_for_failures(result)


if __name__ == "__main__":
    sys.exit(main())
