"""Is a given choice about a search possible?"""

from __future__ import annotations

from collections.abc import Collection

from jaxdarts.errors import InputError
from jaxdarts.runs.checks import Check, at_least, check_choices, check_types, check_values, positive, unit
from jaxdarts.runs.search.config import (
    POPULATION_MAPPINGS,
    PRECISIONS,
    PRESETS,
    REMATS,
    RULED_METHODS,
    SPLITS,
    STEP_COMPILATIONS,
    SearchConfig,
    stopping_rule,
)
from jaxdarts.runs.search.regularisers import (
    BETA_SCHEDULES,
    TEMPERATURE_FORMS,
    TEMPERATURE_SCHEDULES,
    check_regularisers,
)

_CHECKS = [
    *at_least(
        1, "epochs", "batch_size", "channels", "cells", "unrolled_steps", "neumann_terms", "cg_max_steps", "devices"
    ),
    *at_least(1, "cutout_length", "curvature_batches", "curvature_products", "checkpoints_to_keep"),
    *at_least(0, "crop_padding", "curvature_every", "checkpoint_every_minutes", "cg_damping", "l2", "alpha_l2"),
    *at_least(0, "learning_rate_min", "alpha_init_scale", "es_first_epoch", "ada_max_l2", "spectrum_size"),
    *at_least(0, "select_every", "alpha_weight_decay", "beta_weight"),
    *at_least(1, "es_window", "es_lag", "selection_samples", "selection_batches", "selection_finalists"),
    *at_least(1, "population", "retrain_channels"),
    *at_least(0, "retrain_epochs"),
    *at_least(8, "image_size"),
    *at_least(2, "limit"),
    *positive("learning_rate", "alpha_learning_rate", "clip_norm", "finite_difference_radius"),
    *positive("es_threshold", "temperature_start", "temperature_end"),
    Check("es_window", lambda value: value % 2 == 1, "odd, since the average is centred"),
    Check("ada_factor", lambda value: value > 1, "greater than 1"),
    *unit("momentum", "alpha_b1", "alpha_b2", "drop_path"),
    Check("train_portion", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    *[Check(seed, lambda value: 0 <= value < 2**32, "between 0 and 4294967295") for seed in ("seed", "data_seed")],
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
    from jaxdarts.networks.macro import check_cells
    from jaxdarts.spaces import load_space

    macro = load_space(config.space).macro
    check_cells(macro, config.cells)
    if config.retrain_cells is not None:
        check_cells(macro, config.retrain_cells, "retrain_cells")
    _check_method(config)
    check_regularisers(config)
    from jaxdarts.runs.population.members import check_population

    check_population(config)


def _check_method(config: SearchConfig) -> None:
    """What only some methods need."""
    from jaxdarts.networks.macro import num_blocks
    from jaxdarts.spaces import load_space

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
    blocks = num_blocks(load_space(config.space).macro, config.cells)
    if is_number and int(config.remat) > blocks:
        cells = "cells" if blocks == config.cells else "the blocks of the network"
        raise InputError(f"remat must be at most {cells} ({blocks}); got {config.remat}")
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


def _choices() -> dict[str, Collection[str]]:
    # Imported here because these modules import JAX, for which --help should not wait.
    from jaxdarts.bilevel import BETA_DECAY_PENALTIES, HYPERGRADIENTS
    from jaxdarts.methods import METHODS, STOPPING_RULES

    return {
        "preset": PRESETS,
        "method": METHODS,
        "hypergradient": HYPERGRADIENTS,
        "es_rule": STOPPING_RULES,
        "beta_schedule": BETA_SCHEDULES,
        "beta_variant": BETA_DECAY_PENALTIES,
        "temperature_schedule": TEMPERATURE_SCHEDULES,
        "temperature_form": TEMPERATURE_FORMS,
        "split": SPLITS,
        "precision": PRECISIONS,
        "step_compilation": STEP_COMPILATIONS,
        "population_mapping": POPULATION_MAPPINGS,
    }
