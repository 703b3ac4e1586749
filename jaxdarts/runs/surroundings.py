"""What does a run have besides its plan?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from jaxdarts.errors import RunInterrupted
from jaxdarts.runs.interrupt import Interrupt


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a run has besides its plan."""

    command: str  # that continues it
    interrupt: Interrupt
    stream: TextIO | None = None  # where progress is shown; None: standard output
    device: str = ""
    checkpoint_every_minutes: float = 5.0
    tensorboard: bool = False
    unit: str = "epoch"  # what a line of progress is about
    on_result: Callable[[Path], None] = lambda path: None  # called when a folder has its result: writes its report

    def interrupted(self, what: str, run_dir: Path) -> RunInterrupted:
        """The error that ends the run where it was asked to stop: `what` is kept, and how to continue."""
        return RunInterrupted(f"{what}; continue with: python -m jaxdarts.{self.command} --resume --run-dir {run_dir}")
