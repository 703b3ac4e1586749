"""How are a run's numbers kept, one JSON object an epoch, and smoothed?"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.runs.files import write_atomically

LOCAL_AVERAGE_WINDOW = 5  # measurements


def append_metrics(path: str | Path, record: Mapping[str, Any]) -> None:
    """Appends one line and flushes it to the disk, so that it survives a crash of the machine.

    Arrays and array scalars become lists and numbers; NaN and infinities, which JSON lacks, become null. A last line
    that an earlier crash tore is removed first.
    """
    line = json.dumps(_as_json(record), allow_nan=False) + "\n"
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
    path = Path(path)
    lines = _whole_part(path.read_bytes()).splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if not isinstance(record, dict):
            raise InputError(f"metrics: line {number} of {str(path)!r} is not a JSON object")
        records.append(record)
    return records


def truncate_metrics(path: str | Path, num_epochs: int) -> None:
    """Keeps the records of epochs 0 to `num_epochs` - 1, byte for byte: those that a checkpoint continues from."""
    path = Path(path)
    if not path.exists():
        return
    records = read_metrics(path)
    lines = _whole_part(path.read_bytes()).splitlines()
    kept = [line for line, record in zip(lines, records, strict=True) if record.get("epoch", 0) < num_epochs]
    write_atomically(path, b"".join(line + b"\n" for line in kept))


def local_average(values: Sequence[float | None]) -> list[float | None]:
    """Smooths eigenvalues for the early-stopping test (Zela et al. 2020, section 4.3), as RobustDARTS' tracker does.

    Entry i is the mean of measurements i - 2 to i + 2, of those that exist: the window of five is centred and shorter
    at both ends. Hence, while a search runs, entry i is settled only once measurement i + 2 is known, and the newest
    average of n measurements that the reference has is entry n - 3. None (not measured, or not finite) stays None and
    takes no part. Fewer than three measurements have no average yet.
    """
    measured = [(i, float(value)) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    result: list[float | None] = [None] * len(values)
    reach = LOCAL_AVERAGE_WINDOW // 2
    if len(measured) > reach:
        for position, (index, _) in enumerate(measured):
            window = [value for _, value in measured[max(0, position - reach) : position + reach + 1]]
            result[index] = sum(window) / len(window)
    return result


def _whole_part(content: bytes) -> bytes:
    """The content up to a torn last line. A line without its newline is whole if it parses: `}` comes last."""
    end = content.rfind(b"\n") + 1
    return content if isinstance(_parse(content[end:]), dict) else content[:end]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # covers JSONDecodeError and UnicodeDecodeError
        return None


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
