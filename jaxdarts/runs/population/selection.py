"""Which of several genotypes is best when each is trained for a short time?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from jaxdarts.errors import RunInterrupted
from jaxdarts.methods import RetrainState
from jaxdarts.runs.evaluate.assemble import Images, build_evaluation
from jaxdarts.runs.evaluate.config import EVALUATE_PRESETS, EvaluateConfig
from jaxdarts.runs.evaluate.loop import EvaluationRun, evaluation_facts, network_text
from jaxdarts.runs.evaluate.record import RESULT_FILE
from jaxdarts.runs.folder import CONFIG_FILE, RunFolder
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.metrics import read_metrics
from jaxdarts.runs.record import METRICS_FILE
from jaxdarts.runs.search.assemble import Search
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.spaces import Architecture


class Retrained(NamedTuple):
    """How well a genotype did, after the last epoch, on the part of the data that trains alpha in a search."""

    accuracy: float
    loss: float


def ranking(scores: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (accuracy, loss), best first: the greater accuracy, of equals the lower loss, then the first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i][0], scores[i][1], i))


def retrain_config(config: SearchConfig, name: str) -> EvaluateConfig:
    """How a population's genotype is trained for a short time: as in an evaluation, at the size of the search.

    L2, drop path, cutout and the auxiliary head are those of the evaluation's preset whatever the search's own are, as
    in the final training (Zela et al. 2020, appendix C), so that all candidates are treated alike.
    """
    return dataclasses.replace(
        EVALUATE_PRESETS[config.preset],
        genotype=name,
        epochs=config.retrain_epochs,
        channels=config.retrain_channels or config.channels,
        cells=config.retrain_cells or config.cells,
        valid_portion=1 - config.train_portion,
        dataset=config.dataset,
        data_dir=config.data_dir,
        batch_size=config.batch_size,
        image_size=config.image_size,
        limit=config.limit,
        split=config.split,
        flip=config.flip,
        crop_padding=config.crop_padding,
        checkpoint_every_minutes=config.checkpoint_every_minutes,
        checkpoints_to_keep=config.checkpoints_to_keep,
        seed=config.seed,
        precision=config.precision,
    )


class _Retraining(EvaluationRun):
    """An evaluation that is a part of a run, which has told most of what there is to say."""

    def banner(self, state: RetrainState) -> tuple[str, dict[str, str]]:
        """Whose genotype is trained, and how long."""
        config, steps = self.evaluation.config, self.evaluation.steps_per_epoch
        title = f"retrain the genotype of {config.genotype}: {config.epochs} epochs of {steps} steps"
        return title, {"network": network_text(self.evaluation)}


def retrain(
    search: Search,
    config: EvaluateConfig,
    genotype: Architecture,
    folder: Path,
    interrupt: Interrupt,
    stream: TextIO | None,
    device: str,
) -> Retrained:
    """Trains a genotype from scratch on the part of a search's data that trains w, or goes on with that.

    What has finished in `folder` is not done again. The images of the other part are not augmented; test images are
    not looked at.

    Raises:
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    if not (folder / RESULT_FILE).is_file():
        evaluation = build_evaluation(config, genotype, Images(search.dataset, *search.data, None))
        facts = {**evaluation_facts(evaluation), "part_of": "../.."}
        resume = (folder / CONFIG_FILE).is_file()
        opened = (
            RunFolder.reopen(config, folder, part=True)
            if resume
            else RunFolder.create(config, folder, device=device, facts=facts)
        )
        with opened:
            _Retraining(evaluation, opened, interrupt, stream, device).finish()
            if interrupt.requested:
                raise RunInterrupted(f"{config.genotype} is retrained")
    last = read_metrics(folder / METRICS_FILE)[-1]
    return Retrained(last["valid_accuracy"], last["valid_loss"])
