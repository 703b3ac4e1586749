"""Which settings that were given have no effect on a search?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxdarts.runs.search.config import PRESETS, RULED_METHODS, SearchConfig
from jaxdarts.runs.search.regularisers import ALPHALESS_METHODS


class _Use(NamedTuple):
    """What some settings are for."""

    fields: tuple[str, ...]
    by: str  # who uses them
    is_used: Callable[[SearchConfig], bool]


def _of_methods(*methods: str) -> Callable[[SearchConfig], bool]:
    return lambda config: config.method in methods


def _of_hypergradients(*names: str) -> Callable[[SearchConfig], bool]:
    return lambda config: _learns_alpha(config) and config.hypergradient in names


def _learns_alpha(config: SearchConfig) -> bool:
    return config.method not in ALPHALESS_METHODS


def _is_population(config: SearchConfig) -> bool:
    from jaxdarts.runs.population.members import member_configs  # which reads configurations itself

    return len(member_configs(config)) > 1


_USES = (
    _Use(
        ("hypergradient", "alpha_learning_rate", "alpha_b1", "alpha_b2", "alpha_l2", "alpha_init_scale"),
        "methods that learn alpha",
        _learns_alpha,
    ),
    _Use(("unrolled_steps",), "hypergradient unrolled", _of_hypergradients("unrolled")),
    _Use(("finite_difference_radius",), "hypergradient finite_difference", _of_hypergradients("finite_difference")),
    _Use(("neumann_terms",), "hypergradient neumann", _of_hypergradients("neumann")),
    _Use(("cg_max_steps", "cg_damping"), "hypergradient conjugate_gradient", _of_hypergradients("conjugate_gradient")),
    _Use(
        ("clip_virtual_step",),
        "hypergradients unrolled and finite_difference",
        _of_hypergradients("unrolled", "finite_difference"),
    ),
    _Use(("cutout_length",), "cutout", lambda config: config.cutout or config.method == "r-darts-dp"),
    _Use(
        ("curvature_batches", "curvature_products", "curvature_weight_decay_shift"),
        "measurements of the curvature",
        lambda config: config.curvature_every > 0,
    ),
    _Use(
        ("es_rule", "es_window", "es_lag", "es_threshold", "es_first_epoch"),
        " and ".join(RULED_METHODS),
        _of_methods(*RULED_METHODS),
    ),
    _Use(("ada_factor", "ada_max_l2"), "darts-ada", _of_methods("darts-ada")),
    _Use(
        ("selection_samples", "selection_batches", "selection_finalists", "select_every"),
        "random-ws",
        _of_methods("random-ws"),
    ),
    _Use(
        ("population_mapping", "retrain_epochs", "retrain_channels", "retrain_cells"), "populations", _is_population
    ),
)  # fmt: skip


def unused_settings(config: SearchConfig) -> dict[str, str]:
    """Settings that differ from the preset's and that nothing in this search reads, with who would use them.

    They are told and not refused: a sweep may give all its methods the settings of each.
    """
    preset = PRESETS[config.preset]
    return {
        field: use.by
        for use in _USES
        for field in use.fields
        if getattr(config, field) != getattr(preset, field) and not use.is_used(config)
    }
