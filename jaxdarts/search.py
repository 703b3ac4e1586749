"""The command `python -m jaxdarts.search`: how is a search started from a shell?"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.runs.allocator import keep_freed_memory, restart_with_large_pages
from jaxdarts.runs.command_line import parse_search
from jaxdarts.runs.exit_codes import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the search that the flags ask for and prints what it found.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _search(argv))


def _search(argv: Sequence[str] | None) -> None:
    config, options = parse_search(argv)
    keep_freed_memory(config.batch_size, config.image_size, config.channels, config.cells)
    from jaxdarts.runs.compilation import quicken_compilation
    from jaxdarts.runs.processes import is_first
    from jaxdarts.runs.rendezvous import connect
    from jaxdarts.runs.reporting import report_line
    from jaxdarts.runs.search.loop import (
        run_search,  # imports JAX, for which --help and a mistyped flag should not wait
    )

    quicken_compilation()
    connect(options, {"resume": options.resume, **dataclasses.asdict(config)})
    run_dir = None if options.run_dir is None else Path(options.run_dir)
    result = run_search(config, run_dir, resume=options.resume)
    if not is_first():
        return
    print(f"done: {result.genotype.to_text()}\n{report_line(result.run_dir)}")


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
