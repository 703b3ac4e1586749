"""The command `python -m jaxdarts.evaluate`: how is a genotype's test error found from a shell?"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.runs.allocator import keep_freed_memory, restart_with_large_pages
from jaxdarts.runs.command_line import parse_evaluate
from jaxdarts.runs.exit_codes import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the genotype that the flags name and prints its test error and size.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> None:
    config, options = parse_evaluate(argv)
    keep_freed_memory(config.batch_size, config.image_size, config.channels, config.cells)
    from jaxdarts.runs.compilation import quicken_compilation
    from jaxdarts.runs.evaluate.loop import run_evaluation  # imports JAX, for which --help should not wait
    from jaxdarts.runs.processes import is_first
    from jaxdarts.runs.rendezvous import connect
    from jaxdarts.runs.reporting import report_line

    quicken_compilation()
    connect(options, {"resume": options.resume, **dataclasses.asdict(config)})
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_evaluation(config, run_dir, resume=options.resume)
    if not is_first():
        return
    assert result.test_error is not None  # only None where there is nothing to test on
    print(f"done: test error {result.test_error:.2%} after the last epoch")
    if result.best_epoch is not None:
        best = f"{result.best_epoch + 1}/{config.epochs}, the best by validation accuracy"
        print(f"      test error {result.best_test_error:.2%} after epoch {best}")
    print(f"      {result.parameters:,} parameters, {result.multiply_adds:,} multiply-adds an image")
    print(report_line(result.run_dir))


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
