"""The command `python -m jaxdarts.report`: how is the report of a run or a sweep written again?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say
from jaxdarts.runs.parser import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes report.html, and a sweep's tables, from the files in a folder and prints the page's path.

    Returns:
      The exit code: 0 done, 2 bad input, 1 if the page could not be written.
    """
    return exit_code(lambda: _report(argv))


def _report(argv: Sequence[str] | None) -> None:
    parser = CommandParser(
        prog="python -m jaxdarts.report",
        description="Writes report.html again from a folder's files; a sweep's tables too.",
    )
    parser.add_argument(
        "run_dir", metavar="DIR", help="folder that a search, an evaluation or a sweep wrote, finished or not"
    )
    arguments = parser.parse_args(argv)
    # Imports matplotlib, for which --help should not wait.
    from jaxdarts.reports.write import write_report

    say(str(write_report(arguments.run_dir)))


if __name__ == "__main__":
    sys.exit(main())
