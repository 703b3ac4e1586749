"""The command `python -m jaxdarts.regret`: how far from the best of their space do searches end, and stray?"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say
from jaxdarts.runs.parser import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    """Looks up the genotype of every epoch of searches in a table, and prints where the figure and its page are.

    Returns:
      The exit code, as `exit_code` says.
    """
    return exit_code(lambda: _regret(argv))


def _regret(argv: Sequence[str] | None) -> None:
    parser = CommandParser(
        prog="python -m jaxdarts.regret",
        description="Draws the test regret of searches' current genotypes by epoch: their test error in a table that "
        "python -m jaxdarts.tabulate made, minus the least in it. Lines are means over seeds.",
    )
    parser.add_argument("table", metavar="TABLE", help="folder of a finished table")
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", help="folders of searches, or of sweeps")
    parser.add_argument(
        "--output-dir", metavar="DIR", help="folder for regret.html, .csv and .svg; the table's if not given"
    )
    arguments = parser.parse_args(argv)
    from jaxdarts.reports.regret import write_regret  # imports matplotlib, for which --help should not wait

    say(f"report: {write_regret(arguments.table, arguments.run_dirs, arguments.output_dir)}")


if __name__ == "__main__":
    sys.exit(main())
