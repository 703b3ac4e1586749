"""How does a search run from its first step to its report, and survive being stopped anywhere?"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.methods import RollBack, SearchState
from jaxdarts.runs import tensorboard
from jaxdarts.runs.assemble import EpochSums, Search, assemble, start_epoch
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.config import SearchConfig, check_config
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.diagnostics import diagnose
from jaxdarts.runs.draw import save_cells
from jaxdarts.runs.events import EVENTS_FILE, Event, describe, make_event, stopped_at
from jaxdarts.runs.folder import RunFolder, check_creatable, check_resumable, check_same_config, one_line_errors
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.measure import measure_epoch
from jaxdarts.runs.metrics import append_metrics, read_metrics, truncate_metrics
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.record import DIAGNOSTICS_FILE, GENOTYPE_FILE, METRICS_FILE
from jaxdarts.runs.report import write_report
from jaxdarts.spaces import Genotype, space_to_json

_ESTIMATE_AFTER_STEPS = 5  # steps after which the time left is first told


class SearchResult(NamedTuple):
    """What a finished search found, and where its files are."""

    genotype: Genotype
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: SearchState  # at the end of the epoch that is returned: the last one, or the one a verdict names


def run_search(
    config: SearchConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    stream: TextIO | None = None,
) -> SearchResult:
    """A whole search: everything that `python -m jaxdarts.search` does.

    Args:
      config: what to search, and how.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir` from its newest checkpoint; the result is that of an unbroken run.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    folder_path = None if run_dir is None else Path(run_dir)
    check_config(config)
    if config.tensorboard:
        tensorboard.check_installed()
    if resume:
        if folder_path is None:
            raise InputError("resume: name the run to continue with --run-dir")
        check_resumable(folder_path)
        check_same_config(config, folder_path)
    else:
        check_creatable(folder_path)
    with precision(config.precision):
        enable_compilation_cache()
        search = assemble(config)
        device = device_name()
        if resume:
            assert folder_path is not None
            folder = RunFolder.reopen(config, folder_path)
        else:
            facts = {"search_space": space_to_json(search.space), "class_names": list(search.dataset.class_names)}
            folder = RunFolder.create(config, folder_path, device=device, facts=facts)
        with folder, catch_interrupts() as interrupt:
            return _Run(search, folder, interrupt, stream, device).finish()


class _Run:
    """A run between its folder's opening and closing."""

    def __init__(
        self, search: Search, folder: RunFolder, interrupt: Interrupt, stream: TextIO | None, device: str
    ) -> None:
        self.search, self.config, self.folder, self.interrupt = search, search.config, folder, interrupt
        self.stream, self.device = stream, device
        self.metrics_path = folder.path / METRICS_FILE
        self.last_save = time.monotonic()
        self.saved_at = "none"
        self.events: list[Event] = []

    def finish(self) -> SearchResult:
        """Steps until the end, from wherever the newest checkpoint stands."""
        steps = self.search.steps_per_epoch
        with one_line_errors("write", self.folder.path / "checkpoints"):
            checkpoints = Checkpoints(self.folder.path / "checkpoints", self.config.checkpoints_to_keep)
        with checkpoints:
            self.checkpoints = checkpoints
            state, sums, step, seconds = self._start()
            self._announce(state, step)
            with RunProgress(
                steps * self.config.epochs, self.config.epochs, first_step=step, stream=self.stream
            ) as progress:
                self.progress = progress
                while step < steps * self.config.epochs and stopped_at(self.events) is None:
                    state, step = self._epoch(step // steps, state, sums, step, seconds)
                    seconds, sums = 0.0, EpochSums.zero(self.search.problem.dtype)
            return self._conclude(state, step)

    def _start(self) -> tuple[SearchState, EpochSums, int, float]:
        sums = EpochSums.zero(self.search.problem.dtype)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            restored = self.checkpoints.restore_latest(self._like())
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self.stream)
        if restored is None:
            self._forget_from(0)
            state = self.search.init()
            return state, sums, 0, 0.0
        state, sums = restored.state
        self.saved_at = f"step {restored.step}"
        self.events = restored.extra.get("events", [])  # an older version saved none
        self._forget_from(restored.step // self.search.steps_per_epoch)
        return state, sums, restored.step, float(restored.extra["seconds"])

    def _like(self) -> Any:
        return jax.eval_shape(lambda: (self.search.init(), EpochSums.zero(self.search.problem.dtype)))

    def _forget_from(self, epoch: int) -> None:
        """Brings the files to what the state knows: nothing of this epoch and later ones, and the events so far."""
        truncate_metrics(self.metrics_path, epoch)
        for path in (self.folder.path / "genotypes").glob("epoch_*.json"):
            if int(path.stem.removeprefix("epoch_")) >= epoch:
                path.unlink()
        if self.events:
            self.folder.write_json(EVENTS_FILE, self.events)
        else:
            (self.folder.path / EVENTS_FILE).unlink(missing_ok=True)

    def _announce(self, state: SearchState, step: int) -> None:
        config, data = self.config, self.search.dataset
        height, width, channels = data.image_shape
        num_weights = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        train, valid = (len(part.labels) for part in self.search.data)
        rematerialised = self.search.problem.supernet.remat
        facts = {
            "space": f"{self.search.space.name}: {len(self.search.space.operation_names)} operations, "
            f"{self.search.space.num_edges} edges a cell",
            "data": f"{data.name}: {train} images train w, {valid} train alpha; "
            f"{height}x{width}x{channels}, {data.num_classes} classes",
            "network": f"{config.cells} cells, {config.channels} channels, {num_weights:,} weights"
            + (f", {rematerialised} cells rematerialised" if rematerialised else ""),
            "method": config.method
            + (f", hypergradient {config.hypergradient}" if "alpha" in self.search.method.learns else ""),
            "run": f"{config.epochs} epochs of {self.search.steps_per_epoch} steps, batch {config.batch_size}, "
            f"seed {config.seed}",
            "device": self.device,
            "folder": str(self.folder.path),
        }
        if step:
            facts["resumed"] = f"after {step} of {config.epochs * self.search.steps_per_epoch} steps"
        print_banner(f"search {self.search.space.name} on {data.name} (preset {config.preset})", facts, self.stream)

    def _epoch(
        self, epoch: int, state: SearchState, sums: EpochSums, step: int, seconds: float
    ) -> tuple[SearchState, int]:
        """The rest of an epoch from `step` on, its measurements, the method's verdict and the checkpoint."""
        began = time.monotonic() - seconds
        end = (epoch + 1) * self.search.steps_per_epoch
        state = start_epoch(self.config, state, epoch)
        order = self.search.order(epoch)
        pending: jax.Array | None = None
        while step < end:
            state, sums, finite = self.search.step(state, sums, self.search.data, order)
            step += 1
            # Looks at the step before, so that the device never waits for the host.
            self._check_finite(pending, epoch, step - 1)
            pending = finite
            self.progress.advance(step, epoch)
            self._tell_estimate(step)
            stop = self.interrupt.requested
            if stop or time.monotonic() - self.last_save > 60 * self.config.checkpoint_every_minutes:
                if step < end or stop:
                    self._check_finite(pending, epoch, step)
                    self._save(step, state, sums, time.monotonic() - began)
                if stop and step < end:
                    raise RunInterrupted(self._resume_hint(step))
        self._check_finite(pending, epoch, step)
        history = read_metrics(self.metrics_path)
        record = measure_epoch(self.search, state, sums, epoch, step, history)
        record["seconds"] = round(time.monotonic() - began, 3)
        self.folder.write_json(f"genotypes/epoch_{epoch:04d}.json", record["genotype"])
        with one_line_errors("write", self.metrics_path):
            append_metrics(self.metrics_path, record)
            if self.config.tensorboard:
                tensorboard.write_scalars(self.folder.path, record)
        self._show(epoch, record)
        state, step = self._obey([*history, record], state, step)
        more = step < self.config.epochs * self.search.steps_per_epoch and stopped_at(self.events) is None
        if self.interrupt.requested and more:
            raise RunInterrupted(self._resume_hint(step))
        return state, step

    def _obey(self, history: list[dict[str, Any]], state: SearchState, step: int) -> tuple[SearchState, int]:
        """Saves the state that the method's verdict on the epoch asks to continue from, and returns it.

        The checkpoint comes before the files are brought to it: a run killed in between does that when it is resumed,
        and one killed before comes to the same verdict again.
        """
        is_last = history[-1]["epoch"] == self.config.epochs - 1
        verdict = None if is_last else self.search.method.decide(history)
        if verdict is not None:
            self.events = [*self.events, make_event(verdict, history)]
        if isinstance(verdict, RollBack):
            state, step = self._restore(verdict.epoch)
            opt_state = set_hyperparameters(state.opt_state, l2=verdict.l2)
            state = dataclasses.replace(state, opt_state=opt_state)
        self._save(step, state, EpochSums.zero(self.search.problem.dtype), 0.0)
        if verdict is not None:
            self._forget_from(step // self.search.steps_per_epoch)
            self.progress.rewind(step)
            self.progress.message(describe(self.events[-1]))
        return state, step

    def _restore(self, epoch: int) -> tuple[SearchState, int]:
        """The state at the end of an earlier epoch, and its step."""
        step = (epoch + 1) * self.search.steps_per_epoch
        state, _ = self.checkpoints.restore(step, self._like()).state
        return state, step

    def _check_finite(self, value: jax.Array | None, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise RunError(
                f"the loss or its hypergradient is not finite in epoch {epoch} (counted from 0), step {step}; the last "
                f"good checkpoint is at {self.saved_at} in {str(self.folder.path / 'checkpoints')!r}; "
                "a smaller learning_rate or alpha_learning_rate may help"
            )

    def _save(self, step: int, state: SearchState, sums: EpochSums, seconds: float) -> None:
        steps = self.search.steps_per_epoch
        epochs = {*self.search.method.returnable(step // steps - 1), stopped_at(self.events)}
        also_keep = [(epoch + 1) * steps for epoch in epochs if epoch is not None]
        self.checkpoints.save(step, (state, sums), {"seconds": seconds, "events": self.events}, also_keep)
        self.last_save, self.saved_at = time.monotonic(), f"step {step}"

    def _resume_hint(self, step: int) -> str:
        return (
            f"saved after step {step}; continue with: python -m jaxdarts.search --resume --run-dir {self.folder.path}"
        )

    def _tell_estimate(self, step: int) -> None:
        first = self.progress.steps_here == _ESTIMATE_AFTER_STEPS
        left = self.progress.seconds_left
        if first and left is not None and not self.progress.is_interactive:
            self.progress.message(f"about {format_seconds(left)} of steps left")

    def _show(self, epoch: int, record: dict[str, Any]) -> None:
        digits = {"train_loss": 3, "valid_loss": 3, "valid_accuracy": 3, "dominant_eigenvalue": 4}
        shown = [name for name in digits if record[name] is not None]
        facts = {name.replace("_", " "): f"{record[name]:.{digits[name]}f}" for name in shown}
        facts["skips"] = str(record["skip_connections"]["normal"])
        facts["in"] = format_seconds(record["seconds"])
        self.progress.epoch(epoch, facts)

    def _conclude(self, state: SearchState, step: int) -> SearchResult:
        metrics = read_metrics(self.metrics_path)
        returned = metrics[-1]
        stopped = stopped_at(self.events)
        if stopped is not None and stopped != returned["epoch"]:
            returned = next(record for record in metrics if record["epoch"] == stopped)
            state, _ = self._restore(stopped)
        genotype = Genotype.from_json(returned["genotype"])
        candidates = None
        if self.search.method.select is not None:
            self.progress.message("selecting among random architectures")
            key = jax.random.fold_in(jax.random.key(self.config.seed), step)
            score = partial(self.search.validate.score, state)
            candidates = self.search.method.select(score, key)
            genotype = candidates[0].genotype
        found = diagnose(self.search, state, genotype, returned["epoch"])
        if candidates is not None:
            found["candidates"] = [{"genotype": c.genotype.to_json(), "accuracy": c.accuracy} for c in candidates]
        path = self.folder.path
        with one_line_errors("write", path):
            save_cells(genotype, path / "cells.svg", path / "cells.png", title=f"{self.search.space.name}")
        self.folder.write_json(DIAGNOSTICS_FILE, found)
        self.folder.write_json(GENOTYPE_FILE, genotype.to_json())
        with one_line_errors("write", path / "report.html"):
            write_report(path)
        return SearchResult(genotype, path, metrics, state)
