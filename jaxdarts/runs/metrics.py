"""How are a run's numbers kept, one JSON object an epoch?"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.runs.files import write_atomically


def append_metrics(path: str | Path, record: Mapping[str, Any]) -> None:
    """Appends one line and flushes it to the disk, so that it survives a crash of the machine.

    Arrays and array scalars become lists and numbers; NaN and infinities, which JSON lacks, become null. A last line
    that an earlier crash tore is removed first.
    """
    line = json.dumps(as_json(record), allow_nan=False) + "\n"
    with open(path, "a+b") as file:
        file.seek(0)
        content = file.read()
        whole = _whole_part(content)
        if len(whole) < len(content):
            file.truncate(len(whole))
        if whole and not whole.endswith(b"\n"):
            line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records in the order they were written; a torn last line is left out, a missing file has none.

    Raises:
      InputError: an earlier line is not a JSON object; the message names the file and the line.
    """
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        record = _parse(line)
        if not isinstance(record, dict):
            raise InputError(f"metrics: line {number} of {str(path)!r} is not a JSON object")
        records.append(record)
    return records


def read_lines(path: str | Path) -> list[bytes]:
    """The lines as they are, without a torn last one; none if there is no file.

    Raises:
      InputError: the file cannot be read.
    """
    try:
        return _whole_part(Path(path).read_bytes()).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"metrics: cannot read {str(path)!r}: {error.strerror or error}") from error


def truncate_metrics(path: str | Path, num_epochs: int) -> None:
    """Keeps the records of epochs 0 to `num_epochs` - 1, byte for byte: those that a checkpoint continues from."""
    path = Path(path)
    if not path.exists():
        return
    records = read_metrics(path)
    lines = _whole_part(path.read_bytes()).splitlines()
    kept = [line for line, record in zip(lines, records, strict=True) if record.get("epoch", 0) < num_epochs]
    write_atomically(path, b"".join(line + b"\n" for line in kept))


def _whole_part(content: bytes) -> bytes:
    """The content up to a torn last line. A line without its newline is whole if it parses: `}` comes last."""
    end = content.rfind(b"\n") + 1
    return content if isinstance(_parse(content[end:]), dict) else content[:end]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # the first covers JSONDecodeError and UnicodeDecodeError
        return None


def as_json(value: Any) -> Any:
    """The value as JSON has it: arrays as lists and numbers, NaN and infinities as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
