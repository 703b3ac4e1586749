"""How does any text, whoever wrote it, come through pictures, pages and graphs as it is?"""

from __future__ import annotations

import html

LONGEST = 60  # characters of a label; more of a long text's middle is left out


def printable(text: object) -> str:
    """One line of text that every file can hold: white space becomes blanks, what is no character a mark."""
    line = "".join(" " if letter.isspace() else letter for letter in str(text))
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def label(text: object) -> str:
    """As `printable`, of bounded length."""
    line = printable(text)
    half = LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[: half - 1]}\N{HORIZONTAL ELLIPSIS}{line[-half:]}"


def escape(text: object) -> str:
    """Text as HTML."""
    return html.escape("".join(letter if _is_xml(letter) else "\N{REPLACEMENT CHARACTER}" for letter in str(text)))


def _is_xml(letter: str) -> bool:
    return letter.isprintable() or letter in "\n\t" or letter.isspace()
