"""What does a run's config.json hold, and in what may a continuation differ from it?"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.json_files import as_json, read_json
from jaxdarts.paths import check_name, is_file, is_folder
from jaxdarts.recorded import name_the_same

CONFIG_FILE = "config.json"

# What config.json holds beside settings: of every part the same, and of each its own.
RECORDED_BY_ALL = (
    "versions",
    "device",
    "started_in",
    "search_space",
    "class_names",
    "data_digest",
    "vocabulary_size",
    "tokens",
    "pydoc_python",
)
RECORDED_FACTS = (
    "command",
    *RECORDED_BY_ALL,
    "architecture",
    "parameters",
    "multiply_adds",
    "members",
    "stage",
    "stages",
    "part_of",
)

# May change between a run and its continuation: they do not touch the result, `devices` no more than by rounding.
CHANGEABLE = (
    "preset",
    "data_dir",
    "benchmark",
    "download",
    "checkpoint_every_minutes",
    "checkpoints_to_keep",
    "tensorboard",
    "devices",
)


def read_config(folder: Path, argument: str = "run_dir") -> dict[str, Any]:
    """A run's config.json as it is.

    Raises:
      InputError: not the folder of a run, or the file cannot be read.
    """
    check_name(folder, argument)
    if not is_folder(folder):
        raise InputError(f"{argument}: there is no folder {str(folder)!r}; name the folder that a run wrote")
    if not is_file(folder / CONFIG_FILE):
        raise InputError(f"{argument}: {str(folder)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    config = read_json(folder / CONFIG_FILE, argument)
    if not isinstance(config, dict):
        raise InputError(f"{argument}: {str(folder / CONFIG_FILE)!r} does not hold a configuration")
    return config


def run_command(recorded: Mapping[str, Any]) -> str:
    """The name of the command that wrote a config.json."""
    return str(recorded.get("command", "search"))


def check_same_settings(
    settings: Mapping[str, Any], recorded: Mapping[str, Any], run_dir: Path, changeable: Collection[str]
) -> None:
    """Raises InputError naming every setting in which a continuation may not differ from what was recorded."""
    started_in = recorded.get("started_in")
    differences = [
        f"{name} ({recorded[name]!r} in the run, {value!r} now)"
        for name, value in as_json(settings).items()
        if name in recorded and name not in changeable and not name_the_same(name, value, recorded[name], started_in)
    ]
    if differences:
        raise InputError(
            f"resume: the configuration differs from {str(run_dir / CONFIG_FILE)!r} in {', '.join(differences)}; "
            "leave these as they were or start another run"
        )


def check_same_data(recorded: Mapping[str, Any], facts: Mapping[str, Any], dataset: str) -> None:
    """Raises InputError if other data lie behind the recorded name now."""
    before, now = recorded.get("data_digest"), facts.get("data_digest")
    if before is not None and now is not None and before != now:
        raise InputError(
            f"resume: the data of {dataset!r} have changed since the run began (digest {before[:12]} then, {now[:12]} "
            "now); bring them back, or start another run"
        )


def run_facts(device: str) -> dict[str, Any]:
    """What a reader of the result may want to know beside the settings; `device` as a person would name it."""
    versions = {"python": platform.python_version()}
    for package in ("jaxdarts", "jax", "jaxlib", "flax", "optax", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"versions": versions, "device": device}
