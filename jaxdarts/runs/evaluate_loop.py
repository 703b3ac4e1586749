"""How does an evaluation run from its first step to its test error, and survive being stopped anywhere?"""

from __future__ import annotations

import math
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.methods import RetrainState
from jaxdarts.runs import tensorboard
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.draw import save_cells
from jaxdarts.runs.evaluate_assemble import (
    Evaluation,
    RetrainSums,
    assemble_evaluation,
    choose_genotype,
    drop_path,
    learning_rate,
    start_epoch,
)
from jaxdarts.runs.evaluate_config import EvaluateConfig, check_evaluate_config
from jaxdarts.runs.evaluate_record import RESULT_FILE, best_epoch, recorded_genotype
from jaxdarts.runs.folder import RunFolder, check_creatable, check_resumable, check_same_config, one_line_errors
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.metrics import append_metrics, read_metrics, truncate_metrics
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.record import GENOTYPE_FILE, METRICS_FILE
from jaxdarts.runs.report import write_report
from jaxdarts.spaces import Genotype

_ESTIMATE_AFTER_STEPS = 5  # steps after which the time left is first told


class EvaluationResult(NamedTuple):
    """How well a genotype does when it is trained from scratch, and where the run's files are."""

    genotype: Genotype
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: RetrainState  # after the last step
    test_error: float  # after the last epoch, between 0 and 1: what the papers report
    best_epoch: int | None  # with the best validation accuracy, the first of equals; None if nothing was held out
    best_test_error: float | None  # after that epoch
    parameters: int  # as `network_cost` counts them
    multiply_adds: int


def run_evaluation(
    config: EvaluateConfig,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    stream: TextIO | None = None,
) -> EvaluationResult:
    """A whole evaluation: everything that `python -m jaxdarts.evaluate` does.

    Args:
      config: which genotype is trained, and how.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir` from its newest checkpoint, with the genotype that it began with; the
        result is that of an unbroken run.
      stream: where progress is shown; standard output if None.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    folder_path = None if run_dir is None else Path(run_dir)
    check_evaluate_config(config)
    if config.tensorboard:
        tensorboard.check_installed()
    if resume:
        if folder_path is None:
            raise InputError("resume: name the run to continue with --run-dir")
        check_resumable(folder_path, config.command)
        check_same_config(config, folder_path)
        genotype = recorded_genotype(folder_path)
    else:
        check_creatable(folder_path)
        genotype = choose_genotype(config)
    with precision(config.precision):
        enable_compilation_cache()
        evaluation = assemble_evaluation(config, genotype)
        device = device_name()
        if resume:
            assert folder_path is not None
            folder = RunFolder.reopen(config, folder_path)
        else:
            facts = {
                "architecture": genotype.to_json(),
                "parameters": evaluation.cost.parameters,
                "multiply_adds": evaluation.cost.multiply_adds,
                "class_names": list(evaluation.dataset.class_names),
            }
            folder = RunFolder.create(config, folder_path, device=device, facts=facts)
        with folder, catch_interrupts() as interrupt:
            return _Run(evaluation, folder, interrupt, stream, device).finish()


class _Run:
    """A run between its folder's opening and closing."""

    def __init__(
        self, evaluation: Evaluation, folder: RunFolder, interrupt: Interrupt, stream: TextIO | None, device: str
    ) -> None:
        self.evaluation, self.config, self.folder = evaluation, evaluation.config, folder
        self.interrupt, self.stream, self.device = interrupt, stream, device
        self.metrics_path = folder.path / METRICS_FILE
        self.last_save = time.monotonic()
        self.saved_at = "none"

    def finish(self) -> EvaluationResult:
        """Steps until the end, from wherever the newest checkpoint stands."""
        steps, epochs = self.evaluation.steps_per_epoch, self.config.epochs
        self.folder.write_json(GENOTYPE_FILE, self.evaluation.genotype.to_json())
        with one_line_errors("write", self.folder.path / "checkpoints"):
            checkpoints = Checkpoints(self.folder.path / "checkpoints", self.config.checkpoints_to_keep)
        with checkpoints:
            self.checkpoints = checkpoints
            state, sums, step, seconds = self._start()
            self._announce(step)
            with RunProgress(steps * epochs, epochs, first_step=step, stream=self.stream) as progress:
                self.progress = progress
                for epoch in range(step // steps, epochs):
                    state = self._epoch(epoch, state, sums, step, seconds)
                    step, seconds, sums = (epoch + 1) * steps, 0.0, self._no_sums()
        return self._conclude(state)

    def _no_sums(self) -> RetrainSums:
        return RetrainSums.zero(self.evaluation.problem.dtype)

    def _start(self) -> tuple[RetrainState, RetrainSums, int, float]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            like = jax.eval_shape(lambda: (self.evaluation.init(), self._no_sums()))
            restored = self.checkpoints.restore_latest(like)
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self.stream)
        if restored is None:
            truncate_metrics(self.metrics_path, 0)
            return self.evaluation.init(), self._no_sums(), 0, 0.0
        state, sums = restored.state
        self.saved_at = f"step {restored.step}"
        truncate_metrics(self.metrics_path, restored.step // self.evaluation.steps_per_epoch)
        return state, sums, restored.step, float(restored.extra["seconds"])

    def _announce(self, step: int) -> None:
        config, data, cost = self.config, self.evaluation.dataset, self.evaluation.cost
        height, width, channels = data.image_shape
        held_out = 0 if self.evaluation.valid is None else len(self.evaluation.valid.labels)
        head = f", auxiliary head {config.auxiliary_weight:g}" if config.auxiliary_weight else ""
        facts = {
            "genotype": config.genotype,
            "data": f"{data.name}: {len(self.evaluation.data.labels)} images to train on, "
            + (f"{held_out} held out, " if held_out else "")
            + f"{len(self.evaluation.test.labels)} to test; {height}x{width}x{channels}, {data.num_classes} classes",
            "network": f"{config.cells} cells, {config.channels} channels, {cost.parameters:,} parameters, "
            f"{cost.multiply_adds:,} multiply-adds an image{head}",
            "run": f"{config.epochs} epochs of {self.evaluation.steps_per_epoch} steps, batch {config.batch_size}, "
            f"seed {config.seed}",
            "device": self.device,
            "folder": str(self.folder.path),
        }
        if step:
            facts["resumed"] = f"after {step} of {config.epochs * self.evaluation.steps_per_epoch} steps"
        print_banner(f"evaluate {config.genotype} on {data.name} (preset {config.preset})", facts, self.stream)

    def _epoch(self, epoch: int, state: RetrainState, sums: RetrainSums, step: int, seconds: float) -> RetrainState:
        """The rest of an epoch from `step` on, its measurements and its checkpoint."""
        began = time.monotonic() - seconds
        end = (epoch + 1) * self.evaluation.steps_per_epoch
        state = start_epoch(self.config, state, epoch)
        order = self.evaluation.order(epoch)
        pending: jax.Array | None = None
        while step < end:
            state, sums, finite = self.evaluation.step(state, sums, self.evaluation.data, order)
            step += 1
            # Looks at the step before, so that the device never waits for the host.
            self._check_finite(pending, epoch, step - 1)
            pending = finite
            self.progress.advance(step, epoch)
            self._tell_estimate()
            stop = self.interrupt.requested
            if stop or time.monotonic() - self.last_save > 60 * self.config.checkpoint_every_minutes:
                if step < end or stop:
                    self._check_finite(pending, epoch, step)
                    self._save(step, state, sums, time.monotonic() - began)
                if stop and step < end:
                    raise RunInterrupted(self._resume_hint(step))
        self._check_finite(pending, epoch, step)
        record = self._measure(state, sums, epoch, step)
        record["seconds"] = round(time.monotonic() - began, 3)
        with one_line_errors("write", self.metrics_path):
            append_metrics(self.metrics_path, record)
            if self.config.tensorboard:
                tensorboard.write_scalars(self.folder.path, record)
        self._save(step, state, self._no_sums(), 0.0)
        self._show(epoch, record)
        if self.interrupt.requested and epoch + 1 < self.config.epochs:
            raise RunInterrupted(self._resume_hint(step))
        return state

    def _measure(self, state: RetrainState, sums: RetrainSums, epoch: int, step: int) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, its duration excepted."""
        config, steps = self.config, self.evaluation.steps_per_epoch
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": step,
            "train_loss": float(sums.train_loss) / steps,
            "train_accuracy": int(sums.train_correct) / (steps * config.batch_size),
            "auxiliary_loss": float(sums.auxiliary_loss) / steps if config.auxiliary_weight else None,
            "valid_loss": None,
            "valid_accuracy": None,
            "test_loss": None,
            "test_accuracy": None,
            "gradient_norm": float(sums.gradient_norm) / steps,
            "learning_rate": learning_rate(config, epoch),
            "l2": config.l2,
            "drop_path": drop_path(config, epoch),
        }
        best = False
        if self.evaluation.valid is not None:
            record["valid_loss"], record["valid_accuracy"] = self.evaluation.measure(state, self.evaluation.valid)
            best = best_epoch([*read_metrics(self.metrics_path), record]) == epoch
        if best or (epoch + 1) % config.test_every == 0 or epoch == config.epochs - 1:
            record["test_loss"], record["test_accuracy"] = self.evaluation.measure(state, self.evaluation.test)
        return record

    def _check_finite(self, value: jax.Array | None, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            raise RunError(
                f"the loss or its gradient is not finite in epoch {epoch} (counted from 0), step {step}; the last "
                f"good checkpoint is at {self.saved_at} in {str(self.folder.path / 'checkpoints')!r}; "
                "a smaller learning_rate may help"
            )

    def _save(self, step: int, state: RetrainState, sums: RetrainSums, seconds: float) -> None:
        self.checkpoints.save(step, (state, sums), {"seconds": seconds})
        self.last_save, self.saved_at = time.monotonic(), f"step {step}"

    def _resume_hint(self, step: int) -> str:
        return (
            f"saved after step {step}; continue with: python -m jaxdarts.evaluate --resume --run-dir {self.folder.path}"
        )

    def _tell_estimate(self) -> None:
        first = self.progress.steps_here == _ESTIMATE_AFTER_STEPS
        left = self.progress.seconds_left
        if first and left is not None and not self.progress.is_interactive:
            self.progress.message(f"about {format_seconds(left)} of steps left")

    def _show(self, epoch: int, record: dict[str, Any]) -> None:
        facts = {"train loss": f"{record['train_loss']:.3f}", "train accuracy": f"{record['train_accuracy']:.3f}"}
        for part in ("valid", "test"):
            if record[f"{part}_accuracy"] is not None:
                facts[f"{part} error"] = f"{1 - record[f'{part}_accuracy']:.2%}"
        facts["in"] = format_seconds(record["seconds"])
        self.progress.epoch(epoch, facts)

    def _conclude(self, state: RetrainState) -> EvaluationResult:
        metrics, cost, path = read_metrics(self.metrics_path), self.evaluation.cost, self.folder.path
        best = best_epoch(metrics)
        result = EvaluationResult(
            genotype=self.evaluation.genotype,
            run_dir=path,
            metrics=metrics,
            state=state,
            test_error=1 - metrics[-1]["test_accuracy"],
            best_epoch=best,
            best_test_error=None if best is None else 1 - metrics[best]["test_accuracy"],
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
        )
        with one_line_errors("write", path):
            title = Path(self.config.genotype).name
            save_cells(result.genotype, path / "cells.svg", path / "cells.png", title=title)
        kept = ("test_error", "best_epoch", "best_test_error", "parameters", "multiply_adds")
        self.folder.write_json(RESULT_FILE, {name: getattr(result, name) for name in kept})
        with one_line_errors("write", path / "report.html"):
            write_report(path)
        return result
