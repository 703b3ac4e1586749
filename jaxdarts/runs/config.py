"""What can be chosen about a search, and is a given choice possible?"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar

from jaxdarts.errors import InputError
from jaxdarts.runs.checks import Check, at_least, check_choices, check_types, check_values, positive, unit

if TYPE_CHECKING:  # it imports JAX, for which --help should not wait
    from jaxdarts.methods import StoppingRule

SPLITS = ("file", "shuffled")
PRECISIONS = ("float32", "float64", "bfloat16")
REMATS = ("auto", "on", "off")
STEP_COMPILATIONS = ("auto", "whole", "parts")
RULED_METHODS = ("darts-es", "darts-ada")  # those that look at the eigenvalues' history


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
    """Search method: darts, darts-es (stops when the curvature grows), darts-ada (then goes back and raises l2),
    random-ws (random search with weight sharing), or random (a genotype drawn at random)."""
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
    es_rule: str = "quick"
    """When darts-es stops and darts-ada goes back: by the rule of the paper (window and lag in epochs), of
    RobustDARTS' code (in measurements; it measures every 2 epochs), or quick, which can decide in a run of 10 epochs:
    a window of 3 measurements, a lag of 2, and returned epochs from 2 on (the others: 5, 5 or 4, 10)."""
    es_window: int | None = None
    """Width of the centred average of the dominant eigenvalue, odd; None: the rule's own."""
    es_lag: int | None = None
    """Distance of the two averages that are compared, and so of the returned epoch; None: the rule's own."""
    es_threshold: float | None = None
    """The search stops when the newer average is more than this many times the older; None: the rule's own."""
    es_first_epoch: int | None = None
    """Earliest epoch that may be returned, counted from 0; None: the rule's own."""
    ada_factor: float = 10.0
    """What darts-ada multiplies l2 by when it goes back."""
    ada_max_l2: float = 0.03
    """Where darts-ada stops raising l2, and testing."""
    selection_samples: int = 100
    """Architectures that random-ws draws at the end and scores on a few batches."""
    selection_batches: int = 5
    """Validation batches for that."""
    selection_finalists: int = 5
    """The best of them, which are scored on the whole validation half."""
    spectrum_size: int = 30
    """Eigenvalues of the alpha-Hessian, largest by magnitude, that are found when the search has ended; 0: none."""
    checkpoint_every_minutes: float = 5.0
    """Minutes between checkpoints inside an epoch; the end of an epoch is always saved."""
    checkpoints_to_keep: int = 3
    """Newest checkpoints that are kept, beside those that the method may go back to."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard (extra `tensorboard`)."""
    seed: int = 0
    """Everything random follows from it."""
    precision: str = "float32"
    """float32, float64, or bfloat16: what goes through the network in a step is bfloat16, and the weights, alpha,
    statistics and optimisers are float32."""
    remat: str = "auto"
    """First cells of which a backward pass keeps only the inputs and computes the inside again, which takes less memory
    and longer: a number, off (none), on (all), or auto (as few as keep a gradient within 8 GB on a CPU, and within
    three quarters of the memory anywhere)."""
    devices: int = 1
    """Devices that every batch is split over: the first ones, of each process where there are several. The result is
    that of one device, up to rounding."""
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
        es_rule="paper",
        selection_samples=1000,
        selection_batches=10,
        selection_finalists=10,
    ),
}

# May change between a run and its continuation: they do not touch the result, `devices` no more than by rounding.
CHANGEABLE_FIELDS = (
    "preset",
    "data_dir",
    "download",
    "checkpoint_every_minutes",
    "checkpoints_to_keep",
    "tensorboard",
    "devices",
)


_CHECKS = [
    *at_least(1, "epochs", "batch_size", "channels", "unrolled_steps", "neumann_terms", "cg_max_steps", "devices"),
    *at_least(1, "cutout_length", "curvature_batches", "curvature_products", "checkpoints_to_keep"),
    *at_least(0, "crop_padding", "curvature_every", "checkpoint_every_minutes", "cg_damping", "l2", "alpha_l2"),
    *at_least(0, "learning_rate_min", "alpha_init_scale", "es_first_epoch", "ada_max_l2", "spectrum_size"),
    *at_least(1, "es_window", "es_lag", "selection_samples", "selection_batches", "selection_finalists"),
    *at_least(3, "cells"),
    *at_least(8, "image_size"),
    *at_least(2, "limit"),
    *positive("learning_rate", "alpha_learning_rate", "clip_norm", "finite_difference_radius"),
    *positive("es_threshold"),
    Check("es_window", lambda value: value % 2 == 1, "odd, since the average is centred"),
    Check("ada_factor", lambda value: value > 1, "greater than 1"),
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
    _check_method(config)


def _check_method(config: SearchConfig) -> None:
    """What only some methods need."""
    if config.method == "darts-ada":
        if config.l2 == 0:
            raise InputError("l2 must be greater than 0 for darts-ada, which multiplies it; got 0")
        if config.ada_max_l2 < config.l2:
            raise InputError(
                f"ada_max_l2 must be at least l2 ({config.l2}), where darts-ada starts; got {config.ada_max_l2}"
            )
    if config.method == "random-ws" and config.selection_finalists > config.selection_samples:
        raise InputError(
            f"selection_finalists must be at most selection_samples ({config.selection_samples}); "
            f"got {config.selection_finalists}"
        )
    is_number = config.remat.isdecimal()
    if not is_number and config.remat not in REMATS:
        raise InputError(
            f"unknown remat {config.remat!r}; choose from {', '.join(sorted(REMATS))} or a number of cells"
        )
    if is_number and int(config.remat) > config.cells:
        raise InputError(f"remat must be at most cells ({config.cells}); got {config.remat}")
    if config.method in RULED_METHODS:
        if config.curvature_every == 0:
            raise InputError(f"curvature_every must be at least 1 for {config.method}, which looks at the curvature")
        rule = stopping_rule(config)
        if rule.first_decision > config.epochs - 2:  # in the last epoch there is nothing left to stop
            raise InputError(
                f"es_window {rule.window}, es_lag {rule.lag} and es_first_epoch {rule.first_epoch} (es_rule "
                f"{config.es_rule!r}, curvature_every {config.curvature_every}) give a first decision after "
                f"{rule.first_decision + 1} epochs, too late for epochs {config.epochs}; choose smaller ones or "
                f"epochs of at least {rule.first_decision + 2}"
            )


def stopping_rule(config: SearchConfig) -> StoppingRule:
    """The early-stopping rule that a configuration asks for; of a method without one, the smoothing of the paper."""
    from jaxdarts.methods import STOPPING_RULES, make_rule

    if config.method not in RULED_METHODS:
        return STOPPING_RULES["paper"]
    return make_rule(
        config.es_rule,
        config.curvature_every,
        window=config.es_window,
        lag=config.es_lag,
        threshold=config.es_threshold,
        first_epoch=config.es_first_epoch,
    )


def _choices() -> dict[str, Collection[str]]:
    # Imported here because these modules import JAX, for which --help should not wait.
    from jaxdarts.bilevel import HYPERGRADIENTS
    from jaxdarts.methods import METHODS, STOPPING_RULES

    return {
        "preset": PRESETS,
        "method": METHODS,
        "hypergradient": HYPERGRADIENTS,
        "es_rule": STOPPING_RULES,
        "split": SPLITS,
        "precision": PRECISIONS,
        "step_compilation": STEP_COMPILATIONS,
    }
