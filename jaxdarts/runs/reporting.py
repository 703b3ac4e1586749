"""How does a run that has ended get its pictures and its page?

The only place in `runs` that knows the reports; it imports them when they are wanted, with matplotlib.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jaxdarts.runs.record import REPORT_FILE


def write_report(folder: Path) -> None:
    """Draws the cells and writes the page of a run, a table or a sweep, whose result is in its files already.

    Whatever goes wrong is told in one line and costs nothing but the report.
    """
    try:
        from jaxdarts.reports import write

        write.write_report(folder)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(
            f"warning: the result is in {str(folder)!r}, but its report could not be written: {reason}; "
            f"python -m jaxdarts.report {folder} writes it again",
            file=sys.stderr,
        )


def report_line(folder: Path) -> str:
    """Where the page is, for people."""
    page = folder / REPORT_FILE
    return f"report: {page}" if page.exists() else f"report: none; python -m jaxdarts.report {folder} writes it"
