"""What can be chosen about a search?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from jaxdarts.checks import at_least, field_names, unit
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.methods import METHODS
from jaxdarts.methods.settings import ALPHA_GROUPS
from jaxdarts.plans import text_settings
from jaxdarts.plans.common_settings import PAPER_DATA, POPULATION_MAPPINGS, Resumable, Sgd
from jaxdarts.plans.task_of import CLASSIFICATION, LANGUAGE, other_task, task_of
from jaxdarts.settings import Group, Settings, Use
from jaxdarts.tasks import TASKS
from jaxdarts.tasks.settings import SearchData

REMATS = ("auto", "on", "off")
STEP_COMPILATIONS = ("auto", "whole", "parts")


@dataclass(frozen=True)
class What(Group):
    """What is searched, and how."""

    space: str = "s1"
    """Search space: darts, s1 to s5, nasbench201, rnn, rnn-robust, or a .toml file."""
    method: str = "darts"
    """Search method: CHOICES."""
    preset: str = "quick"
    """Where the values not given come from: quick, for minutes on a laptop, or paper, the published settings."""

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The methods."""
        return {"method": METHODS}


@dataclass(frozen=True)
class Size(Group):
    """Size of the search."""

    epochs: int = 10
    """Passes over the half of the data that trains w; both schedules span them."""
    batch_size: int = 32
    """Examples in a batch, of either half."""
    channels: int = 8
    """Channels of the first cell; the stem has three times as many, of nasbench201 as many."""
    cells: int = 3
    """Cells in the network, at least 3: numbers cells // 3 and 2 * cells // 3 are reduction cells. Of nasbench201 in
    each of its three stages, at least 1."""
    remat: str = "auto"
    """First cells (of nasbench201 blocks) of which a backward pass keeps only the inputs and computes the inside again,
    which takes less memory and longer: a number, off (none), on (all), or auto (as few as keep a gradient within 8 GB
    on a CPU, and within three quarters of the memory anywhere)."""
    checks: ClassVar = at_least(1, "epochs", "batch_size", "channels", "cells")

    def check(self) -> None:
        """Refuses what is no number of cells."""
        if not self.remat.isdecimal() and self.remat not in REMATS:
            raise InputError(
                f"unknown remat {self.remat!r}; choose from {', '.join(sorted(REMATS))} or a number of cells"
            )


@dataclass(frozen=True)
class WeightOptimiser(Sgd):
    """Training of the network's weights."""

    learning_rate_min: float | None = 0.001
    """Where the cosine schedule of the learning rate ends; None: it stays what it is."""
    drop_path: float = 0.0
    """Largest drop-path probability; it rises linearly from 0 in the first epoch to this in the last."""
    checks: ClassVar = [*Sgd.checks, *unit("drop_path")]


@dataclass(frozen=True)
class Curvature(Group):
    """Curvature of the outer objective in alpha."""

    curvature_every: int = 1
    """Epochs between measurements of the Hessian in alpha; 0 turns them off."""
    curvature_batches: int = 1
    """Held batches that the Hessian is averaged over."""
    curvature_products: int = 10
    """Hessian-vector products (Lanczos steps) a measurement."""
    curvature_weight_decay_shift: bool = False
    """Add alpha_l2 to every eigenvalue, as the reference's Hessian does."""
    spectrum_size: int = 30
    """Eigenvalues of the alpha-Hessian, largest by magnitude, that are found when the search has ended; 0: none."""
    checks: ClassVar = [
        *at_least(1, "curvature_batches", "curvature_products"),
        *at_least(0, "curvature_every", "spectrum_size"),
    ]
    uses: ClassVar = [
        Use(("curvature_products",), "curvature_every of at least 1", lambda s: s.curvature_every != 0),
        Use(
            ("curvature_batches", "curvature_weight_decay_shift"),
            "curvature_every or spectrum_size of at least 1",
            lambda s: s.curvature_every != 0 or s.spectrum_size != 0,
        ),
    ]


@dataclass(frozen=True)
class Population(Group):
    """Several searches in one run, and the choice between them."""

    population: int | None = None
    """Searches side by side in one run, on the same data; their seeds are seed, seed + 1 and so on; None: 1, and of
    r-darts-l2 and r-darts-dp one a strength."""
    population_mapping: str = "auto"
    """vmap (a step of all members is computed together), map (one after another), or auto: map on a CPU, vmap
    elsewhere."""
    retrain_epochs: int = 5
    """Epochs that every genotype of a population is trained for from scratch, to choose the best; 0: the best is that
    of the supernet that is best on the validation part."""
    retrain_channels: int | None = None
    """Channels of the networks retrained; None: as in the search."""
    retrain_cells: int | None = None
    """Cells of the networks retrained; None: as in the search."""
    checks: ClassVar = [*at_least(1, "population", "retrain_channels", "retrain_cells"), *at_least(0, "retrain_epochs")]
    uses: ClassVar = [
        Use(
            ("population_mapping", "retrain_epochs", "retrain_channels", "retrain_cells"),
            "several searches in one run (population, r-darts-l2, r-darts-dp)",
            lambda s: s.population not in (None, 1) or METHODS[s.method].members is not None,
        )
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How members are computed."""
        return {"population_mapping": POPULATION_MAPPINGS}


@dataclass(frozen=True)
class BenchmarkTable(Group):
    """NAS-Bench-201."""

    benchmark: str | None = None
    """Table of NAS-Bench-201 (.npz or .csv) in which the genotype of every epoch is looked up; None: the one that the
    environment variable JAXDARTS_NASBENCH201 names, if it does and the space is nasbench201."""


@dataclass(frozen=True)
class Run(Resumable):
    """The run itself."""

    step_compilation: str = "auto"
    """whole (one program a step), parts (a gradient and a product program, each used several times: compiles in half
    the time), or auto: parts on a CPU, whole elsewhere."""

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How precisely, and in how many programs."""
        return {**super().choices(), "step_compilation": STEP_COMPILATIONS}


class _TaskGroups(NamedTuple):
    """What can be chosen about one task."""

    first: Sequence[type]
    alpha: Sequence[type]  # of methods that learn alpha
    last: Sequence[type]  # behind what every search has


_GROUPS = {
    CLASSIFICATION: _TaskGroups((SearchData, Size, WeightOptimiser), (), (Population, BenchmarkTable)),
    LANGUAGE: _TaskGroups(
        (
            text_settings.SearchText,
            text_settings.TextSize,
            text_settings.TextOptimiser,
            text_settings.TextRegularisation,
        ),
        (text_settings.TextAlpha,),
        (text_settings.TextPopulation,),
    ),
}


class SearchConfig(Settings):
    """Everything that decides a search's result. `SearchConfig()` is the preset `quick`.

    `quick` differs from `paper` in size only, and in alpha's learning rate: ten times the published one, so that alpha
    moves as far in 250 steps as it would in 2500. The values of `paper` are those of Liu et al. 2019 as the RobustDARTS
    code runs them (Zela et al. 2020). A method may have settings of its own, and other values of some.
    """

    command = "search"
    presets = {
        "quick": {},
        "paper": {
            **PAPER_DATA,
            "epochs": 50,
            "batch_size": 64,
            "channels": 16,
            "cells": 8,
            "alpha_learning_rate": 3e-4,
            "curvature_products": 20,
            "es_rule": "paper",
            "retrain_epochs": 100,
        },
    }

    @classmethod
    def group_types(cls, values: Mapping[str, Any]) -> Sequence[type]:
        """Common ones, those of learning alpha if the method does, and the method's own."""
        method = values.get("method", "darts")
        if method not in METHODS:
            raise unknown_choice("method", method, METHODS)
        entry = METHODS[method]
        own = _GROUPS[cls.task_of(values)]
        learning = (*ALPHA_GROUPS, *own.alpha) if entry.learns_alpha else ()
        return (What, *own.first, *learning, *entry.settings, Curvature, *own.last, Run)

    @classmethod
    def task_of(cls, values: Mapping[str, Any]) -> str:
        """The name of the task of the space that is searched."""
        return task_of({"space": What.space, **values}, text_settings.OWN)

    @classmethod
    def every(cls) -> Sequence[Mapping[str, Any]]:
        """Of either task, with every method."""
        return [{"space": space, "method": method} for space in (What.space, "rnn") for method in METHODS]

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's values, and what the task and the method change of them."""
        found, task = super().defaults(values), cls.task_of(values)
        if task == LANGUAGE:
            paper = text_settings.SEARCH_PAPER if found["preset"] == "paper" else {}
            found = {"preset": found["preset"], **text_settings.ALPHA, **paper, **text_settings.folder_given(values)}
        changes, space = METHODS[values.get("method", "darts")].defaults, values.get("space", What.space)
        # Sizes and rates that a method was published with are those of the other task.
        fixed = {name for group in _GROUPS[task].first for name in field_names(group)} if task == LANGUAGE else ()
        for name in ("", found["preset"], f"{found['preset']}/{space}"):
            found |= {field: value for field, value in changes.get(name, {}).items() if field not in fixed}
        return found

    @classmethod
    def unknown(cls, name: str, values: Mapping[str, Any]) -> InputError:
        """Names the methods that have the setting, if any."""
        method = values.get("method", "darts")
        owners = [other for other in METHODS if name in cls.names({**values, "method": other})]
        if not owners:
            space, task = values.get("space", What.space), cls.task_of(values)
            if any(name in cls.names(other) for other in cls.every() if cls.task_of(other) != task):
                return other_task(name, values[name], task, f"space {space!r}")
            return super().unknown(name, values)
        if any(name in field_names(group) for group in ALPHA_GROUPS):
            example = "beta-darts or darts" if name.startswith("beta") else "darts"
            return InputError(
                f"{name} {values[name]!r} cannot be used by method {method!r}, which learns no alpha; choose another "
                f"method, such as {example}"
            )
        return InputError(f"{name} {values[name]!r} is only for method {' and '.join(owners)}; got method {method!r}")

    @classmethod
    def unused(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """What is used by some of several searches is used; what a method's own setting stands for is not."""
        method = values.get("method", "darts")
        entry, found = METHODS[method], super().unused({**values, **METHODS[method].some})
        sizes = [group for group in cls.group_types(values) if group in (Size, text_settings.TextSize)]
        defaults = {**{n: getattr(group, n) for group in sizes for n in field_names(group)}, **cls.defaults(values)}
        for name, own in entry.instead.items():
            if name in values and values[name] != defaults[name] and str(values.get(own)) != str(values[name]):
                found[name] = f"other methods; {method} has {own}"
        return found

    def check_together(self) -> None:
        """What a method needs of settings of other groups."""
        task = self.task_of(self.flat())
        if task not in METHODS[self.method].tasks:
            able = [name for name, entry in METHODS.items() if task in entry.tasks]
            raise InputError(
                f"method {self.method!r} cannot search space {self.space!r}, which is for {TASKS[task].subject}; "
                f"choose from {', '.join(able)}"
            )
        if task == LANGUAGE:
            for name, idle in (("partial_channels", 1), ("single_level", False)):
                if getattr(self, name, idle) != idle:
                    raise other_task(name, getattr(self, name), task, f"space {self.space!r}")
        elif hasattr(self, "partial_channels") and self.channels % self.partial_channels:
            raise InputError(f"partial_channels must divide channels, {self.channels}; got {self.partial_channels}")
        if getattr(self, "single_level", False) and not METHODS[self.method].takes_single_level:
            raise InputError(f"single_level cannot be used by method {self.method!r}, whose two steps differ")
        early = getattr(self, "early_stopping", "none")
        if early == "go-back":
            if self.l2 == 0:
                raise InputError(f"l2 must be greater than 0 for {self.method}, which multiplies it; got 0")
            if self.ada_max_l2 < self.l2:
                raise InputError(
                    f"ada_max_l2 must be at least l2 ({self.l2}), where {self.method} starts; got {self.ada_max_l2}"
                )
        if early != "none":
            from jaxdarts.methods.parts import stopping_rule

            if self.curvature_every == 0:
                raise InputError(f"curvature_every must be at least 1 for {self.method}, which looks at the curvature")
            rule = stopping_rule(self)
            if rule.first_decision > self.epochs - 2:  # in the last epoch there is nothing left to stop
                raise InputError(
                    f"es_window {rule.window}, es_lag {rule.lag} and es_first_epoch {rule.first_epoch} (es_rule "
                    f"{self.es_rule!r}, curvature_every {self.curvature_every}) give a first decision after "
                    f"{rule.first_decision + 1} epochs, too late for epochs {self.epochs}; choose smaller ones or "
                    f"epochs of at least {rule.first_decision + 2}"
                )

    def check(self, space: Any = None) -> None:
        """What can only be checked with the space at hand, and for populations.

        `space` stands in the place of the one that the settings name, as a continued run has recorded it.
        """
        from jaxdarts.networks.macro import check_cells, num_blocks
        from jaxdarts.plans.members import check_members
        from jaxdarts.spaces import load_space

        space = space or load_space(self.space)
        METHODS[self.method].check_space(self, space)
        if getattr(space, "task", CLASSIFICATION) == LANGUAGE:
            check_members(self)
            return
        macro = space.macro
        check_cells(macro, self.cells)
        if self.retrain_cells is not None:
            check_cells(macro, self.retrain_cells, "retrain_cells")
        blocks = num_blocks(macro, self.cells)
        if self.remat.isdecimal() and int(self.remat) > blocks:
            cells = "cells" if blocks == self.cells else "the blocks of the network"
            raise InputError(f"remat must be at most {cells} ({blocks}); got {self.remat}")
        check_members(self)
