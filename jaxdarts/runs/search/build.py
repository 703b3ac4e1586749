"""How do the settings of a search become a problem, a method, optimisers and a hypergradient?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax

from jaxdarts.bilevel import (
    HYPERGRADIENTS,
    HypergradientFn,
    add_beta_decay,
    add_temperature_decay,
    alpha_optimiser,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.methods import METHODS, SearchMethod, SearchProblem, candidate_mask
from jaxdarts.networks import Supernet
from jaxdarts.runs.devices import images_in_memory
from jaxdarts.runs.inputs import compute_dtype, working_dtype
from jaxdarts.runs.memory import cells_to_rematerialise
from jaxdarts.runs.search.config import REMATS, SearchConfig, stopping_rule
from jaxdarts.runs.search.regularisers import beta_weight, temperature
from jaxdarts.spaces import CellSpace


def build_problem(
    config: SearchConfig, space: CellSpace, num_classes: int, image_shape: tuple[int, int, int], together: int = 1
) -> SearchProblem:
    """The space and the supernet of a configuration."""

    def problem(remat: int) -> SearchProblem:
        supernet = Supernet(space, num_classes, config.channels, config.cells, remat)
        return SearchProblem(space, supernet, image_shape, working_dtype(config), compute_dtype=compute_dtype(config))

    if config.remat == "auto":
        images = images_in_memory(config.devices, together * config.batch_size)
        return problem(cells_to_rematerialise(problem(0), images))
    blocks = len(problem(0).supernet.blocks)
    return problem({"off": 0, "on": blocks}[config.remat] if config.remat in REMATS else int(config.remat))


def build_method(config: SearchConfig, problem: SearchProblem) -> SearchMethod:
    """The method that a configuration names, with its optimisers and hypergradient."""
    clip_norm = config.clip_norm if config.clip_virtual_step else None
    return METHODS[config.method](
        problem,
        hypergradient=build_hypergradient(config),
        weight_optimiser=weight_optimiser(config.learning_rate, config.momentum, config.l2, config.clip_norm),
        virtual_step=weight_optimiser(config.learning_rate, config.momentum, config.l2, clip_norm)
        if config.clip_virtual_step
        else virtual_step_optimiser(config.learning_rate, config.momentum, config.l2),
        alpha_optimiser=_alpha_optimiser(config, problem.space),
        alpha_init_scale=config.alpha_init_scale,
        uses_drop_path=config.drop_path > 0,
        **_method_settings(config),
    )


def build_hypergradient(config: SearchConfig) -> HypergradientFn:
    """The hypergradient that a configuration names, with its settings."""
    settings: dict[str, dict[str, Any]] = {
        "finite_difference": {"radius": config.finite_difference_radius},
        "unrolled": {"steps": config.unrolled_steps},
        "neumann": {"terms": config.neumann_terms},
        "conjugate_gradient": {"max_steps": config.cg_max_steps, "damping": config.cg_damping},
    }
    return HYPERGRADIENTS[config.hypergradient](**settings.get(config.hypergradient, {}))


def _alpha_optimiser(config: SearchConfig, space: CellSpace) -> optax.GradientTransformation:
    """Schedules set its values in every epoch (`start_epoch`)."""
    weight, divisor = beta_weight(config, 0), temperature(config, 0)
    penalties: list[optax.GradientTransformation] = []
    last: list[optax.GradientTransformation] = []
    if weight is not None and config.method != "beta-darts":  # which adds its own
        penalties = [add_beta_decay(weight, config.beta_variant, candidate_mask(space))]
    if divisor is not None and config.temperature_form == "update":
        last = [add_temperature_decay(divisor)]
    return alpha_optimiser(
        config.alpha_learning_rate,
        config.alpha_b1,
        config.alpha_b2,
        l2=config.alpha_l2,
        penalties=penalties,
        weight_decay=config.alpha_weight_decay or None,
        last=last,
    )


def _method_settings(config: SearchConfig) -> dict[str, Any]:
    """What a method takes beside what all of them take."""
    settings: dict[str, Callable[[], dict[str, Any]]] = {
        "darts-es": lambda: {"rule": stopping_rule(config)},
        "darts-ada": lambda: {
            "rule": stopping_rule(config),
            "factor": config.ada_factor,
            "max_l2": config.ada_max_l2,
        },
        "beta-darts": lambda: {"weight": beta_weight(config, 0), "variant": config.beta_variant},
        "random-ws": lambda: {
            "samples": config.selection_samples,
            "batches": config.selection_batches,
            "finalists": config.selection_finalists,
        },
    }
    return settings.get(config.method, dict)()
