"""The command `python -m jaxdarts.tabulate`: how are all architectures of a small space trained from a shell?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.runs.allocator import keep_freed_memory, restart_with_large_pages
from jaxdarts.runs.command_line import parse_tabulate
from jaxdarts.runs.exit_codes import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what the flags ask for and is not in the table yet, and prints which architecture is the best.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _tabulate(argv))


def _tabulate(argv: Sequence[str] | None) -> None:
    config, options = parse_tabulate(argv)
    keep_freed_memory(config.batch_size, config.image_size, config.channels, config.cells)
    from jaxdarts.runs.compilation import quicken_compilation
    from jaxdarts.runs.reporting import report_line
    from jaxdarts.runs.table.loop import run_tabulation  # imports JAX, for which --help should not wait

    quicken_compilation()
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_tabulation(config, run_dir, resume=options.resume)
    errors = list(result.table.errors.items())
    print(f"done: test errors from {errors[0][1]:.2%} to {errors[-1][1]:.2%}, the best of {errors[0][0].to_text()}")
    print(report_line(result.run_dir))


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
