"""What can be chosen about training a genotype from scratch, and is a given choice possible?"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxdarts.errors import InputError
from jaxdarts.runs.checks import Check, PlainFields, at_least, check_choices, check_types, check_values, positive, unit
from jaxdarts.runs.search.config import PRECISIONS, SPLITS


@dataclasses.dataclass(frozen=True)
class TrainingConfig(PlainFields):
    """How a network is trained from scratch, whichever it is. The defaults are those of the preset `quick`."""

    command: ClassVar[str]

    dataset: str = "photos10"
    """Data set: photos10, digits, npz:PATH, folder:PATH, or a tensorflow-datasets name such as cifar10."""
    data_dir: str | None = None
    """Folder in which a data set is looked for."""
    download: bool = False
    """Download and prepare a data set that is missing; nothing is ever downloaded without this."""
    preset: str = "quick"
    """Where the values not given come from: quick (minutes on a laptop) or paper (the published settings)."""
    epochs: int = 15
    """Passes over the training images; both schedules span them."""
    batch_size: int = 32
    """Images in a batch."""
    channels: int = 8
    """Channels of the first cell; the stem has three times as many, of nasbench201 as many."""
    cells: int = 5
    """Cells in the network, at least 3: numbers cells // 3 and 2 * cells // 3 are reduction cells. Of nasbench201 in
    each of its three stages, at least 1."""
    image_size: int | None = 16
    """Images are resized to this many pixels a side, at least 8; None keeps the data's own size."""
    limit: int | None = None
    """Use only this many training images, and the same part of the test set."""
    test_limit: int | None = None
    """Use this many test images, whatever `limit` is; None: the part that it leaves."""
    valid_portion: float = 0.0
    """Part of the training images that is held out, to choose an epoch by; 0 trains on all, as the references do."""
    split: str = "file"
    """How the held-out part is cut: file (the last of the data's order) or shuffled (by the seed)."""
    learning_rate: float = 0.025
    """Learning rate in the first epoch."""
    learning_rate_min: float = 0.0
    """Where the cosine schedule of the learning rate ends."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum instead of the heavy ball's."""
    l2: float = 3e-4
    """L2 factor, added to the gradient before the momentum."""
    clip_norm: float = 5.0
    """Largest global norm of the gradient."""
    drop_path: float = 0.2
    """Largest drop-path probability: epoch e of E, counted from 0, has e / E of it. Identities are never dropped."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out. Networks of nasbench201 have none."""
    cutout: bool = True
    """Mask a random square of every training image."""
    cutout_length: int = 8
    """Side of cutout's square, in pixels."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = 2
    """Pixels of zero padding before the random crop; 0 turns the crop off."""
    seed: int = 0
    """Everything random follows from it."""
    precision: str = "float32"
    """float32, float64, or bfloat16: what goes through the network in a step is bfloat16, and the weights, statistics
    and the optimiser are float32."""


@dataclasses.dataclass(frozen=True)
class _Genotype:
    """What an evaluation trains: a class of its own so that these flags come first in --help."""

    genotype: str = ""
    """What is trained: a published genotype's name such as DARTS_V2, a file (genotype.json, or the PyTorch codes'
    Genotype(...) text), that text itself, or the folder of a search."""
    space: str | None = None
    """Search space (a name or the path of a .toml file) that the genotype must belong to; None: any."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(TrainingConfig, _Genotype):
    """Everything that decides an evaluation's result. `EvaluateConfig(genotype=...)` is the preset `quick`.

    The values of `EVALUATE_PRESETS["paper"]` are those of Liu et al. 2019 for CIFAR-10, with which Zela et al. 2020
    evaluate too, whatever the search's own L2 and drop path were (their appendix C); for their sizes see
    configs/evaluate.
    """

    command: ClassVar[str] = "evaluate"

    test_every: int = 1
    """Epochs between tests; the last epoch and those with the best validation accuracy so far are always tested."""
    checkpoint_every_minutes: float = 5.0
    """Minutes between checkpoints inside an epoch; the end of an epoch is always saved."""
    checkpoints_to_keep: int = 3
    """Newest checkpoints that are kept."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard (extra `tensorboard`)."""
    devices: int = 1
    """Devices that every batch is split over: the first ones, of each process where there are several. The result is
    that of one device, up to rounding."""


EVALUATE_PRESETS: dict[str, EvaluateConfig] = {
    "quick": EvaluateConfig(),
    "paper": EvaluateConfig(
        preset="paper",
        dataset="cifar10",
        epochs=600,
        batch_size=96,
        channels=36,
        cells=20,
        image_size=None,
        cutout_length=16,
        crop_padding=4,
    ),
}

_CHECKS = [
    *at_least(1, "epochs", "batch_size", "channels", "cutout_length", "cells", "test_limit"),
    *at_least(0, "crop_padding", "l2", "learning_rate_min", "auxiliary_weight"),
    *at_least(8, "image_size"),
    *at_least(2, "limit"),
    *positive("learning_rate", "clip_norm"),
    *unit("momentum", "drop_path", "valid_portion"),
    Check("seed", lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
    Check("dataset", bool, "a name such as photos10"),
]
_EVALUATE_CHECKS = [
    Check("genotype", bool, "a name such as DARTS_V2, a file or the folder of a search"),
    *at_least(1, "test_every", "checkpoints_to_keep", "devices"),
    *at_least(0, "checkpoint_every_minutes"),
]


def check_evaluate_config(config: EvaluateConfig) -> None:
    """Checks every field before anything is read, traced or written.

    Raises:
      InputError: naming the first field that cannot be used, its value and what is allowed.
    """
    check_types(config)
    check_values(config, _EVALUATE_CHECKS)
    check_training_config(config)


def check_training_config(config: TrainingConfig) -> None:
    """As `check_evaluate_config`, whatever is trained."""
    check_types(config)
    check_values(config, _CHECKS)
    if config.learning_rate_min > config.learning_rate:
        raise InputError(
            f"learning_rate_min must be at most learning_rate ({config.learning_rate}); got {config.learning_rate_min}"
        )
    check_choices(config, {"preset": EVALUATE_PRESETS, "split": SPLITS, "precision": PRECISIONS})
