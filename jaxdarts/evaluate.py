"""The command `python -m jaxdarts.evaluate`: how does a training run from a genotype to its test result?"""

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
    from jaxdarts.plans.training_settings import EvaluateConfig
    from jaxdarts.spaces import Architecture


class EvaluationResult(NamedTuple):
    """How well a genotype does when it is trained from scratch, and where the run's files are."""

    genotype: Architecture
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: SearchState  # after the last step
    best_epoch: int | None  # the best on what was held out, the first of equals; None if nothing was
    parameters: int  # as `network_cost` counts them
    multiply_adds: int  # of one image, or of one word
    # What the papers report, after the last epoch and after the best; None: nothing was tested, or it's another task's.
    test_error: float | None = None  # of images, between 0 and 1
    best_test_error: float | None = None
    test_perplexity: float | None = None  # of text
    best_test_perplexity: float | None = None


def run_evaluation(
    config: EvaluateConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    stream: TextIO | None = None,
) -> EvaluationResult:
    """A whole evaluation: everything that `python -m jaxdarts.evaluate` does.

    Args:
      config: which genotype is trained, and how.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir` from its newest checkpoint, with the genotype that it began with; the
        result is that of an unbroken run.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    from jaxdarts.errors import InputError
    from jaxdarts.plans.evaluate import evaluate_plan
    from jaxdarts.reports.write import write_pages
    from jaxdarts.runs.engine import run_plan
    from jaxdarts.runs.start import started
    from jaxdarts.spaces import genotype_from_json

    config.check()
    plans: list[Any] = []

    def build(recorded: Mapping[str, Any]) -> Any:
        if recorded and "architecture" not in recorded:
            raise InputError(f"run_dir: {str(run_dir)!r} holds no architecture, so no evaluation wrote it")
        genotype = genotype_from_json(recorded["architecture"]) if recorded else choose_genotype(config)
        plans.append(evaluate_plan(config, genotype))
        built = plans[0]([]).build()
        return built, built.facts

    name = f"evaluate-{config.genotype}"
    with started(config, run_dir, resume, stream, build, name=name, on_result=write_pages) as run:
        ended = run_plan(plans[0], run.store, run.around, run.built)
        run.around.on_result(run.store.path)
        trained = ended[0].results[0]
        genotype = genotype_from_json(run.built.facts["architecture"])  # type: ignore[union-attr]
        metrics = list(run.store.records)
        return EvaluationResult(genotype, run.store.path, metrics, trained.outcome.state, **trained.result)


def choose_genotype(config: EvaluateConfig) -> Architecture:
    """The genotype that the settings name.

    Raises:
      InputError: there is none, its network cannot be built, it does not belong to `config.space`, or it needs more
        cells.
    """
    from jaxdarts.networks import OPERATIONS
    from jaxdarts.networks.macro import check_cells
    from jaxdarts.spaces import find_genotype, load_space

    space = None if config.space is None else load_space(config.space, OPERATIONS)
    genotype = find_genotype(config.genotype, OPERATIONS, space)
    if space is not None:
        space.check_genotype(genotype)
    if hasattr(config, "cells"):
        check_cells(genotype.macro, config.cells)
    return genotype


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the genotype that the flags name and prints how well it does and its size.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> None:
    from jaxdarts.runs.command_line import parse_evaluate

    config, options = parse_evaluate(argv)
    keep_freed_memory(step_size(config))
    from jaxdarts.reports.measure import measure_of
    from jaxdarts.reports.write import report_line
    from jaxdarts.runs.compilation import quicken_compilation
    from jaxdarts.runs.processes import connect, is_first

    quicken_compilation()
    connect(options, {"resume": options.resume, **config.flat()})
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_evaluation(config, run_dir, resume=options.resume)
    if not is_first():
        return
    measure = measure_of(result.genotype)
    last, best = (getattr(result, f"{name}_{measure.result}") for name in ("test", "best_test"))
    say(f"done: test {measure.result} {measure.text(last)} after the last epoch")
    if result.best_epoch is not None:
        epoch = f"{result.best_epoch + 1}/{config.epochs}, the best by validation {measure.objective}"
        say(f"      test {measure.result} {measure.text(best)} after epoch {epoch}")
    say(f"      {result.parameters:,} parameters, {result.multiply_adds:,} multiply-adds {measure.words.example}")
    say(report_line(result.run_dir))


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
