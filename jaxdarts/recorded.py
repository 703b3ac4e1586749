"""Where do the files lie that a run recorded by relative paths, when it is continued from another folder?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

PATHS = ("space", "dataset", "data_dir", "genotype", "benchmark", "from_run")  # settings that may name files
_WITH_PATH = ("npz", "folder")  # data sets that are files


def find_again(settings: Mapping[str, Any], started_in: str | None) -> dict[str, Any]:
    """Settings as a run recorded them, with relative paths as they lead there from the present folder.

    A file is looked for below the folder in which the run was started, then below the present one: the run may have
    moved. What names no file in either stays as it is.
    """
    return {name: _find(name, value, started_in) if name in PATHS else value for name, value in settings.items()}


def name_the_same(name: str, now: Any, before: Any, started_in: str | None) -> bool:
    """Whether a setting is what was recorded, as a value or as a file that both name."""
    if now == before and isinstance(now, bool) == isinstance(before, bool):
        return True
    parts = _split(name, now), _split(name, _find(name, before, started_in))
    if None in parts:
        return False
    (prefix, path), (prefix_before, path_before) = parts  # type: ignore[misc]
    return prefix == prefix_before and os.path.exists(path) and os.path.realpath(path) == os.path.realpath(path_before)


def _find(name: str, value: Any, started_in: str | None) -> Any:
    parts = _split(name, value)
    if parts is None or not started_in or os.path.isabs(parts[1]) or os.path.realpath(started_in) == os.getcwd():
        return value
    prefix, path = parts
    there = os.path.join(started_in, path)
    return prefix + there if os.path.exists(there) else value


def _split(name: str, value: Any) -> tuple[str, str] | None:
    """A path and what stands before it; None where it can't be one, such as the name of a space."""
    if name not in PATHS or not isinstance(value, str) or (name == "space" and not value.endswith(".toml")):
        return None
    if name != "dataset":
        return "", value
    prefix, colon, path = value.partition(":")
    return (prefix + colon, path) if prefix in _WITH_PATH and path else None
