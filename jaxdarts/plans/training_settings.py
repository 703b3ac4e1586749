"""What can be chosen about a training from scratch, and about a table of them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxdarts.checks import Check, at_least, unit
from jaxdarts.errors import InputError
from jaxdarts.plans import text_settings
from jaxdarts.plans.common_settings import PAPER_DATA, Resumable, Seeded, Sgd
from jaxdarts.plans.task_of import CLASSIFICATION, LANGUAGE, other_task, task_of
from jaxdarts.settings import Group, Settings
from jaxdarts.tasks.settings import TrainingData


@dataclass(frozen=True)
class Subject(Group):
    """What is trained."""

    genotype: str = ""
    """What is trained: a published genotype's name such as DARTS_V2, a file (genotype.json, or the PyTorch codes'
    Genotype(...) text), that text itself, or the folder of a search."""
    space: str | None = None
    """Search space (a name or the path of a .toml file) that the genotype must belong to; None: any."""
    preset: str = "quick"
    """Where the values not given come from: quick, for minutes on a laptop, or paper, the published settings."""
    checks: ClassVar = [Check("genotype", bool, "a name such as DARTS_V2, a file or the folder of a search")]


@dataclass(frozen=True)
class TrainingSize(Group):
    """Size of the training."""

    epochs: int = 15
    """Passes over the training data; both schedules span them."""
    batch_size: int = 32
    """Examples in a batch."""
    channels: int = 8
    """Channels of the first cell; the stem has three times as many, of nasbench201 as many."""
    cells: int = 5
    """Cells in the network, at least 3: numbers cells // 3 and 2 * cells // 3 are reduction cells. Of nasbench201 in
    each of its three stages, at least 1."""
    checks: ClassVar = at_least(1, "epochs", "batch_size", "channels", "cells")


@dataclass(frozen=True)
class TrainingOptimiser(Sgd):
    """Training of the network's weights."""

    drop_path: float = 0.2
    """Largest drop-path probability: epoch e of E, counted from 0, has e / E of it. Identities are never dropped."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; 0 leaves the head out. Networks of nasbench201 have none."""
    checks: ClassVar = [*Sgd.checks, *at_least(0, "auxiliary_weight"), *unit("drop_path")]


@dataclass(frozen=True)
class TrainingRun(Resumable):
    """The run itself."""

    test_every: int = 1
    """Epochs between tests; the last epoch and those that are the best so far on held-out data are always tested."""
    checks: ClassVar = [*Resumable.checks, *at_least(1, "test_every")]


@dataclass(frozen=True)
class Tabulated(Group):
    """What is trained."""

    space: str = "s5"
    """Search space whose architectures are all trained: a name or the path of a .toml file."""
    seeds: int = 1
    """Trainings of every architecture, with the seeds `seed`, `seed` + 1, ..."""
    most_architectures: int = 1000
    """A space with more of them is refused."""
    preset: str = "quick"
    """Where the values not given come from: quick, for minutes on a laptop, or paper, the published settings."""

    checks: ClassVar = at_least(1, "seeds", "most_architectures")


_GROUPS: Mapping[str, Sequence[type]] = {
    CLASSIFICATION: (TrainingData, TrainingSize, TrainingOptimiser),
    LANGUAGE: (
        text_settings.Text,
        text_settings.TextTrainingSize,
        text_settings.TrainingTextOptimiser,
        text_settings.TextRegularisation,
        text_settings.Averaging,
    ),
}
"""What can be chosen about either task."""


def _defaults(found: dict[str, Any], task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's values, of text its own."""
    if task == CLASSIFICATION:
        return found
    paper = text_settings.TRAINING_PAPER if found["preset"] == "paper" else {}
    return {"preset": found["preset"], **paper, **text_settings.folder_given(values)}


class EvaluateConfig(Settings):
    """Everything that decides an evaluation's result. `EvaluateConfig(genotype=...)` is the preset `quick`.

    The values of `paper` are those of Liu et al. 2019 for CIFAR-10, with which Zela et al. 2020 evaluate too, whatever
    the search's own L2 and drop path were (their appendix C); for their sizes see configs/evaluate.
    """

    command = "evaluate"
    presets = {
        "quick": {},
        "paper": {
            **PAPER_DATA,
            "epochs": 600,
            "batch_size": 96,
            "channels": 36,
            "cells": 20,
            "cutout_length": 16,
        },
    }

    @classmethod
    def group_types(cls, values: Mapping[str, Any]) -> Sequence[type]:
        """By the task of what is trained."""
        return (Subject, *_GROUPS[cls.task_of(values)], TrainingRun)

    @classmethod
    def task_of(cls, values: Mapping[str, Any]) -> str:
        """The name of the task of what is trained."""
        return task_of(values, text_settings.OWN)

    @classmethod
    def every(cls) -> Sequence[Mapping[str, Any]]:
        """Of either task."""
        return [{"genotype": "DARTS_V2"}, {"genotype": "ENAS"}]

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's values, by the task."""
        return _defaults(super().defaults(values), cls.task_of(values), values)

    @classmethod
    def unknown(cls, name: str, values: Mapping[str, Any]) -> InputError:
        """Says whether the setting is another task's."""
        task = cls.task_of(values)
        if any(name in cls.names(other) for other in cls.every() if cls.task_of(other) != task):
            return other_task(name, values[name], task, f"genotype {values.get('genotype', '')!r}")
        return super().unknown(name, values)


class TabulateConfig(Settings):
    """Everything that decides a table. `TabulateConfig()` is S5 with the preset `quick`.

    Every architecture is trained as `EvaluateConfig` with the same values trains a genotype.
    """

    command = "tabulate"
    presets = EvaluateConfig.presets

    @classmethod
    def group_types(cls, values: Mapping[str, Any]) -> Sequence[type]:
        """By the task of the space."""
        return (Tabulated, *_GROUPS[cls.task_of(values)], Seeded)

    @classmethod
    def task_of(cls, values: Mapping[str, Any]) -> str:
        """The name of the space's task."""
        return task_of({"space": Tabulated.space, **values}, text_settings.OWN)

    @classmethod
    def every(cls) -> Sequence[Mapping[str, Any]]:
        """Of either task."""
        return [{"space": Tabulated.space}, {"space": "rnn"}]

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's values, by the task."""
        return _defaults(super().defaults(values), cls.task_of(values), values)

    @classmethod
    def unknown(cls, name: str, values: Mapping[str, Any]) -> InputError:
        """Says whether the setting is another task's."""
        task = cls.task_of(values)
        if any(name in cls.names(other) for other in cls.every() if cls.task_of(other) != task):
            return other_task(name, values[name], task, f"space {values.get('space', Tabulated.space)!r}")
        return super().unknown(name, values)

    def check_together(self) -> None:
        """Refuses seeds beyond the largest."""
        if self.seed + self.seeds > 2**32:
            raise InputError(f"seeds must be at most {2**32 - self.seed} with seed {self.seed}; got {self.seeds}")

    def check(self) -> None:
        """What can only be checked with the space at hand."""
        from jaxdarts.networks import OPERATIONS
        from jaxdarts.networks.macro import check_cells
        from jaxdarts.spaces import load_space

        space = load_space(self.space, OPERATIONS)
        if self.task_of(self.flat()) == CLASSIFICATION:
            check_cells(space.macro, self.cells)
        count = space.num_genotypes()
        if count > self.most_architectures:
            raise InputError(
                f"space {self.space!r} has {count:,} architectures, more than the {self.most_architectures:,} that "
                "most_architectures allows; choose a smaller space, or raise it"
            )
