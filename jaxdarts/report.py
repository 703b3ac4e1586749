"""The command `python -m jaxdarts.report`: how is the report of a run or a sweep written again?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.parser import CommandParser

DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Writes report.html, and a sweep's tables, from the files in a folder and prints the page's path.

    Returns:
      The exit code: 0 done, 2 bad input, 1 if the page could not be written.
    """
    parser = CommandParser(
        prog="python -m jaxdarts.report",
        description="Writes report.html again from a folder's files; a sweep's tables too.",
    )
    parser.add_argument(
        "run_dir", metavar="DIR", help="folder that a search, an evaluation or a sweep wrote, finished or not"
    )
    try:
        arguments = parser.parse_args(argv)
        # Imports matplotlib, for which --help should not wait.
        from jaxdarts.reports.write import write_report

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
