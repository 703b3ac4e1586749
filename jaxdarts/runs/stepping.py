"""How does any run take its steps, end its epochs, and survive being stopped anywhere?"""

from __future__ import annotations

import io
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TextIO, TypeVar

import jax
from jax.sharding import Mesh

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.runs import tensorboard
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.runs.devices import replicate
from jaxdarts.runs.evaluate.config import EvaluateConfig
from jaxdarts.runs.folder import (
    RunConfig,
    RunFolder,
    check_creatable,
    check_resumable,
    check_same_config,
    one_line_errors,
)
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.metrics import append_metrics, read_metrics, truncate_metrics
from jaxdarts.runs.processes import SharedCheckpoints, SharedInterrupt, TemporaryRunFolder, from_first, is_first
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.record import METRICS_FILE
from jaxdarts.runs.schedules import State, start_epoch
from jaxdarts.runs.search.config import SearchConfig

_ESTIMATE_AFTER_STEPS = 5  # steps after which the time left is first told

Result = TypeVar("Result")
SteppedConfig = SearchConfig | EvaluateConfig


class Steps(Protocol):
    """What a run needs of the functions that it steps with."""

    @property
    def mesh(self) -> Mesh | None:
        """Of the devices, if there are several."""

    @property
    def data(self) -> Any:
        """Images on the device, handed to `step`."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def init(self) -> Callable[[], Any]:
        """() -> the state at the start."""

    @property
    def order(self) -> Callable[[int], Any]:
        """epoch -> the order of its training images, or whatever else `step` draws an epoch's batches from."""

    @property
    def step(self) -> Callable[..., tuple[Any, Any, jax.Array]]:
        """(state, sums, data, order) -> state, sums, a number that is finite as long as everything is."""


def check_run_dir(config: SteppedConfig, run_dir: Path | None, resume: bool) -> None:
    """Raises InputError if the run can't be started, or with `resume` continued, in this folder; makes nothing."""
    from_first(lambda: _check_run_dir(config, run_dir, resume))


def _check_run_dir(config: SteppedConfig, run_dir: Path | None, resume: bool) -> None:
    if config.tensorboard:
        tensorboard.check_installed()
    if not resume:
        check_creatable(run_dir)
        return
    if run_dir is None:
        raise InputError("resume: name the run to continue with --run-dir")
    check_resumable(run_dir, config.command)
    check_same_config(config, run_dir)


def open_run_dir(
    config: RunConfig, run_dir: Path | None, resume: bool, *, device: str, facts: Mapping[str, Any]
) -> RunFolder:
    """The folder of a new run, with `facts` in its config.json, or of the one continued. Raises as RunFolder does.

    In other processes than the first a temporary one.
    """
    folder: RunFolder | None = None

    def open_folder() -> None:
        nonlocal folder
        if resume:
            assert run_dir is not None  # check_run_dir
            folder = RunFolder.reopen(config, run_dir)
        else:
            folder = RunFolder.create(config, run_dir, device=device, facts=facts)

    from_first(open_folder)
    return folder or TemporaryRunFolder.create(config, TemporaryRunFolder.new(), device=device, facts=facts)


class SteppedRun(ABC, Generic[State, Result]):
    """A run between its folder's opening and closing. What differs between the commands is in the abstract methods.

    A checkpoint is the state and the sums over the epoch so far, so that an epoch can be taken up in its middle. It is
    saved at the end of every epoch, after the epoch's line of metrics.jsonl, and by time in between; a run that is
    continued brings the files back to what its checkpoint knows.
    """

    watched: str  # what must stay finite beside the loss
    rates: str  # the settings that may help where it doesn't

    def __init__(
        self,
        steps: Steps,
        config: SteppedConfig,
        folder: RunFolder,
        interrupt: Interrupt,
        stream: TextIO | None,
        device: str,
    ) -> None:
        self.steps, self.config, self.folder = steps, config, folder
        self.interrupt = SharedInterrupt(interrupt, steps.mesh)
        self.stream, self.device = stream if is_first() else io.StringIO(), device
        self.metrics_path = folder.path / METRICS_FILE
        self.last_save = time.monotonic()
        self.saved_at = "none"

    @abstractmethod
    def no_sums(self) -> Any:
        """The sums over no steps."""

    @abstractmethod
    def banner(self, state: State) -> tuple[str, dict[str, str]]:
        """A title and the facts that are shown before the first step."""

    @abstractmethod
    def measure(self, state: State, sums: Any, epoch: int, step: int) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, its duration excepted."""

    @abstractmethod
    def shown(self, record: Mapping[str, Any]) -> dict[str, str]:
        """What is shown of an epoch's line."""

    @abstractmethod
    def conclude(self, state: State, step: int) -> Result:
        """Writes the files of a finished run."""

    @property
    def num_steps(self) -> int:
        """Steps of the whole run, unless it ends before its last epoch."""
        return self.steps.steps_per_epoch * self.config.epochs

    @property
    def ended(self) -> bool:
        """Whether the run ends before its last epoch."""
        return False

    def end_epoch(self, state: State, step: int) -> tuple[State, int]:
        """Saves the state to continue from, and returns it and its step."""
        self._save(step, state, self.no_sums(), 0.0)
        return state, step

    def start_epoch(self, state: State, epoch: int) -> State:
        """Sets what follows a schedule."""
        return start_epoch(self.config, state, epoch)

    def extra(self) -> dict[str, Any]:
        """What a checkpoint holds beside state, sums and seconds; a JSON object."""
        return {}

    def also_keep(self, epoch: int) -> Collection[int]:
        """The epochs whose checkpoints stay, however old, when `epoch` is the last that has ended."""
        return ()

    def order(self, epoch: int) -> Any:
        """What the epoch's steps draw from."""
        return self.steps.order(epoch)

    def return_to(self, extra: Mapping[str, Any], epoch: int) -> None:
        """Brings the files to what a checkpoint knows: nothing of this epoch and later ones."""
        truncate_metrics(self.metrics_path, epoch)

    def finish(self) -> Result:
        """Steps until the end, from wherever the newest checkpoint stands."""
        with one_line_errors("write", self.folder.path / "checkpoints"):
            own = Checkpoints(self.folder.path / "checkpoints", self.config.checkpoints_to_keep) if is_first() else None
        with SharedCheckpoints(own) as checkpoints:
            self.checkpoints = checkpoints
            state, sums, step, seconds = self._start()
            title, facts = self.banner(state)
            if step:
                facts["resumed"] = f"after {step} of {self.num_steps} steps"
            print_banner(title, facts, self.stream)
            num_epochs = self.num_steps // self.steps.steps_per_epoch
            with RunProgress(self.num_steps, num_epochs, first_step=step, stream=self.stream) as progress:
                self.progress = progress
                while step < self.num_steps and not self.ended:
                    state, step = self._epoch(step // self.steps.steps_per_epoch, state, sums, step, seconds)
                    seconds, sums = 0.0, self.no_sums()
            return self.conclude(state, step)

    def restore(self, epoch: int) -> tuple[State, int]:
        """The state at the end of an earlier epoch, and its step."""
        step = (epoch + 1) * self.steps.steps_per_epoch
        state, _ = self.checkpoints.restore(step, self._like()).state
        return replicate(state, self.steps.mesh), step

    def _start(self) -> tuple[State, Any, int, float]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            restored = self.checkpoints.restore_latest(self._like())
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self.stream)
        if restored is None:
            self.return_to({}, 0)
            return self.steps.init(), self.no_sums(), 0, 0.0
        state, sums = restored.state
        self.saved_at = f"step {restored.step}"
        self.return_to(restored.extra, restored.step // self.steps.steps_per_epoch)
        history = from_first(lambda: read_metrics(self.metrics_path))
        if not is_first():
            for record in history:
                append_metrics(self.metrics_path, record)
        return state, sums, restored.step, float(restored.extra["seconds"])

    def _like(self) -> Any:
        return jax.eval_shape(lambda: (self.steps.init(), self.no_sums()))

    def _epoch(self, epoch: int, state: State, sums: Any, step: int, seconds: float) -> tuple[State, int]:
        """The rest of an epoch from `step` on, its measurements and its checkpoint."""
        began = time.monotonic() - seconds
        end = (epoch + 1) * self.steps.steps_per_epoch
        # What was set or restored is where the rest is, so that no step is compiled anew for it.
        state, sums = replicate((self.start_epoch(state, epoch), sums), self.steps.mesh)
        order = self.order(epoch)
        pending: jax.Array | None = None
        while step < end:
            state, sums, finite = self.steps.step(state, sums, self.steps.data, order)
            step += 1
            # Looks at the step before, so that the device never waits for the host.
            self._check_finite(pending, epoch, step - 1)
            pending = finite
            self.progress.advance(step, epoch)
            self._tell_estimate()
            stop = self.interrupt.between_steps()
            is_due = time.monotonic() - self.last_save > 60 * self.config.checkpoint_every_minutes
            # Not after the epoch's last step: a checkpoint there says that the epoch has been measured.
            if step < end and (stop or is_due):
                self._check_finite(pending, epoch, step)
                self._save(step, state, sums, time.monotonic() - began)
                if stop:
                    raise RunInterrupted(self._resume_hint(step))
        self._check_finite(pending, epoch, step)
        record = self.measure(state, sums, epoch, step)
        record["seconds"] = round(time.monotonic() - began, 3)
        record = from_first(record.copy)  # so that verdicts are the same everywhere
        with one_line_errors("write", self.metrics_path):
            append_metrics(self.metrics_path, record)
            if self.config.tensorboard:
                tensorboard.write_scalars(self.folder.path, record)
        self.progress.epoch(epoch, {**self.shown(record), "in": format_seconds(record["seconds"])})
        state, step = self.end_epoch(state, step)
        if step < self.num_steps and not self.ended and self.interrupt.now():
            raise RunInterrupted(self._resume_hint(step))
        return state, step

    def _check_finite(self, value: jax.Array | None, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise RunError(
                f"the loss or its {self.watched} is not finite in epoch {epoch} (counted from 0), step {step}; the "
                f"last good checkpoint is at {self.saved_at} in {str(self.folder.path / 'checkpoints')!r}; "
                f"a smaller {self.rates} may help"
            )

    def _save(self, step: int, state: State, sums: Any, seconds: float) -> None:
        steps = self.steps.steps_per_epoch
        also_keep = [(epoch + 1) * steps for epoch in self.also_keep(step // steps - 1)]
        self.checkpoints.save(step, (state, sums), {"seconds": seconds, **self.extra()}, also_keep)
        self.last_save, self.saved_at = time.monotonic(), f"step {step}"

    def _resume_hint(self, step: int) -> str:
        return (
            f"saved after step {step}; continue with: python -m jaxdarts.{self.config.command} --resume --run-dir "
            f"{self.folder.path}"
        )

    def _tell_estimate(self) -> None:
        first = self.progress.steps_here == _ESTIMATE_AFTER_STEPS
        left = self.progress.seconds_left
        if first and left is not None and not self.progress.is_interactive:
            self.progress.message(f"about {format_seconds(left)} of steps left")
