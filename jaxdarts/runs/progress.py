"""What does a person see while a run goes on?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from jaxdarts.runs.messages import Messages, say


def print_banner(title: str, facts: Mapping[str, object], stream: TextIO | Messages | None = None) -> None:
    """Prints a title and, below it, one fact a line, in columns."""
    width = max((len(name) for name in facts), default=0)
    lines = [title, *(f"  {name:<{width}}  {value}" for name, value in facts.items())]
    say("\n".join(lines), stream)


def format_seconds(seconds: float) -> str:
    """`9 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class RunProgress:
    """Steps done and time left: a bar on a terminal, else one line an epoch. A context manager.

    The time left comes from the steps after the first, which compiles; it is unknown (None) until two are done.

    Args:
      num_steps: steps in the whole run.
      num_epochs: epochs in the whole run.
      first_step: steps already done, by the run that is continued.
      stream: standard output if None.
      unit: what is called an epoch here.
    """

    def __init__(
        self,
        num_steps: int,
        num_epochs: int,
        *,
        first_step: int = 0,
        stream: TextIO | Messages | None = None,
        unit: str = "epoch",
    ) -> None:
        self._unit = unit
        self._stream = stream if isinstance(stream, Messages) else Messages(stream)
        self._num_steps, self._num_epochs, self._step = num_steps, num_epochs, first_step
        self._started: tuple[float, int] | None = None  # when the first step of this process ended, and its number
        self._bar: Progress | None = None
        if self._stream.isatty():
            console = Console(file=cast(TextIO, self._stream))
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True)
            self._task = self._bar.add_task("compiling", total=num_steps, completed=first_step, left="")

    @property
    def is_interactive(self) -> bool:
        """Whether a bar is shown."""
        return self._bar is not None

    @property
    def steps_here(self) -> int:
        """Steps done in this process after its first, which compiles."""
        return 0 if self._started is None else self._step - self._started[1]

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the mean time of a step so far, whatever else was done between steps."""
        if self._started is None or self._step == self._started[1]:
            return None
        since, step = self._started
        return (time.monotonic() - since) / (self._step - step) * (self._num_steps - self._step)

    def advance(self, step: int, epoch: int) -> None:
        """To be called after every step with the number of steps done; `epoch` counts from 0."""
        self._step = step
        if self._started is None:
            self._started = (time.monotonic(), step)
        if self._bar is not None:
            description = f"{self._unit} {epoch + 1}/{self._num_epochs}"
            self._bar.update(self._task, completed=step, description=description, left=self._left())

    def rewind(self, step: int) -> None:
        """To be called when the run continues from after another step than the one done last."""
        if self._started is not None:
            since, first = self._started
            self._started = (since, first + step - self._step)  # so that the mean time of a step stays
        self._step = step

    def resize(self, num_steps: int, num_epochs: int) -> None:
        """To be called when the whole run has become longer or shorter."""
        self._num_steps, self._num_epochs = num_steps, num_epochs
        if self._bar is not None:
            self._bar.update(self._task, total=num_steps)

    def epoch(self, epoch: int, facts: Mapping[str, str]) -> None:
        """Prints one line about the epoch that has ended; `epoch` counts from 0."""
        parts = [f"{self._unit} {epoch + 1}/{self._num_epochs}", *(f"{name} {value}" for name, value in facts.items())]
        self.message("  ".join([*parts, self._left()]).rstrip())

    def message(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text, self._stream)

    def _left(self) -> str:
        seconds = self.seconds_left
        return "" if seconds is None or self._step >= self._num_steps else f"{format_seconds(seconds)} left"

    def __enter__(self) -> RunProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
