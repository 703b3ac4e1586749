"""How does an evaluation run from its configuration to its test error?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from jaxdarts.methods import RetrainState
from jaxdarts.networks.macro import cells_text
from jaxdarts.runs import reporting
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.device import device_name, precision
from jaxdarts.runs.devices import traced_for
from jaxdarts.runs.evaluate.assemble import Evaluation, RetrainSums, assemble_evaluation, choose_genotype
from jaxdarts.runs.evaluate.config import EvaluateConfig, check_evaluate_config
from jaxdarts.runs.evaluate.record import RESULT_FILE, best_epoch, recorded_genotype
from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.interrupt import Interrupt, catch_interrupts
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.schedules import drop_path, learning_rate
from jaxdarts.runs.stepping import SteppedRun, check_run_dir, open_run_dir
from jaxdarts.spaces import Architecture
from jaxdarts.spaces.files import GENOTYPE_FILE


class EvaluationResult(NamedTuple):
    """How well a genotype does when it is trained from scratch, and where the run's files are."""

    genotype: Architecture
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: RetrainState  # after the last step
    test_error: float | None  # after the last epoch, between 0 and 1: what the papers report; None: nothing was tested
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
    check_run_dir(config, folder_path, resume)
    if resume:
        assert folder_path is not None  # check_run_dir
        genotype = recorded_genotype(folder_path)
    else:
        genotype = choose_genotype(config)
    with precision(config.precision), traced_for(config.devices):
        enable_compilation_cache()
        evaluation = assemble_evaluation(config, genotype)
        device = device_name()
        folder = open_run_dir(config, folder_path, resume, device=device, facts=evaluation_facts(evaluation))
        with folder, catch_interrupts() as interrupt:
            return EvaluationRun(evaluation, folder, interrupt, stream, device).finish()


def evaluation_facts(evaluation: Evaluation) -> dict[str, Any]:
    """What an evaluation's config.json holds beside the fields."""
    return {
        "architecture": evaluation.genotype.to_json(),
        "parameters": evaluation.cost.parameters,
        "multiply_adds": evaluation.cost.multiply_adds,
        "class_names": list(evaluation.dataset.class_names),
    }


def network_text(evaluation: Evaluation) -> str:
    """How large the network is, for a banner."""
    config, cost = evaluation.config, evaluation.cost
    head = f", auxiliary head {config.auxiliary_weight:g}" if evaluation.problem.network.auxiliary else ""
    return (
        f"{cells_text(evaluation.genotype.macro, config.cells)}, {config.channels} channels, "
        f"{cost.parameters:,} parameters, {cost.multiply_adds:,} multiply-adds an image{head}"
    )


class EvaluationRun(SteppedRun[RetrainState, EvaluationResult]):
    """An evaluation's own part of a run: its measurements, and the result that it tells."""

    watched = "gradient"
    rates = "learning_rate"

    def __init__(
        self, evaluation: Evaluation, folder: RunFolder, interrupt: Interrupt, stream: TextIO | None, device: str
    ) -> None:
        super().__init__(evaluation, evaluation.config, folder, interrupt, stream, device)
        self.evaluation = evaluation
        folder.write_json(GENOTYPE_FILE, evaluation.genotype.to_json())

    def no_sums(self) -> RetrainSums:
        """The sums over no steps."""
        return RetrainSums.zero(self.evaluation.problem.dtype)

    def banner(self, state: RetrainState) -> tuple[str, dict[str, str]]:
        """What is trained, how and where."""
        config, data = self.evaluation.config, self.evaluation.dataset
        height, width, channels = data.image_shape
        held_out = 0 if self.evaluation.valid is None else len(self.evaluation.valid.labels)
        facts = {
            "genotype": config.genotype,
            "data": f"{data.name}: {len(self.evaluation.data.labels)} images to train on, "
            + (f"{held_out} held out, " if held_out else "")
            + ("" if self.evaluation.test is None else f"{len(self.evaluation.test.labels)} to test; ")
            + f"{height}x{width}x{channels}, {data.num_classes} classes",
            "network": network_text(self.evaluation),
            "run": f"{config.epochs} epochs of {self.evaluation.steps_per_epoch} steps, batch {config.batch_size}, "
            f"seed {config.seed}",
            "device": self.device,
            "folder": str(self.folder.path),
        }
        return f"evaluate {config.genotype} on {data.name} (preset {config.preset})", facts

    def measure(self, state: RetrainState, sums: RetrainSums, epoch: int, step: int) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, its duration excepted."""
        config, steps = self.evaluation.config, self.evaluation.steps_per_epoch
        record: dict[str, Any] = {
            "epoch": epoch,
            "step": step,
            "train_loss": float(sums.train_loss) / steps,
            "train_accuracy": int(sums.train_correct) / (steps * config.batch_size),
            "auxiliary_loss": float(sums.auxiliary_loss) / steps if self.evaluation.problem.network.auxiliary else None,
            "valid_loss": None,
            "valid_accuracy": None,
            "test_loss": None,
            "test_accuracy": None,
            "gradient_norm": float(sums.gradient_norm) / steps,
            "learning_rate": learning_rate(config, epoch),
            "l2": config.l2,
            "drop_path": drop_path(config, epoch),
        }
        best, test = False, self.evaluation.test
        if self.evaluation.valid is not None:
            record["valid_loss"], record["valid_accuracy"] = self.evaluation.measure(state, self.evaluation.valid)
            best = best_epoch([*read_metrics(self.metrics_path), record]) == epoch
        if test is not None and (best or (epoch + 1) % config.test_every == 0 or epoch == config.epochs - 1):
            record["test_loss"], record["test_accuracy"] = self.evaluation.measure(state, test)
        return record

    def shown(self, record: Mapping[str, Any]) -> dict[str, str]:
        """Loss, accuracy and errors."""
        facts = {"train loss": f"{record['train_loss']:.3f}", "train accuracy": f"{record['train_accuracy']:.3f}"}
        for part in ("valid", "test"):
            if record[f"{part}_accuracy"] is not None:
                facts[f"{part} error"] = f"{1 - record[f'{part}_accuracy']:.2%}"
        return facts

    def conclude(self, state: RetrainState, step: int) -> EvaluationResult:
        """Writes the result, the cells and the report."""
        metrics, cost, path = read_metrics(self.metrics_path), self.evaluation.cost, self.folder.path
        best = best_epoch(metrics)
        result = EvaluationResult(
            genotype=self.evaluation.genotype,
            run_dir=path,
            metrics=metrics,
            state=state,
            test_error=_error(metrics[-1]),
            best_epoch=best,
            best_test_error=None if best is None else _error(metrics[best]),
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
        )
        kept = ("test_error", "best_epoch", "best_test_error", "parameters", "multiply_adds")
        self.folder.write_json(RESULT_FILE, {name: getattr(result, name) for name in kept})
        reporting.write_report(path)
        return result


def _error(record: Mapping[str, Any]) -> float | None:
    accuracy = record["test_accuracy"]
    return None if accuracy is None else 1 - accuracy
