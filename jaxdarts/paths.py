"""Is there such a file or folder, and which text does it hold, whatever the name and whichever editor wrote it?"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from pathlib import Path

from jaxdarts.errors import InputError, shorten

# What the system says of names that lead nowhere. `Path.is_file` raises for the last: a text given for a name.
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def exists(path: str | Path) -> bool:
    """Whether a file or folder has this name. Raises InputError where the system refuses to say."""
    return _mode(path) is not None


def is_file(path: str | Path) -> bool:
    """As `exists`, for a file."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: str | Path) -> bool:
    """As `exists`, for a folder."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def check_name(path: str | Path, argument: str) -> None:
    """Raises InputError for what can't be the name of a file or folder: too long, or with a null character."""
    try:
        os.stat(path)
    except ValueError as error:
        raise InputError(f"{argument}: {shorten(repr(str(path)))} can't be a name: {error}") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{argument}: {shorten(repr(str(path)))} can't be a name: it is too long") from error


def read_text(path: str | Path, argument: str) -> str:
    """A file's text: UTF-8 with or without a byte order mark, or UTF-16 with one; lines end in a newline.

    Raises:
      InputError: the file cannot be read, or holds no such text; `argument` is what the message begins with.
    """
    try:
        content = Path(path).read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{argument}: cannot read {shorten(repr(str(path)), 200)}: {reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _mode(path: str | Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except ValueError:  # a null character, or one that the file system's encoding lacks
        return None
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return None
        raise InputError(f"cannot look at {str(path)!r}: {error.strerror}") from error
