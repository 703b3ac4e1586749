"""What can be chosen about learning alpha, whichever method learns it?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxdarts.bilevel import BETA_DECAY_PENALTIES, HYPERGRADIENTS
from jaxdarts.checks import Check, at_least, positive, unit
from jaxdarts.errors import InputError
from jaxdarts.methods.early_stopping import STOPPING_RULES
from jaxdarts.methods.schedules import BETA_SCHEDULES, TEMPERATURE_SCHEDULES
from jaxdarts.settings import Group, Use

TEMPERATURE_FORMS = ("softmax", "update")
BETA_DARTS_WEIGHT = 50.0


@dataclass(frozen=True)
class Alpha(Group):
    """Training of alpha."""

    hypergradient: str = "unrolled"
    """Gradient of the outer objective in alpha: first_order, finite_difference, unrolled (exact), neumann or
    conjugate_gradient. finite_difference is DARTS' central difference, the last two are implicit."""
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
    clip_virtual_step: bool = False
    """Also clip the gradient in the inner step that a hypergradient imagines; the reference does not."""
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
    alpha_init_scale: float = 1e-3
    """Standard deviation of alpha at the start."""
    alpha_clip_norm: float | None = None
    """Largest global norm of alpha's gradient, before L2 and Beta-Decay; None: any."""
    alpha_warm_up: float = 0.0
    """Part of the epochs, at the start, in which alpha rests and only w is trained; 0.3 is 15 of 50."""
    single_level: bool = False
    """Train alpha and w by one gradient of a batch of both parts of the data, instead of alternating between them:
    there is no outer objective then."""
    checks: ClassVar = [
        *at_least(1, "unrolled_steps", "neumann_terms", "cg_max_steps"),
        *at_least(0, "cg_damping", "alpha_l2", "alpha_init_scale", "alpha_weight_decay"),
        *positive("alpha_learning_rate", "finite_difference_radius", "alpha_clip_norm"),
        *unit("alpha_b1", "alpha_b2", "alpha_warm_up"),
        Check("neumann_terms", lambda value: value <= 100, "at most 100"),
    ]
    uses: ClassVar = [
        Use(("unrolled_steps",), "hypergradient unrolled", lambda s: s.hypergradient == "unrolled"),
        Use(
            ("finite_difference_radius",),
            "hypergradient finite_difference",
            lambda s: s.hypergradient == "finite_difference",
        ),
        Use(("neumann_terms",), "hypergradient neumann", lambda s: s.hypergradient == "neumann"),
        Use(
            ("cg_max_steps", "cg_damping"),
            "hypergradient conjugate_gradient",
            lambda s: s.hypergradient == "conjugate_gradient",
        ),
        Use(
            ("clip_virtual_step",),
            "hypergradients unrolled and finite_difference",
            lambda s: s.hypergradient in ("unrolled", "finite_difference"),
        ),
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The hypergradients."""
        return {"hypergradient": HYPERGRADIENTS}

    def check(self) -> None:
        """Refuses what looks ahead where there is no inner objective to look ahead in."""
        if self.single_level and self.hypergradient != "first_order":
            raise InputError(
                "hypergradient must be first_order with single_level, which has one gradient for alpha and w; "
                f"got {self.hypergradient!r} (--no-single-level goes with any)"
            )


@dataclass(frozen=True)
class Channels(Group):
    """Part of the channels, and weights of edges (Xu et al. 2020)."""

    partial_channels: int = 1
    """K: the first 1/K of a state's channels go through an edge's operations and the others pass by; divides the
    channels. 1: all go through operations."""
    edge_normalisation: bool = False
    """Edges have weights too: a softmax over the edges that lead to a node."""
    checks: ClassVar = at_least(1, "partial_channels")


@dataclass(frozen=True)
class BetaDecay(Group):
    """Beta-Decay on alpha (Ye et al. 2022)."""

    beta_weight: float | None = None
    """Greatest weight of Beta-Decay, added to the outer objective of any method that learns alpha; None: that of the
    schedule, else 50 for beta-darts and none for other methods."""
    beta_schedule: str = "linear"
    """How the weight goes over the epochs: linear (from 0), constant, decreasing (to 0), or one of the paper with its
    weight: 0-15, 0-25, 0-50, 0-100, constant-15, 50-0."""
    beta_variant: str = "edge"
    """edge (Beta-Decay: mean over edges of logsumexp), global (over all entries together) or zero (each by itself)."""
    checks: ClassVar = at_least(0, "beta_weight")

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """Schedules and variants."""
        return {"beta_schedule": BETA_SCHEDULES, "beta_variant": BETA_DECAY_PENALTIES}

    def check(self) -> None:
        """Refuses a weight that a named schedule contradicts, and settings without a weight."""
        named = BETA_SCHEDULES[self.beta_schedule].weight
        if named is not None and self.beta_weight not in (None, named, BETA_DARTS_WEIGHT):
            raise InputError(
                f"beta_weight must be {named:g} or not given with beta_schedule {self.beta_schedule!r}; "
                f"got {self.beta_weight}; other weights: beta_schedule linear, constant or decreasing"
            )
        if named is None and self.beta_weight is None:
            for name, default in (("beta_schedule", "linear"), ("beta_variant", "edge")):
                if getattr(self, name) != default:
                    raise InputError(f"{name} {getattr(self, name)!r} needs beta_weight or method beta-darts")


@dataclass(frozen=True)
class Temperature(Group):
    """Temperature of the relaxation, or of alpha."""

    temperature_start: float = 1.0
    """Temperature in the first epoch."""
    temperature_end: float | None = None
    """Temperature in the last epoch; None: that of the first."""
    temperature_schedule: str = "exponential"
    """How it goes from the one to the other: exponential, linear, or constant."""
    temperature_form: str = "softmax"
    """softmax: mixing weights are softmax(alpha / temperature); update: alpha itself is divided by it in every step."""
    checks: ClassVar = positive("temperature_start", "temperature_end")

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """Schedules and forms."""
        return {"temperature_schedule": TEMPERATURE_SCHEDULES, "temperature_form": TEMPERATURE_FORMS}

    def check(self) -> None:
        """Refuses settings that would have no effect, or contradict each other."""
        ends = [self.temperature_start, self.temperature_end or self.temperature_start]
        if self.temperature_schedule == "constant" and ends[0] != ends[1]:
            raise InputError(
                f"temperature_end must be temperature_start ({ends[0]}) or None with temperature_schedule 'constant'; "
                f"got {ends[1]}"
            )
        if self.temperature_form == "update" and min(ends) < 1:
            name = "temperature_start" if ends[0] < 1 else "temperature_end"
            raise InputError(
                f"{name} must be at least 1 with temperature_form 'update', which divides alpha in every step; "
                f"got {getattr(self, name)}"
            )
        if ends == [1, 1]:
            for name, default in (("temperature_schedule", "exponential"), ("temperature_form", "softmax")):
                if getattr(self, name) != default:
                    raise InputError(
                        f"{name} {getattr(self, name)!r} needs a temperature_start or temperature_end other than 1"
                    )


@dataclass(frozen=True)
class EarlyStopping(Group):
    """Early stopping by the curvature (Zela et al. 2020)."""

    early_stopping: str = "none"
    """What happens when the curvature has grown too far: none, stop (darts-es), or go-back (darts-ada: from an earlier
    epoch on, with more l2)."""
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
    checks: ClassVar = [
        *at_least(1, "es_window", "es_lag"),
        *at_least(0, "es_first_epoch", "ada_max_l2"),
        *positive("es_threshold"),
        Check("es_window", lambda value: value % 2 == 1, "odd, since the average is centred"),
        Check("ada_factor", lambda value: value > 1, "greater than 1"),
    ]
    uses: ClassVar = [
        Use(
            ("es_rule", "es_window", "es_lag", "es_threshold", "es_first_epoch"),
            "methods darts-es and darts-ada, or another with early_stopping stop or go-back",
            lambda s: s.early_stopping != "none",
        ),
        Use(
            ("ada_factor", "ada_max_l2"),
            "method darts-ada, or another with early_stopping go-back",
            lambda s: s.early_stopping == "go-back",
        ),
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """Rules, and what they do."""
        return {"early_stopping": ("none", "stop", "go-back"), "es_rule": STOPPING_RULES}


ALPHA_GROUPS = (Alpha, Channels, BetaDecay, Temperature, EarlyStopping)
"""Of every method that learns alpha."""
