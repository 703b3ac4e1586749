"""What can be chosen about anything that trains weights, whatever is made of it?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxdarts.checks import Check, at_least, positive, unit
from jaxdarts.errors import InputError
from jaxdarts.settings import Group

POPULATION_MAPPINGS = ("auto", "vmap", "map")
PRECISIONS = ("float32", "float64", "bfloat16")
PAPER_DATA: Mapping[str, Any] = {"dataset": "cifar10", "image_size": None, "limit": None, "crop_padding": 4}


@dataclass(frozen=True)
class Sgd(Group):
    """Training of the network's weights."""

    learning_rate: float = 0.025
    """Learning rate of the weights in the first epoch."""
    learning_rate_min: float | None = 0.0
    """Where the cosine schedule of the learning rate ends; None: it stays what it is."""
    momentum: float = 0.9
    """Momentum of the weights' SGD."""
    nesterov: bool = False
    """Nesterov's momentum instead of the heavy ball's."""
    l2: float = 3e-4
    """L2 factor of the weights, added to the gradient before the momentum."""
    clip_norm: float = 5.0
    """Largest global norm of the weights' gradient."""
    checks: ClassVar = [
        *positive("learning_rate", "clip_norm"),
        *at_least(0, "learning_rate_min", "l2"),
        *unit("momentum"),
    ]

    def check(self) -> None:
        """Refuses a schedule that rises."""
        if self.learning_rate_min is not None and self.learning_rate_min > self.learning_rate:
            raise InputError(
                f"learning_rate_min must be at most learning_rate ({self.learning_rate}); got {self.learning_rate_min}"
            )


@dataclass(frozen=True)
class Seeded(Group):
    """The run itself."""

    seed: int = 0
    """Everything random follows from it."""
    precision: str = "float32"
    """float32, float64, or bfloat16: what goes through the network in a step is bfloat16, and all that is kept, such
    as weights, alpha, statistics and optimisers, is float32."""
    checks: ClassVar = [Check("seed", lambda value: 0 <= value < 2**32, "between 0 and 4294967295")]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How precisely."""
        return {"precision": PRECISIONS}


@dataclass(frozen=True)
class Resumable(Seeded):
    """The run itself."""

    devices: int = 1
    """Devices that every batch is split over: the first ones, of each process where there are several. The result is
    that of one device, up to rounding."""
    checkpoint_every_minutes: float = 5.0
    """Minutes between checkpoints inside an epoch; the end of an epoch is always saved."""
    checkpoints_to_keep: int = 3
    """Newest checkpoints that are kept, beside those that a method may go back to."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard (extra `tensorboard`)."""
    checks: ClassVar = [
        *Seeded.checks,
        *at_least(1, "devices", "checkpoints_to_keep"),
        *at_least(0, "checkpoint_every_minutes"),
    ]
