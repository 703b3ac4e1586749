"""How are files written so that nobody ever reads half of one, and how do numbers get into JSON and back?"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, shorten

_TEMPORARY = re.compile(r"\.jaxdarts-[0-9a-f]{16}\.tmp")  # the names of files that are being written


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Writes a temporary file in the same folder, flushes it to the disk and renames it over `path`.

    After a crash `path` holds the old content or the new, never a part. Raises OSError where the folder cannot be
    written or the disk is full; the temporary file is then gone. Its name cannot be guessed and no link is followed,
    so it writes to no file that somebody else has laid there.
    """
    path = Path(path)
    # A name that is not UTF-8 must not end a run when its report is written: it is shown by its bytes.
    content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".jaxdarts-{secrets.token_hex(8)}.tmp")
    # Not the tempfile module, whose files only their owner can read.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a killed `write_atomically` left."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporary(folder: Path, is_foreign: Callable[[Path], bool] = lambda path: False) -> None:
    """Removes what killed writes left in a folder and the folders below it, except in those that are foreign."""
    for place, folders, names in os.walk(folder):  # follows no links
        folders[:] = [name for name in folders if not is_foreign(Path(place, name))]
        for name in filter(is_temporary, names):
            Path(place, name).unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """So that a new name survives a crash of the machine, too. Some file systems cannot: the file is whole anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def as_json(value: Any) -> Any:
    """A JSON value: arrays become lists, their scalars numbers, and NaN and infinities, which JSON lacks, null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_text(value: Any) -> str:
    """A file's text for a value."""
    return json.dumps(as_json(value), indent=2, allow_nan=False) + "\n"


def read_json(path: str | Path, argument: str) -> Any:
    """The value in a file. Raises InputError where there is none; `argument` is what the message begins with."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError among them
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{argument}: cannot read {shorten(repr(str(path)), 200)}: {reason}") from error


def append_line(path: str | Path, record: Mapping[str, Any]) -> None:
    """Appends one JSON object as a line and flushes it to the disk, so that it survives a crash of the machine.

    A last line that an earlier crash tore is removed first.
    """
    line = json.dumps(as_json(record), allow_nan=False) + "\n"
    with open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                whole = _whole_part(file.read())
                file.truncate(len(whole))
                if whole and not whole.endswith(b"\n"):
                    line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    if not end:
        _flush_folder(Path(path).parent)


def read_lines(path: str | Path, argument: str = "metrics") -> list[dict[str, Any]]:
    """The objects in the order they were written; a torn last line is left out, a missing file has none.

    Raises:
      InputError: an earlier line is not a JSON object; the message names the file and the line.
    """
    records = []
    for number, line in enumerate(raw_lines(path, argument), start=1):
        record = _parse(line)
        if not isinstance(record, dict):
            raise InputError(f"{argument}: line {number} of {str(path)!r} is not a JSON object")
        records.append(record)
    return records


def keep_lines(path: str | Path, count: int) -> None:
    """Keeps the first lines of a file, byte for byte."""
    path = Path(path)
    lines = raw_lines(path)
    if len(lines) > count:
        write_atomically(path, b"".join(line + b"\n" for line in lines[:count]))


def raw_lines(path: str | Path, argument: str = "metrics") -> list[bytes]:
    """The lines as they are, without a torn last one; none if there is no file. Raises InputError as `read_lines`."""
    try:
        return _whole_part(Path(path).read_bytes()).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{argument}: cannot read {str(path)!r}: {error.strerror or error}") from error


def _whole_part(content: bytes) -> bytes:
    """The content up to a torn last line. A line without its newline is whole if it parses: `}` comes last."""
    end = content.rfind(b"\n") + 1
    return content if isinstance(_parse(content[end:]), dict) else content[:end]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # the first: JSONDecodeError and UnicodeDecodeError among them
        return None
