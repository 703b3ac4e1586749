"""The command `python -m jaxdarts.search`: how does a search run from its settings to its report?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from jaxdarts.runs.allocator import keep_freed_memory, restart_with_large_pages, step_size
from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say

if TYPE_CHECKING:  # JAX is not imported before the restart with large pages
    from jaxdarts.methods import SearchState
    from jaxdarts.plans.search_settings import SearchConfig
    from jaxdarts.spaces import Architecture


class SearchResult(NamedTuple):
    """What a finished search found, and where its files are."""

    genotype: Architecture
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: SearchState | list[SearchState]  # at the end of the epoch that is returned; of several searches a list


def run_search(
    config: SearchConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    stream: TextIO | None = None,
) -> SearchResult:
    """A whole search: everything that `python -m jaxdarts.search` does.

    Args:
      config: what to search, and how.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir` from its newest checkpoint; the result is that of an unbroken run.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    import jax

    from jaxdarts.errors import InputError
    from jaxdarts.methods import METHODS
    from jaxdarts.plans import perturbation, robust
    from jaxdarts.plans.members import member_settings
    from jaxdarts.plans.search import DIAGNOSTICS_FILE
    from jaxdarts.plans.staged import plan_of
    from jaxdarts.precision import check_devices
    from jaxdarts.reports.write import write_pages
    from jaxdarts.runs.checkpoint import Checkpoints
    from jaxdarts.runs.engine import run_plan
    from jaxdarts.runs.start import started
    from jaxdarts.runs.store import CHECKPOINT_FOLDER
    from jaxdarts.spaces import space_from_json
    from jaxdarts.spaces.files import GENOTYPE_FILE

    config = perturbation.completed(config)
    members = member_settings(config)
    check_devices()
    if len(members) > 1 and jax.process_count() > 1:
        raise InputError(
            f"population must be 1 where several processes make one run; got {len(members)} (method {config.method!r})"
        )
    if METHODS[config.method].in_stages and jax.process_count() > 1:
        # A stage reads the files of the one before, which only the first process has for certain.
        raise InputError(f"method {config.method!r} searches in stages, which several processes cannot do together")

    plans = []

    def restore(path: Path, step: int, like: Any) -> Any:
        return Checkpoints(path / CHECKPOINT_FOLDER).restore(step, like).state

    def build(recorded: Mapping[str, Any]) -> Any:
        # The space as it was recorded: its file may have changed since.
        space = space_from_json(recorded["search_space"]) if "search_space" in recorded else None
        config.check(space)
        plans.append(plan_of(config, members, space, restore))
        stage = plans[0]([])
        assert stage is not None
        built = stage.build()
        return built, built.facts

    name = config.space
    with started(config, run_dir, resume, stream, build, name=name, on_result=write_pages) as run:
        assert run.built is not None
        task = run.built.experiments[0].task
        ended = run_plan(plans[0], run.store, run.around, run.built)
        found = (ended[0] if len(members) > 1 else ended[-1]).results
        genotype, diagnostics = found[0].genotype, found[0].diagnostics
        state: Any = found[0].outcome.state
        records = run.store.records or found[0].outcome.records
        if len(members) > 1:
            choice = robust.choose(config, members, ended, task)
            genotype, diagnostics = choice
            state = [one.outcome.state for one in found]
        if found[0].outcome.path != run.store.path:
            run.store.write_json(DIAGNOSTICS_FILE, diagnostics)
            run.store.write_json(GENOTYPE_FILE, genotype.to_json())
        run.around.on_result(run.store.path)
        return SearchResult(genotype, run.store.path, list(records), state)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the search that the flags ask for and prints what it found.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _search(argv))


def _search(argv: Sequence[str] | None) -> None:
    from jaxdarts.runs.command_line import parse_search

    config, options = parse_search(argv)
    keep_freed_memory(step_size(config))
    from jaxdarts.reports.write import report_line
    from jaxdarts.runs.compilation import quicken_compilation
    from jaxdarts.runs.processes import connect, is_first

    quicken_compilation()
    connect(options, {"resume": options.resume, **config.flat()})
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_search(config, run_dir, resume=options.resume)
    if is_first():
        say(f"done: {result.genotype.to_text()}\n{report_line(result.run_dir)}")


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
