"""The command `python -m jaxdarts.tabulate`: how are all architectures of a small space trained?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from jaxdarts.runs.allocator import keep_freed_memory, restart_with_large_pages, step_size
from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say

if TYPE_CHECKING:  # JAX is not imported before the restart with large pages
    from jaxdarts.plans.training_settings import TabulateConfig
    from jaxdarts.reports.table_record import Table


class TabulationResult(NamedTuple):
    """A finished table, and where its files are."""

    table: Table
    run_dir: Path


def run_tabulation(
    config: TabulateConfig, run_dir: str | Path | None = None, *, resume: bool = False, stream: TextIO | None = None
) -> TabulationResult:
    """Trains every architecture of a space from scratch: everything that `python -m jaxdarts.tabulate` does.

    Each is trained as `run_evaluation` trains it, to the same bits where the data set does not depend on the seed: the
    images are those of `config.seed` for all. What has ended is kept at once, a line of metrics.jsonl each, and
    table.json is written of them when the run ends or is stopped; a training in progress is repeated.

    Args:
      config: which space, and how its architectures are trained.
      run_dir: where the files go; None makes a new folder below `runs/`.
      resume: go on with the table in `run_dir`; trainings in it are not repeated.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the table holds the trainings that had ended.
      RunError: a loss was not finite, or a file could not be written.
    """
    from jaxdarts.networks import OPERATIONS
    from jaxdarts.plans.table import table_banner, table_plan
    from jaxdarts.reports.table_record import TABLE_FILE, read_table
    from jaxdarts.reports.write import write_pages
    from jaxdarts.runs.engine import run_plan
    from jaxdarts.runs.progress import print_banner
    from jaxdarts.runs.start import started
    from jaxdarts.spaces import genotype_from_json, load_space, space_from_json, space_to_json
    from jaxdarts.tasks import kind_of

    config.check()
    prepared: list[Any] = []

    def build(recorded: Mapping[str, Any]) -> Any:
        # The space as it was recorded: its file may have changed since.
        space = space_from_json(recorded["search_space"]) if recorded else load_space(config.space, OPERATIONS)
        data = kind_of(space).training_data(config, None)
        prepared.extend((space, data))
        return None, {"search_space": space_to_json(space), **kind_of(space).facts(data)}

    name = f"table-{config.space}"
    with started(config, run_dir, resume, stream, build, name=name, on_result=write_pages, unit="training") as run:
        space, data = prepared
        store = run.store
        store.load()

        def write_table() -> None:
            store.write_json(TABLE_FILE, {**store.read_config(), "entries": store.records})

        if not resume:
            write_table()
        done = [(genotype_from_json(entry["genotype"]).canonical(), entry["seed"]) for entry in store.records]
        title, facts = table_banner(config, space, data, run.around.device, str(store.path), len(done))
        print_banner(title, facts, stream)
        try:
            run_plan(table_plan(config, space, data, done), store, run.around)
        finally:
            write_table()
        run.around.on_result(store.path)
        return TabulationResult(read_table(store.path), store.path)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what the flags ask for and is not in the table yet, and prints which architecture is the best.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _tabulate(argv))


def _tabulate(argv: Sequence[str] | None) -> None:
    from jaxdarts.runs.command_line import parse_tabulate

    config, options = parse_tabulate(argv)
    keep_freed_memory(step_size(config))
    from jaxdarts.reports.measure import measure_of, plural
    from jaxdarts.reports.write import report_line
    from jaxdarts.runs.compilation import quicken_compilation

    quicken_compilation()
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_tabulation(config, run_dir, resume=options.resume)
    found = list(result.table.errors.items())
    (genotype, least), (_, most) = found[0], found[-1]
    measure = measure_of(genotype)
    ends = f"from {measure.text(least)} to {measure.text(most)}"
    say(f"done: test {plural(measure.result)} {ends}, the best of {genotype.to_text()}")
    say(report_line(result.run_dir))


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
