"""How does a run speak, and go on if nobody can hear it?

A run computes for days and must not die of its own messages: standard output may be closed, its disk full, its reader
gone, or the terminal may not know a letter.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


class Messages(io.TextIOBase):
    """A stream that never raises. What cannot be written is told once on standard error; then it is silent.

    Args:
      stream: where to write; standard output if None, which itself may be None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._is_silent = self._stream is None

    def write(self, text: str) -> int:
        """Writes and flushes."""
        if self._is_silent:
            return len(text)
        try:
            self._stream.write(_spelt(text, self._stream))
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: closed
            self._is_silent = True
            is_error = self._stream is sys.stderr
            abandon(self._stream)
            if not is_error:
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                say_error(f"warning: cannot write messages ({reason}); going on without them")
        return len(text)

    def flush(self) -> None:
        """Nothing: every write is flushed."""

    def isatty(self) -> bool:
        """Whether somebody sits there."""
        try:
            return not self._is_silent and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Of the stream, for the width of a terminal."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True


def say(text: str, stream: TextIO | Messages | None = None) -> None:
    """Prints a line, to standard output if no stream is given; see `Messages`."""
    (stream if isinstance(stream, Messages) else Messages(stream)).write(text + "\n")


def say_error(text: str) -> None:
    """Prints a line to standard error, if that is possible."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        stream.write(_spelt(text, stream) + "\n")
        stream.flush()
    except (OSError, ValueError):
        abandon(stream)


def open_closed_streams() -> None:
    """Gives a process that was started without standard streams (`>&-`) ones that lead nowhere.

    Otherwise Python has None in their place, and the next files that are opened get their numbers: what any library
    then prints from C would go into a checkpoint. To be called first of all.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        stream = open(os.devnull, "r" if number == 0 else "w")  # noqa: SIM115
        os.set_inheritable(stream.fileno(), True)  # it got the lowest number that is free: its own
        setattr(sys, name, stream)


def flush_streams() -> None:
    """Writes out what Python holds back, as far as that is possible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            abandon(stream)


def _spelt(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding lacks written as an escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        with contextlib.suppress(LookupError):
            return text.encode(encoding, "backslashreplace").decode(encoding)
        return text.encode("ascii", "backslashreplace").decode()


def abandon(stream: TextIO) -> None:
    """Leads a process's own broken stream nowhere, or its last flush would fail when Python ends: exit code 120."""
    for name in ("stdout", "stderr"):
        if stream is getattr(sys, name):
            nowhere = open(os.devnull, "w")  # noqa: SIM115
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nowhere.fileno(), stream.fileno())
            setattr(sys, name, nowhere)
