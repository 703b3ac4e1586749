"""What can be chosen about a search, and is a given choice possible?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import ClassVar

from jaxdarts.errors import InputError
from jaxdarts.runs.checks import (
    Check,
    at_least,
    check_choices,
    check_types,
    check_values,
    positive,
    unit,
)

SPLITS = ("file", "shuffled")
PRECISIONS = ("float32", "float64", "bfloat16")
REMATS = ("auto", "on", "off")
STEP_COMPILATIONS = ("auto", "whole", "parts")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Everything that decides a search's result. `SearchConfig()` is the preset `quick`.

    `quick` differs from `paper` in size only, and in alpha's learning rate: ten times the published one, so that alpha
    moves as far in 250 steps as it would in 2500.

    The values of `PRESETS["paper"]` are those of Liu et al. 2019 as the RobustDARTS code runs them (Zela et al. 2020).
    """

    command: ClassVar[str] = "search"

    space: str = "s1"
    """Search space: darts, s1, s2, s3, s4, s5, or the path of a .toml file."""
    dataset: str = "photos10"
    """Data set: photos10, digits, npz:PATH, folder:PATH, or a tensorflow-datasets name such as cifar10."""
    data_dir: str | None = None
    """Folder in which a data set is looked for."""
    download: bool = False
    """Download and prepare a data set that is missing; nothing is ever downloaded without this."""
    preset: str = "quick"
    """Where the values not given come from: quick (minutes on a laptop) or paper (the published settings)."""
    method: str = "darts"
    """Search method, e.g. darts."""
    hypergradient: str = "unrolled"
    """Gradient of the outer objective in alpha: first_order, finite_difference (DARTS' central difference),
    unrolled (exact), neumann or conjugate_gradient (implicit)."""
    unrolled_steps: int = 1
    """Inner steps that unrolled differentiates through."""
    finite_difference_radius: float = 1e-2
    """Length of the step in w that finite_difference takes to each side."""
    neumann_terms: int = 2
    """Terms of the Neumann series for the inverse inner Hessian."""
    cg_max_steps: int = 10
    """Most conjugate-gradient steps for the inverse inner Hessian."""
    cg_damping: float = 1e-2
    """Multiple of the identity that conjugate_gradient adds to the inner Hessian."""
    epochs: int = 10
    """Passes over the half of the data that trains w; both schedules span them."""
    batch_size: int = 32
    """Images in a batch, of either half."""
    channels: int = 8
    """Channels of the first cell; the stem has three times as many."""
    cells: int = 3
    """Cells in the network, at least 3: numbers cells // 3 and 2 * cells // 3 are reduction cells."""
    image_size: int | None = 16
    """Images are resized to this many pixels a side, at least 8; None keeps the data's own size."""
    limit: int | None = 1600
    """Use only this many training images, before the split."""
    train_portion: float = 0.5
    """Part of the training images that trains w; the rest trains alpha."""
    split: str = "file"
    """How the two parts are cut: file (in the data's order, as the reference) or shuffled (by the seed)."""
    learning_rate: float = 0.025
    """Learning rate of w in the first epoch."""
    learning_rate_min: float = 0.001
    """Where the cosine schedule of the learning rate ends."""
    momentum: float = 0.9
    """Momentum of w's SGD."""
    l2: float = 3e-4
    """L2 factor of w, added to the gradient before the momentum."""
    clip_norm: float = 5.0
    """Largest global norm of w's gradient."""
    alpha_learning_rate: float = 3e-3
    """Learning rate of alpha's Adam."""
    alpha_b1: float = 0.5
    """Decay of Adam's first moment."""
    alpha_b2: float = 0.999
    """Decay of Adam's second moment."""
    alpha_l2: float = 1e-3
    """L2 factor of alpha, added to the gradient before Adam."""
    alpha_init_scale: float = 1e-3
    """Standard deviation of alpha at the start."""
    drop_path: float = 0.0
    """Largest drop-path probability; it rises linearly from 0 in the first epoch to this in the last."""
    cutout: bool = False
    """Mask a random square of every training image."""
    cutout_length: int = 16
    """Side of cutout's square, in pixels."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = 2
    """Pixels of zero padding before the random crop; 0 turns the crop off."""
    clip_virtual_step: bool = False
    """Also clip the gradient in the inner step that a hypergradient imagines; the reference does not."""
    curvature_every: int = 1
    """Epochs between measurements of the Hessian in alpha; 0 turns them off."""
    curvature_batches: int = 1
    """Held batches that the Hessian is averaged over."""
    curvature_products: int = 10
    """Hessian-vector products (Lanczos steps) a measurement."""
    curvature_weight_decay_shift: bool = False
    """Add alpha_l2 to every eigenvalue, as the reference's Hessian does."""
    checkpoint_every_minutes: float = 5.0
    """Minutes between checkpoints inside an epoch; the end of an epoch is always saved."""
    checkpoints_to_keep: int = 3
    """Newest checkpoints that are kept."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard (extra `tensorboard`)."""
    seed: int = 0
    """Everything random follows from it."""
    precision: str = "float32"
    """float32, float64, or bfloat16: what goes through the network in a step is bfloat16, and the weights, alpha,
    statistics and optimisers are float32."""
    remat: str = "auto"
    """Keep only each cell's inputs for the backward pass and compute its inside again, which takes a half of the
    memory and longer: on, off, or auto, where a gradient would otherwise need most of the memory."""
    step_compilation: str = "auto"
    """whole (one program a step), parts (a gradient and a product program, each used several times: compiles in half
    the time), or auto: parts on a CPU, whole elsewhere."""


PRESETS: dict[str, SearchConfig] = {
    "quick": SearchConfig(),
    "paper": SearchConfig(
        preset="paper",
        dataset="cifar10",
        epochs=50,
        batch_size=64,
        channels=16,
        cells=8,
        image_size=None,
        limit=None,
        alpha_learning_rate=3e-4,
        crop_padding=4,
        curvature_products=20,
    ),
}

# May change between a run and its continuation: they do not touch the result.
CHANGEABLE_FIELDS = ("preset", "data_dir", "download", "checkpoint_every_minutes", "checkpoints_to_keep", "tensorboard")


_CHECKS = [
    *at_least(1, "epochs", "batch_size", "channels", "unrolled_steps", "neumann_terms", "cg_max_steps"),
    *at_least(1, "cutout_length", "curvature_batches", "curvature_products", "checkpoints_to_keep"),
    *at_least(0, "crop_padding", "curvature_every", "checkpoint_every_minutes", "cg_damping", "l2", "alpha_l2"),
    *at_least(0, "learning_rate_min", "alpha_init_scale"),
    *at_least(3, "cells"),
    *at_least(8, "image_size"),
    *at_least(2, "limit"),
    *positive("learning_rate", "alpha_learning_rate", "clip_norm", "finite_difference_radius"),
    *unit("momentum", "alpha_b1", "alpha_b2", "drop_path"),
    Check("train_portion", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    Check("seed", lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
    Check("dataset", bool, "a name such as photos10"),
]


def check_config(config: SearchConfig) -> None:
    """Checks every field before anything is read, traced or written.

    Raises:
      InputError: naming the first field that cannot be used, its value and what is allowed.
    """
    check_types(config)
    check_values(config, _CHECKS)
    if config.learning_rate_min > config.learning_rate:
        raise InputError(
            f"learning_rate_min must be at most learning_rate ({config.learning_rate}); got {config.learning_rate_min}"
        )
    check_choices(config, _choices())
    from jaxdarts.spaces import load_space

    load_space(config.space)


def _choices() -> dict[str, Collection[str]]:
    # Imported here because these modules import JAX, for which --help should not wait.
    from jaxdarts.bilevel import HYPERGRADIENTS
    from jaxdarts.methods import METHODS

    return {
        "preset": PRESETS,
        "method": METHODS,
        "hypergradient": HYPERGRADIENTS,
        "split": SPLITS,
        "precision": PRECISIONS,
        "remat": REMATS,
        "step_compilation": STEP_COMPILATIONS,
    }
