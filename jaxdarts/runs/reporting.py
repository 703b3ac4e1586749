"""How does a run that has ended get its pictures and its page?

The only place in `runs` that knows the reports; it imports them when they are wanted, with matplotlib.
"""

from __future__ import annotations

from pathlib import Path

from jaxdarts.runs.folder import one_line_errors
from jaxdarts.spaces import Architecture


def save_cells(genotype: Architecture, folder: Path, title: str) -> None:
    """Draws the cells into `cells.svg` and `cells.png`. Raises RunError where these cannot be written."""
    from jaxdarts.reports import draw

    with one_line_errors("write", folder):
        draw.save_cells(genotype, folder / "cells.svg", folder / "cells.png", title=title)


def write_report(folder: Path) -> None:
    """Writes the page of a run, a table or a sweep. Raises RunError where it cannot be written."""
    from jaxdarts.reports import write

    with one_line_errors("write", folder / "report.html"):
        write.write_report(folder)
