"""The command `python -m jaxdarts.report`: how is a run's report written again?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaxdarts.errors import InputError, RunError

DONE, FAILED, BAD_INPUT = 0, 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes report.html from the files in a run's folder and prints its path.

    Returns:
      The exit code: 0 done, 2 bad input, 1 if the page could not be written.
    """
    parser = _Parser(prog="python -m jaxdarts.report", description="Writes a run's report.html again from its files.")
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder that a search wrote, finished or not")
    try:
        arguments = parser.parse_args(argv)
        from jaxdarts.runs.report import write_report  # imports matplotlib, for which --help should not wait

        print(write_report(arguments.run_dir))
        return DONE
    except InputError as error:
        return _fail(error, BAD_INPUT)
    except RunError as error:
        return _fail(error, FAILED)


def _fail(message: object, code: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
