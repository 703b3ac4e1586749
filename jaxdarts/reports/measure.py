"""How is a task's measure told: what it is called, which way is better, and how its values are written?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxdarts.tasks import TASKS, TaskKind, kind_of

# Names of the data of all tasks, by which the files of runs are read.
METRICS = tuple(dict.fromkeys(name for kind in TASKS.values() for name in kind.metrics))
OBJECTIVES = tuple(dict.fromkeys(kind.objective for kind in TASKS.values()))
RESULTS = tuple(dict.fromkeys(kind.result for kind in TASKS.values()))

_GREATEST = 1e5  # beyond it a value has four digits instead of a fixed number of decimals


class Wording(NamedTuple):
    """How pages speak of what is learned from."""

    examples: str = "examples"
    example: str = "an example"  # whose multiply-adds are counted
    valid: str = "the validation part"  # what trains alpha and measures
    training: str = ""  # how training differs from measuring


_ANY = Wording()
_WORDS: dict[str, Wording] = {
    "classification": Wording(
        examples="images",
        example="an image",
        valid="the validation half",
        training="Training images are cropped, mirrored and masked at random and see drop path; validation and test "
        "images are not and do not.",
    ),
    "language": Wording(
        examples="words",
        example="a word",
        valid="the validation text",
        training="Training has dropout and random lengths of text; validation and test have neither.",
    ),
}


@dataclass(frozen=True)
class Measure:
    """By what the architectures of a task are compared, and what papers report of them.

    Names are those of the data in a run's files: `valid_accuracy`, `test_error`.
    """

    objective: str  # such as accuracy
    result: str  # such as error; less is better
    more: bool  # whether more of the objective is better
    percent: bool  # whether both are parts of one
    is_metric: bool  # whether the result is measured as such; else it is what the objective leaves to 1
    words: Wording = _ANY

    @property
    def best(self) -> Callable[..., Any]:
        """`max` or `min`: what takes the best of several objectives."""
        return max if self.more else min

    @property
    def digits(self) -> int:
        """Decimals of the objective and the result in tables: those of papers."""
        return 4 if self.objective == "loss" else 2

    @property
    def unit(self) -> str:
        """What is added to headings of numbers that have no sign of their own."""
        return ", %" if self.percent else ""

    @property
    def scale(self) -> float:
        """What such numbers are multiplied by."""
        return 100 if self.percent else 1

    @property
    def worsening(self) -> str:
        """What discretisation costs, as a name: `accuracy_drop` or `perplexity_rise`."""
        return f"{self.objective}_{self.way}"

    @property
    def way(self) -> str:
        """Where the objective goes when it gets worse."""
        return "drop" if self.more else "rise"

    def text(self, value: float | None) -> str:
        """An objective or result as tables have it; empty where there is none."""
        if value is None:
            return ""
        if self.percent:
            return f"{value:.2%}"
        return f"{value:.{self.digits}f}" if abs(value) < _GREATEST else f"{value:.4g}"

    def rounded(self, value: float) -> str:
        """As `text`, for sentences: percent with one decimal."""
        return f"{value:.1%}" if self.percent else self.text(value)

    def change(self, value: float | None) -> str:
        """By how much the objective has changed, with its sign."""
        if self.percent:
            return "an unknown number of points" if value is None else f"{100 * value:+.1f} points"
        return "an unknown amount" if value is None else f"{value:+.{self.digits}f}"

    def result_of(self, record: Mapping[str, Any], part: str) -> float | None:
        """What papers report of a part of the data ("test"), from an epoch's record; None where it was not measured."""
        value = record.get(f"{part}_{self.result if self.is_metric else self.objective}")
        return value if value is None or self.is_metric else 1 - value


def measure_of(cells: object) -> Measure:
    """The measure of a search space's or an architecture's task."""
    return _measure(kind_of(cells), _WORDS.get(getattr(cells, "task", "classification"), _ANY))


def measure_named(quantity: str) -> Measure | None:
    """The one whose objective or result a quantity such as `valid_accuracy` is; a loss belongs to none."""
    for found in map(_measure, TASKS.values()):
        if quantity.endswith((found.objective, found.result)) and not quantity.endswith("loss"):
            return found
    return None


def plural(name: str) -> str:
    """`accuracies`, `losses`, `errors`."""
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}es" if name.endswith("s") else f"{name}s"


def _measure(kind: TaskKind, words: Wording = _ANY) -> Measure:
    metric, is_metric = kind.metrics[kind.objective], kind.result in kind.metrics
    return Measure(kind.objective, kind.result, metric.better == "more", metric.percent, is_metric, words)
