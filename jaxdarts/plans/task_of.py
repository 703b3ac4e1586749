"""Which task do settings speak of? That of the search space, or of the genotype; both may be files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.spaces import find_genotype, load_space
from jaxdarts.tasks import TASKS

CLASSIFICATION, LANGUAGE = "classification", "language"  # names in `tasks.TASKS`


def task_of(values: Mapping[str, Any], own: Collection[str]) -> str:
    """The name of a task.

    Args:
      values: settings by name, as far as they are given.
      own: names of settings that only learning text has. They decide where a file that is named can't be read: it may
        be gone when a run is continued or reported.
    """
    found = None
    if values.get("space") is not None:
        found = _of_space(values["space"])
    elif values.get("genotype"):
        found = _of_genotype(values["genotype"])
    return found or (LANGUAGE if any(name in values for name in own) else CLASSIFICATION)


def _of_space(name: Any) -> str | None:
    try:
        return getattr(load_space(name), "task", CLASSIFICATION) if isinstance(name, str) else None
    except InputError:
        return None


def _of_genotype(source: Any) -> str | None:
    try:
        return getattr(find_genotype(source), "task", CLASSIFICATION) if isinstance(source, str) else None
    except InputError:
        return None


def other_task(name: str, value: Any, task: str, source: str) -> InputError:
    """The error for a setting that only the other task has."""
    other = LANGUAGE if task == CLASSIFICATION else CLASSIFICATION
    return InputError(f"{name} {value!r} is only for {TASKS[other].subject}; {source} is for {TASKS[task].subject}")
