"""What can be chosen about training all architectures of a space, and is a given choice possible?"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from jaxdarts.errors import InputError
from jaxdarts.runs.checks import at_least, check_types, check_values
from jaxdarts.runs.evaluate.config import EVALUATE_PRESETS, EvaluateConfig, TrainingConfig, check_training_config


@dataclasses.dataclass(frozen=True)
class _Space:
    """What is trained: a class of its own so that these flags come first in --help."""

    space: str = "s5"
    """Search space whose architectures are all trained: a name or the path of a .toml file."""
    seeds: int = 1
    """Trainings of every architecture, with the seeds `seed`, `seed` + 1, ..."""
    most_architectures: int = 1000
    """A space with more of them is refused."""


@dataclasses.dataclass(frozen=True)
class TabulateConfig(TrainingConfig, _Space):
    """Everything that decides a table. `TabulateConfig()` is S5 with the preset `quick`.

    Every architecture is trained as `EvaluateConfig` with the same values trains a genotype.
    """

    command: ClassVar[str] = "tabulate"


def _preset(config: EvaluateConfig) -> TabulateConfig:
    fields = [field.name for field in dataclasses.fields(TrainingConfig)]
    return TabulateConfig(**{name: getattr(config, name) for name in fields})


TABULATE_PRESETS = {name: _preset(config) for name, config in EVALUATE_PRESETS.items()}

_CHECKS = at_least(1, "seeds", "most_architectures")


def check_tabulate_config(config: TabulateConfig) -> None:
    """Checks every field and the size of the space before anything is read, traced or written.

    Raises:
      InputError: naming the first field that cannot be used, its value and what is allowed.
    """
    check_types(config)
    check_values(config, _CHECKS)
    check_training_config(config)
    if config.seed + config.seeds > 2**32:
        raise InputError(f"seeds must be at most {2**32 - config.seed} with seed {config.seed}; got {config.seeds}")
    from jaxdarts.networks import OPERATIONS  # imports JAX, for which --help should not wait
    from jaxdarts.networks.macro import check_cells
    from jaxdarts.spaces import load_space

    space = load_space(config.space, OPERATIONS)
    check_cells(space.macro, config.cells)
    count = space.num_genotypes()
    if count > config.most_architectures:
        raise InputError(
            f"space {config.space!r} has {count:,} architectures, more than the {config.most_architectures:,} that "
            "most_architectures allows; choose a smaller space, or raise it"
        )
