"""Tasks: what networks learn. To add one, write a file and enter it in TASKS."""

from jaxdarts.tasks.base import Metric, Stream, Task, Totals
from jaxdarts.tasks.classification import CLASSIFICATION
from jaxdarts.tasks.kind import TaskKind
from jaxdarts.tasks.language import LANGUAGE

TASKS: dict[str, TaskKind] = {"classification": CLASSIFICATION, "language": LANGUAGE}


def kind_of(thing: object) -> TaskKind:
    """The kind of task of a search space or an architecture."""
    return TASKS[getattr(thing, "task", "classification")]


__all__ = ["TASKS", "Metric", "Stream", "Task", "TaskKind", "Totals", "kind_of"]
