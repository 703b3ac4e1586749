"""What can be chosen about a search?"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from jaxdarts.runs.checks import PlainFields

if TYPE_CHECKING:  # it imports JAX, for which --help should not wait
    from jaxdarts.methods import StoppingRule

SPLITS = ("file", "shuffled")
PRECISIONS = ("float32", "float64", "bfloat16")
REMATS = ("auto", "on", "off")
STEP_COMPILATIONS = ("auto", "whole", "parts")
RULED_METHODS = ("darts-es", "darts-ada")  # those that look at the eigenvalues' history
POPULATION_MAPPINGS = ("auto", "vmap", "map")


@dataclasses.dataclass(frozen=True)
class SearchConfig(PlainFields):
    """Everything that decides a search's result. `SearchConfig()` is the preset `quick`.

    `quick` differs from `paper` in size only, and in alpha's learning rate: ten times the published one, so that alpha
    moves as far in 250 steps as it would in 2500.

    The values of `PRESETS["paper"]` are those of Liu et al. 2019 as the RobustDARTS code runs them (Zela et al. 2020).
    """

    command: ClassVar[str] = "search"

    space: str = "s1"
    """Search space: darts, s1, s2, s3, s4, s5, nasbench201, or the path of a .toml file."""
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
    beta-darts (Beta-Decay on alpha), r-darts-l2 and r-darts-dp (several searches with different l2 or drop_path, the
    best by a short retraining), random-ws (random search with weight sharing), or random (a genotype drawn at
    random)."""
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
    """Channels of the first cell; the stem has three times as many, of nasbench201 as many."""
    cells: int = 3
    """Cells in the network, at least 3: numbers cells // 3 and 2 * cells // 3 are reduction cells. Of nasbench201 in
    each of its three stages, at least 1."""
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
    alpha_weight_decay: float = 0.0
    """Decoupled weight decay of alpha (AdamW), added after Adam and multiplied by alpha's learning rate."""
    beta_weight: float | None = None
    """Greatest weight of Beta-Decay, added to the outer objective of any method that learns alpha; None: that of the
    schedule, else 50 for beta-darts and none for other methods."""
    beta_schedule: str = "linear"
    """How the weight goes over the epochs: linear (from 0), constant, decreasing (to 0), or one of the paper with its
    weight: 0-15, 0-25, 0-50, 0-100, constant-15, 50-0."""
    beta_variant: str = "edge"
    """edge (Beta-Decay: mean over edges of logsumexp), global (over all entries together) or zero (each by itself)."""
    temperature_start: float = 1.0
    """Temperature in the first epoch."""
    temperature_end: float | None = None
    """Temperature in the last epoch; None: that of the first."""
    temperature_schedule: str = "exponential"
    """How it goes from the one to the other: exponential, linear, or constant."""
    temperature_form: str = "softmax"
    """softmax: mixing weights are softmax(alpha / temperature); update: alpha itself is divided by it in every step."""
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
    select_every: int = 0
    """Epochs between selections that random-ws also makes during the search and writes to metrics.jsonl, as it makes
    the one at the end; they change nothing else. 0: only at the end."""
    population: int | None = None
    """Searches side by side in one run, with seeds seed, seed + 1, ... on the same data; None: 1, and of r-darts-l2
    and r-darts-dp one a strength."""
    population_mapping: str = "auto"
    """vmap (a step of all members is computed together), map (one after another), or auto: map on a CPU, vmap
    elsewhere."""
    strengths: str | None = None
    """Of r-darts-l2 and r-darts-dp: each member's l2, or largest drop_path, with commas between them; None: those of
    the paper, 3e-4,9e-4,27e-4,81e-4 and 0,0.2,0.4,0.6."""
    retrain_epochs: int = 5
    """Epochs that every genotype of a population is trained for from scratch, to choose the best; 0: the best is that
    of the supernet with the best validation accuracy."""
    retrain_channels: int | None = None
    """Channels of the networks retrained; None: as in the search."""
    retrain_cells: int | None = None
    """Cells of the networks retrained; None: as in the search."""
    benchmark: str | None = None
    """Table of NAS-Bench-201 (.npz or .csv) in which the genotype of every epoch is looked up; None: the one that the
    environment variable JAXDARTS_NASBENCH201 names, if it does and the space is nasbench201."""
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
    data_seed: int | None = None
    """The crops of photos10 and the shuffled split follow from this; None: from seed."""
    precision: str = "float32"
    """float32, float64, or bfloat16: what goes through the network in a step is bfloat16, and the weights, alpha,
    statistics and optimisers are float32."""
    remat: str = "auto"
    """First cells (of nasbench201 blocks) of which a backward pass keeps only the inputs and computes the inside again,
    which takes less memory and longer: a number, off (none), on (all), or auto (as few as keep a gradient within 8 GB
    on a CPU, and within three quarters of the memory anywhere)."""
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
        retrain_epochs=100,
        selection_samples=1000,
        selection_batches=10,
        selection_finalists=10,
    ),
}

# May change between a run and its continuation: they do not touch the result, `devices` no more than by rounding.
CHANGEABLE_FIELDS = (
    "preset",
    "data_dir",
    "benchmark",
    "download",
    "checkpoint_every_minutes",
    "checkpoints_to_keep",
    "tensorboard",
    "devices",
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
