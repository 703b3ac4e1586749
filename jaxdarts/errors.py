"""How bad input is reported: one line that names the argument, the value and the choices."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """A value given by the user cannot be used. The message is one line and is shown without a traceback."""


def unknown_choice(argument: str, value: object, choices: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry.

    Example: `unknown space 's9'; choose from darts, s1 (did you mean 's1'?)`.
    """
    names = sorted(choices)
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return InputError(f"unknown {argument} {shorten(repr(value))}; choose from {', '.join(names)}{hint}")


def shorten(text: str, length: int = 120) -> str:
    """The text, cut to so many characters: what a message quotes should leave its line readable."""
    return text if len(text) <= length else text[: length - 3] + "..."


class RunError(RuntimeError):
    """A run could not go on: full disk, unwritable folder, non-finite loss. One line, shown without a traceback."""


class RunInterrupted(RunError):
    """The user stopped the run (Ctrl-C, SIGTERM) and its state was saved. The message says how to continue."""


@contextlib.contextmanager
def one_line_errors(action: str, path: object) -> Iterator[None]:
    """Turns an OSError into a RunError of one line: "cannot <action> <path>: No space left on device"."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot {action} {str(path)!r}: {error.strerror or error}") from error
