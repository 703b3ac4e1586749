"""What is added to the gradients of w and of alpha before their optimisers step, and in which order.

The chains follow the PyTorch optimisers of the DARTS and RobustDARTS codes term by term, so that a run can be compared
number by number. Learning rate, L2 and penalty weights are traced values in the state: `set_hyperparameters` changes
them without recompiling, and runs that differ in them can be vmapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.bilevel.hyperparameters import check_between, check_not_negative
from jaxdarts.bilevel.problem import Alpha, Params
from jaxdarts.errors import InputError


class Elementwise(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax has no types
    """An optimiser that treats all entries of all parameters alike: joined to one array they get the same update.

    Beside the entry itself an update may depend on sums over all of them, such as a norm.
    """


def weight_optimiser(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    l2: optax.ScalarOrSchedule = 3e-4,
    clip_norm: float | None = 5.0,
    *,
    nesterov: bool = False,
) -> Elementwise:
    """SGD with momentum as the reference trains the weights: clip, then L2, then momentum, then the learning rate.

    `g = clip(gradient) + l2 * w; buffer = momentum * buffer + g; w = w - learning_rate * buffer`, or with Nesterov's
    momentum as PyTorch has it `w = w - learning_rate * (g + momentum * buffer)`.

    Args:
      learning_rate, l2: not negative; numbers become traced values in the state. A schedule counts updates.
      momentum: from 0 up to but without 1.
      clip_norm: largest global norm of the gradient, positive; None does not clip.
      nesterov: as networks of NAS-Bench-201 were trained; DARTS' searches and evaluations are not.

    Raises:
      InputError: an argument is out of range.
    """
    check_not_negative("learning_rate", learning_rate)
    check_not_negative("l2", l2)
    check_between("momentum", momentum, 0, 1, "be at least 0 and less than 1", with_low=True)
    clip = optax.identity() if clip_norm is None else clip_by_global_norm(clip_norm)

    def chain(learning_rate: jax.Array, l2: jax.Array) -> optax.GradientTransformation:
        return optax.chain(
            clip,
            optax.add_decayed_weights(l2),
            optax.trace(momentum, nesterov),
            optax.scale_by_learning_rate(learning_rate),
        )

    return Elementwise(*optax.inject_hyperparams(chain)(learning_rate=as_float(learning_rate), l2=as_float(l2)))


def virtual_step_optimiser(
    learning_rate: optax.ScalarOrSchedule, momentum: float = 0.9, l2: optax.ScalarOrSchedule = 3e-4
) -> Elementwise:
    """`weight_optimiser` without clipping, for `InnerStep.update`: the reference does not clip its virtual step.

    Its state has the same structure, so `InnerStep(virtual_step_optimiser(...), state)` takes the state of
    `weight_optimiser`; learning rate and L2 are then read from there.
    """
    # Differs from RobustDARTS, whose virtual step keeps the L2 it was built with after the optimiser's is raised.
    return weight_optimiser(learning_rate, momentum, l2, clip_norm=None)


def alpha_optimiser(
    learning_rate: optax.ScalarOrSchedule = 3e-4,
    b1: float = 0.5,
    b2: float = 0.999,
    eps: float = 1e-8,
    l2: optax.ScalarOrSchedule = 1e-3,
    penalties: Sequence[optax.GradientTransformation] = (),
    weight_decay: optax.ScalarOrSchedule | None = None,
    last: Sequence[optax.GradientTransformation] = (),
) -> optax.GradientTransformationExtraArgs:
    """Adam as the reference trains alpha: penalties, then coupled L2, then Adam with PyTorch's bias correction.

    Penalties and L2 are terms of the outer objective: among each other their order does not matter, but Adam divides
    their sum by its own size. After Adam a term would keep its size, which is what decoupled weight decay is for.

    Args:
      learning_rate, l2: not negative; numbers become traced values in the state. A schedule counts updates.
      b1, b2: decay rates of the two moments, from 0 up to but without 1.
      eps: added to the root of the second moment after bias correction, not negative.
      penalties: transformations such as `add_beta_decay(...)`, applied to the gradient first, in order.
      weight_decay: decoupled, as in AdamW (Loshchilov and Hutter 2019): alpha also shrinks by the factor
        `1 - learning_rate * weight_decay`. Not negative; None leaves it out of the program.
      last: transformations of the finished update, such as `add_temperature_decay(...)`, in order.

    Raises:
      InputError: an argument is out of range.
    """
    check_not_negative("learning_rate", learning_rate)
    check_not_negative("l2", l2)
    check_not_negative("eps", eps)
    check_not_negative("weight_decay", 0 if weight_decay is None else weight_decay)
    for name, value in (("b1", b1), ("b2", b2)):
        check_between(name, value, 0, 1, "be at least 0 and less than 1", with_low=True)

    def chain(learning_rate: jax.Array, l2: jax.Array, weight_decay: jax.Array | None) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(l2),
            optax.scale_by_adam(b1, b2, eps),
            optax.identity() if weight_decay is None else optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )

    adam = optax.inject_hyperparams(chain)(
        learning_rate=as_float(learning_rate), l2=as_float(l2), weight_decay=as_float(weight_decay)
    )
    return optax.chain(*penalties, adam, *last)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales the gradient to a global norm of at most `max_norm`, by PyTorch's rule.

    Raises:
      InputError: `max_norm` is not positive.
    """
    check_between("clip_norm", max_norm, 0, inf, "be a positive number or None")

    def init(params: Params) -> optax.EmptyState:
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None) -> Any:
        square = optax.tree.norm(updates, squared=True)
        # The root has no derivative at zero, and unrolled steps differentiate this.
        norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        # Differs from optax, as PyTorch does: 1e-6 is added to the norm.
        scale = jnp.minimum(max_norm / (norm + 1e-6), 1)
        return jax.tree.map(lambda g: (scale * g).astype(g.dtype), updates), state

    return optax.GradientTransformation(init, update)


def add_penalty(
    penalty: Callable[[Alpha], jax.Array], weight: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Adds `weight` times the gradient of `penalty(alpha)`: one term more in the outer objective.

    Args:
      penalty: alpha -> scalar.
      weight: a number becomes the traced hyperparameter "penalty_weight" in the state (`set_hyperparameters`);
        a schedule counts updates.
    """

    return optax.inject_hyperparams(lambda penalty_weight: add_slope(penalty, penalty_weight))(
        penalty_weight=as_float(weight)
    )


def add_slope(penalty: Callable[[Alpha], jax.Array], weight: jax.Array) -> optax.GradientTransformation:
    """What `add_penalty` does with a weight that somebody else holds."""

    def update(updates: Alpha, params: Alpha | None) -> Alpha:
        if params is None:
            raise InputError("a penalty needs the parameters: call update(gradient, state, params)")
        slope = jax.grad(penalty)(params)
        return jax.tree.map(lambda g, s: g + (weight * s).astype(g.dtype), updates, slope)

    return optax.stateless(update)


def as_float(value: Any) -> Any:
    """An int would make an int of every value that is set later."""
    return float(value) if isinstance(value, (int, float, np.number)) else value
