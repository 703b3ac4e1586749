"""The command `python -m jaxdarts.search`: how is a search started from a shell?"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.runs.allocator import restart_with_large_pages
from jaxdarts.runs.command_line import parse_search

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the search that the flags ask for and prints what it found.

    Returns:
      The exit code: 0 done, 2 bad input, 130 interrupted after saving, 1 anything else that failed.
    """
    try:
        config, options = parse_search(argv)
        from jaxdarts.runs.compilation import quicken_compilation
        from jaxdarts.runs.loop import run_search  # imports JAX, for which --help and a mistyped flag should not wait

        quicken_compilation()

        run_dir = None if options.run_dir is None else Path(options.run_dir)
        result = run_search(config, run_dir, resume=options.resume)
        print(f"done: {result.genotype.to_text()}\nreport: {result.run_dir / 'report.html'}")
        return DONE
    except InputError as error:
        return _fail("error", error, BAD_INPUT)
    except RunInterrupted as error:
        return _fail("interrupted", error, INTERRUPTED)
    except RunError as error:
        return _fail("error", error, FAILED)
    except BrokenPipeError:  # the reader of `... | head` has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return _fail("interrupted", "nothing was saved", INTERRUPTED)
    except Exception:
        traceback.print_exc()
        return FAILED


def _fail(kind: str, message: object, code: int) -> int:
    print(f"{kind}: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    restart_with_large_pages()
    sys.exit(main())
