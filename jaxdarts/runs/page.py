"""What are the pieces that a report's page is put together from?"""

from __future__ import annotations

import html


def card(heading: str, content: str, note: str = "") -> str:
    """A framed part of the page; says so where there is nothing to show."""
    note = f'<p class="muted small">{note}</p>' if content and note else ""
    content = content or '<p class="muted">Nothing was measured.</p>'
    return f'<section class="card"><h3>{heading}</h3>{content}{note}</section>'


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers; everything is escaped."""

    def row(cells: list[str], tag: str) -> str:
        first, *rest = (escape(cell) for cell in cells)
        return f"<tr><{tag}>{first}</{tag}>{''.join(f'<{tag} class=number>{cell}</{tag}>' for cell in rest)}</tr>"

    return f"<table>{row(header, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def number(value: float) -> str:
    """Four significant digits, or a whole number as it is."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def escape(value: object) -> str:
    """Text as the page's source."""
    return html.escape(str(value))
