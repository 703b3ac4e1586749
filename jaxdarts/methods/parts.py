"""How do settings become the parts that methods are put together from?

Every part goes with every other: `gradient_method` is `darts` with all that the settings ask for, and a method that
differs from DARTS in one place says only that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from jaxdarts.bilevel import (
    HYPERGRADIENTS,
    HypergradientFn,
    add_temperature_decay,
    alpha_optimiser,
    clip_by_global_norm,
    published_difference,
    resting,
    weight_optimiser,
)
from jaxdarts.methods import schedules
from jaxdarts.methods.adaptive import going_back
from jaxdarts.methods.base import Ingredients, Method, MethodEntry, Schedule
from jaxdarts.methods.beta import beta_decay_of_operations
from jaxdarts.methods.darts import darts
from jaxdarts.methods.early_stopping import STOPPING_RULES, StoppingRule, make_rule, stopping
from jaxdarts.methods.relaxations import Relaxation, with_edges
from jaxdarts.methods.single_level import single_level
from jaxdarts.spaces import CellSpace

EARLY_STOPPING: dict[str, Callable[[Method, Any], Method]] = {
    "none": lambda method, settings: method,
    "stop": lambda method, settings: stopping(method, stopping_rule(settings)),
    "go-back": lambda method, settings: going_back(
        method, stopping_rule(settings), settings.ada_factor, settings.ada_max_l2
    ),
}
"""What happens when the curvature has grown too far, by the setting's name."""


DROPOUTS = ("dropout_output", "dropout_hidden", "dropout_x", "dropout_input", "dropout_embedding")
"""Settings of text networks."""


def gradient_method(ingredients: Ingredients, relaxation: Relaxation | None = None, **options: Any) -> Method:
    """`darts` with the optimisers, hypergradient, penalties, schedules and early stopping that the settings name.

    Args:
      ingredients: the problem and the settings.
      relaxation: in the place of the problem's own.
      options: of `darts`, in the place of those that the settings give; `values`, `schedules` and `penalties` (of
        alpha) are added to them. Where alpha and the weights have one gradient, those of `single_level` alone count:
        a method that needs others says so in its entry.
    """
    settings, problem = ingredients.settings, ingredients.problem
    space, relaxation = problem.space, relaxation or problem.relaxation
    assert space is not None
    if settings.edge_normalisation:
        relaxation = with_edges(space, relaxation, settings.alpha_init_scale)
    problem = dataclasses.replace(problem, relaxation=ingredients.around(relaxation))
    names = (*weight_values(settings), *_alpha_values(settings), *options.pop("values", ()))
    every = {**weight_schedules(settings), **alpha_schedules(settings), **options.pop("schedules", {})}
    penalties = options.pop("penalties", ())
    given: dict[str, Any] = {
        "weight_optimiser": weights(settings),
        "alpha_optimiser": architecture(settings, space, penalties),
        "values": names,
        "schedules": every,
    }
    if settings.single_level:
        own = {name: value for name, value in options.items() if name in given}
        method = single_level(problem, **{**given, **own})
    else:
        ahead = {"hypergradient": hypergradient(settings), "virtual_step": virtual_step(settings)}
        method = darts(problem, **{**given, **ahead, **options})
    return EARLY_STOPPING[settings.early_stopping](method, settings)


def network_options(entry: MethodEntry, settings: Any) -> dict[str, Any]:
    """What the supernet has beside what all have: by the method, and by the settings."""
    parts = getattr(settings, "partial_channels", 1)
    return {**entry.network(settings), **({"partial_channels": parts} if parts > 1 else {})}


def weights(settings: Any) -> optax.GradientTransformationExtraArgs:
    """The optimiser of w."""
    return _weights(settings, settings.clip_norm)


def virtual_step(settings: Any) -> optax.GradientTransformationExtraArgs:
    """The inner step that a hypergradient imagines."""
    return _weights(settings, settings.clip_norm if settings.clip_virtual_step else None)


def _weights(settings: Any, clip_norm: float | None) -> optax.GradientTransformationExtraArgs:
    return weight_optimiser(
        settings.learning_rate, settings.momentum, settings.l2, clip_norm, nesterov=settings.nesterov
    )


def hypergradient(settings: Any) -> HypergradientFn:
    """The hypergradient with its settings."""
    if getattr(settings, "published_difference", False):
        return published_difference(settings.finite_difference_radius, settings.clip_norm)
    own: dict[str, dict[str, Any]] = {
        "finite_difference": {"radius": settings.finite_difference_radius},
        "unrolled": {"steps": settings.unrolled_steps},
        "neumann": {"terms": settings.neumann_terms},
        "conjugate_gradient": {"max_steps": settings.cg_max_steps, "damping": settings.cg_damping},
    }
    return HYPERGRADIENTS[settings.hypergradient](**own.get(settings.hypergradient, {}))


def architecture(
    settings: Any, space: CellSpace, own: Sequence[optax.GradientTransformation] = ()
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of alpha; its schedules are `alpha_schedules`. `own`: penalties of a method."""
    scheduled = alpha_schedules(settings)
    clipped = settings.alpha_clip_norm is not None
    penalties = [*([clip_by_global_norm(settings.alpha_clip_norm)] if clipped else []), *own]
    last: list[optax.GradientTransformation] = []
    if "alpha/beta_weight" in scheduled:
        penalties += [beta_decay_of_operations(space, scheduled["alpha/beta_weight"](0), settings.beta_variant)]
    if "alpha/temperature" in scheduled:
        last = [add_temperature_decay(scheduled["alpha/temperature"](0))]
    optimiser = alpha_optimiser(
        settings.alpha_learning_rate,
        settings.alpha_b1,
        settings.alpha_b2,
        l2=settings.alpha_l2,
        penalties=penalties,
        weight_decay=settings.alpha_weight_decay or None,
        last=last,
    )
    return resting(optimiser) if "alpha/moves" in scheduled else optimiser


def weight_values(settings: Any) -> tuple[str, ...]:
    """The scheduled values that a step on the weights reads."""
    names = ("drop_path",) if getattr(settings, "drop_path", 0.0) > 0 else ()
    return (*names, "dropout") if any(getattr(settings, name, 0.0) > 0 for name in DROPOUTS) else names


def weight_schedules(settings: Any) -> dict[str, Schedule]:
    """The learning rate's cosine, and drop path's ramp to its greatest in the last epoch, as the reference has them.

    Of text the value "dropout", by which all probabilities of dropout are multiplied, is 1 in every epoch.
    """
    found = {"weights/learning_rate": learning_rate(settings)}
    if hasattr(settings, "drop_path"):
        found["drop_path"] = schedules.ramp(settings.drop_path, max(settings.epochs - 1, 1))
    return found | dropout_schedule(settings)


def dropout_schedule(settings: Any) -> dict[str, Schedule]:
    """Of text, what all probabilities of dropout are multiplied by: 1 in every epoch."""
    return {"dropout": lambda epoch: 1.0} if hasattr(settings, DROPOUTS[0]) else {}


def learning_rate(settings: Any) -> Schedule:
    """Of w: a cosine from its greatest to its least; the same all the time where there is no least."""
    least = settings.learning_rate if settings.learning_rate_min is None else settings.learning_rate_min
    return schedules.cosine(settings.learning_rate, least, settings.epochs)


def alpha_schedules(settings: Any) -> dict[str, Schedule]:
    """Beta-Decay's weight, the temperature and the warm-up, where there are any."""
    found: dict[str, Schedule] = {}
    greatest, shape = greatest_beta_weight(settings), schedules.BETA_SCHEDULES[settings.beta_schedule]
    if greatest is not None:
        epochs = settings.epochs
        found["alpha/beta_weight"] = lambda epoch: greatest * (shape.start + (shape.end - shape.start) * epoch / epochs)
    temperature = temperature_schedule(settings)
    if temperature is not None:
        found["temperature" if settings.temperature_form == "softmax" else "alpha/temperature"] = temperature
    if settings.alpha_warm_up:
        first = warm_up_epochs(settings)  # epoch in which alpha moves
        found["alpha/moves"] = lambda epoch: float(epoch >= first)
    return found


def warm_up_epochs(settings: Any) -> int:
    """Epochs at the start in which alpha rests."""
    return round(settings.alpha_warm_up * settings.epochs)


def greatest_beta_weight(settings: Any) -> float | None:
    """Beta-Decay's greatest weight; None: there is no Beta-Decay."""
    named = schedules.BETA_SCHEDULES[settings.beta_schedule].weight
    return settings.beta_weight if named is None else named


def temperature_schedule(settings: Any) -> Schedule | None:
    """The temperature, that of the end in the last epoch; None: it is 1 all the time."""
    start = settings.temperature_start
    end = start if settings.temperature_end is None else settings.temperature_end
    if start == end == 1:
        return None
    between, last = schedules.TEMPERATURE_SCHEDULES[settings.temperature_schedule], max(settings.epochs - 1, 1)
    return lambda epoch: between(start, end, epoch / last)


def _alpha_values(settings: Any) -> tuple[str, ...]:
    return tuple(name for name in alpha_schedules(settings) if "/" not in name)


def describe_parts(settings: Any) -> Mapping[str, str]:
    """What is on of the parts that every method takes, for people; of a method that learns no alpha nothing."""
    found: dict[str, str] = {}
    if not hasattr(settings, "beta_schedule"):
        return found
    if settings.partial_channels > 1:
        found["Partial channels"] = f"1/{settings.partial_channels} of them go through operations"
    if settings.edge_normalisation:
        found["Weights of edges"] = "softmax over the edges to a node"
    if settings.alpha_warm_up:
        found["Warm-up"] = f"alpha rests for {warm_up_epochs(settings)} of {settings.epochs} epochs"
    if settings.single_level:
        found["Levels"] = "one, alpha and w have the same gradient"
    greatest, temperature = greatest_beta_weight(settings), temperature_schedule(settings)
    if greatest is not None:
        found["Beta-Decay"] = f"{settings.beta_variant}, {settings.beta_schedule}, weight up to {greatest:g}"
    if temperature is not None:
        first, last = temperature(0), temperature(settings.epochs - 1)
        found["Temperature"] = f"{settings.temperature_schedule}, {first:g} to {last:g}, of {settings.temperature_form}"
    return found


def stopping_rule(settings: Any) -> StoppingRule:
    """The early-stopping rule that the settings ask for; without one, the smoothing of the paper."""
    if getattr(settings, "early_stopping", "none") == "none":
        return STOPPING_RULES["paper"]
    return make_rule(
        settings.es_rule,
        settings.curvature_every,
        window=settings.es_window,
        lag=settings.es_lag,
        threshold=settings.es_threshold,
        first_epoch=settings.es_first_epoch,
    )
