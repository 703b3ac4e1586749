"""How does a search run from its first step to its report, and survive being stopped anywhere?"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.methods import SearchState
from jaxdarts.runs import tensorboard
from jaxdarts.runs.assemble import EpochSums, Search, assemble, start_epoch
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.config import SearchConfig, check_config
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.draw import save_cells
from jaxdarts.runs.folder import RunFolder, check_creatable, check_resumable, check_same_config, one_line_errors
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.measure import measure_epoch
from jaxdarts.runs.metrics import append_metrics, read_metrics, truncate_metrics
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.report import write_report
from jaxdarts.spaces import Genotype, space_to_json

METRICS_FILE, GENOTYPE_FILE = "metrics.jsonl", "genotype.json"
_ESTIMATE_AFTER_STEPS = 5  # steps after which the time left is first told


class SearchResult(NamedTuple):
    """What a finished search found, and where its files are."""

    genotype: Genotype
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: SearchState  # after the last step


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
                for epoch in range(step // steps, self.config.epochs):
                    state = self._epoch(epoch, state, sums, step, seconds)
                    step, seconds, sums = (epoch + 1) * steps, 0.0, EpochSums.zero(self.search.problem.dtype)
        return self._conclude(state)

    def _start(self) -> tuple[SearchState, EpochSums, int, float]:
        sums = EpochSums.zero(self.search.problem.dtype)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            like = jax.eval_shape(lambda: (self.search.init(), sums))
            restored = self.checkpoints.restore_latest(like)
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self.stream)
        if restored is None:
            truncate_metrics(self.metrics_path, 0)
            state = self.search.init()
            return state, sums, 0, 0.0
        state, sums = restored.state
        self.saved_at = f"step {restored.step}"
        truncate_metrics(self.metrics_path, restored.step // self.search.steps_per_epoch)
        return state, sums, restored.step, float(restored.extra["seconds"])

    def _announce(self, state: SearchState, step: int) -> None:
        config, data = self.config, self.search.dataset
        height, width, channels = data.image_shape
        num_weights = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        train, valid = (len(part.labels) for part in self.search.data)
        facts = {
            "space": f"{self.search.space.name}: {len(self.search.space.operation_names)} operations, "
            f"{self.search.space.num_edges} edges a cell",
            "data": f"{data.name}: {train} images train w, {valid} train alpha; "
            f"{height}x{width}x{channels}, {data.num_classes} classes",
            "network": f"{config.cells} cells, {config.channels} channels, {num_weights:,} weights"
            + (", cells rematerialised" if self.search.problem.supernet.remat else ""),
            "method": f"{config.method}, hypergradient {config.hypergradient}",
            "run": f"{config.epochs} epochs of {self.search.steps_per_epoch} steps, batch {config.batch_size}, "
            f"seed {config.seed}",
            "device": self.device,
            "folder": str(self.folder.path),
        }
        if step:
            facts["resumed"] = f"after {step} of {config.epochs * self.search.steps_per_epoch} steps"
        print_banner(f"search {self.search.space.name} on {data.name} (preset {config.preset})", facts, self.stream)

    def _epoch(self, epoch: int, state: SearchState, sums: EpochSums, step: int, seconds: float) -> SearchState:
        """The rest of an epoch from `step` on, its measurements and its checkpoint."""
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
        self._save(step, state, EpochSums.zero(self.search.problem.dtype), 0.0)
        self._show(epoch, record)
        if self.interrupt.requested and epoch + 1 < self.config.epochs:
            raise RunInterrupted(self._resume_hint(step))
        return state

    def _check_finite(self, value: jax.Array | None, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise RunError(
                f"the loss or its hypergradient is not finite in epoch {epoch} (counted from 0), step {step}; the last "
                f"good checkpoint is at {self.saved_at} in {str(self.folder.path / 'checkpoints')!r}; "
                "a smaller learning_rate or alpha_learning_rate may help"
            )

    def _save(self, step: int, state: SearchState, sums: EpochSums, seconds: float) -> None:
        self.checkpoints.save(step, (state, sums), {"seconds": seconds})
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
        facts = {
            "train loss": f"{record['train_loss']:.3f}",
            "valid loss": f"{record['valid_loss']:.3f}",
            "valid accuracy": f"{record['valid_accuracy']:.3f}",
        }
        if record["dominant_eigenvalue"] is not None:
            facts["dominant eigenvalue"] = f"{record['dominant_eigenvalue']:.4f}"
        facts["skips"] = str(record["skip_connections"]["normal"])
        facts["in"] = format_seconds(record["seconds"])
        self.progress.epoch(epoch, facts)

    def _conclude(self, state: SearchState) -> SearchResult:
        metrics = read_metrics(self.metrics_path)
        genotype = Genotype.from_json(metrics[-1]["genotype"])
        path = self.folder.path
        with one_line_errors("write", path):
            save_cells(genotype, path / "cells.svg", path / "cells.png", title=f"{self.search.space.name}")
        self.folder.write_json(GENOTYPE_FILE, genotype.to_json())
        with one_line_errors("write", path / "report.html"):
            write_report(path)
        return SearchResult(genotype, path, metrics, state)
