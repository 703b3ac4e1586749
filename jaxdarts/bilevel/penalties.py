"""What is added to the gradients of w and of alpha before their optimisers step, and in which order.

The chains follow the PyTorch optimisers of the DARTS and RobustDARTS codes term by term, so that a run can be compared
number by number. Learning rate, L2 and penalty weights are traced values in the state: `set_hyperparameters` changes
them without recompiling, and runs that differ in them can be vmapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.bilevel.hyperparameters import check_not_negative
from jaxdarts.bilevel.problem import Alpha, Params
from jaxdarts.errors import InputError, unknown_choice


def weight_optimiser(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.9,
    l2: optax.ScalarOrSchedule = 3e-4,
    clip_norm: float | None = 5.0,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum as the reference trains the weights: clip, then L2, then momentum, then the learning rate.

    `g = clip(gradient) + l2 * w; buffer = momentum * buffer + g; w = w - learning_rate * buffer`

    Args:
      learning_rate, l2: not negative; numbers become traced values in the state. A schedule counts updates.
      momentum: from 0 up to but without 1.
      clip_norm: largest global norm of the gradient, positive; None does not clip.

    Raises:
      InputError: an argument is out of range.
    """
    check_not_negative("learning_rate", learning_rate)
    check_not_negative("l2", l2)
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must be at least 0 and less than 1, got {momentum}")
    clip = optax.identity() if clip_norm is None else clip_by_global_norm(clip_norm)

    def chain(learning_rate: jax.Array, l2: jax.Array) -> optax.GradientTransformation:
        return optax.chain(
            clip,
            optax.add_decayed_weights(l2),
            optax.trace(momentum),
            optax.scale_by_learning_rate(learning_rate),
        )

    return optax.inject_hyperparams(chain)(learning_rate=_as_float(learning_rate), l2=_as_float(l2))


def virtual_step_optimiser(
    learning_rate: optax.ScalarOrSchedule, momentum: float = 0.9, l2: optax.ScalarOrSchedule = 3e-4
) -> optax.GradientTransformationExtraArgs:
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
) -> optax.GradientTransformationExtraArgs:
    """Adam as the reference trains alpha: penalties, then coupled L2, then Adam with PyTorch's bias correction.

    Args:
      learning_rate, l2: not negative; numbers become traced values in the state. A schedule counts updates.
      b1, b2: decay rates of the two moments, from 0 up to but without 1.
      eps: added to the root of the second moment after bias correction, not negative.
      penalties: transformations such as `add_beta_decay(...)`, applied to the gradient first, in order.

    Raises:
      InputError: an argument is out of range.
    """
    check_not_negative("learning_rate", learning_rate)
    check_not_negative("l2", l2)
    check_not_negative("eps", eps)
    for name, value in (("b1", b1), ("b2", b2)):
        if not 0 <= value < 1:
            raise InputError(f"{name} must be at least 0 and less than 1, got {value}")

    def chain(learning_rate: jax.Array, l2: jax.Array) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(l2),
            optax.scale_by_adam(b1, b2, eps),
            optax.scale_by_learning_rate(learning_rate),
        )

    adam = optax.inject_hyperparams(chain)(learning_rate=_as_float(learning_rate), l2=_as_float(l2))
    return optax.chain(*penalties, adam)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales the gradient to a global norm of at most `max_norm`, by PyTorch's rule.

    Raises:
      InputError: `max_norm` is not positive.
    """
    if not 0 < max_norm < float("inf"):
        raise InputError(f"clip_norm must be a positive number or None, got {max_norm}")

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

    def scaled(penalty_weight: jax.Array) -> optax.GradientTransformation:
        def update(updates: Alpha, params: Alpha | None) -> Alpha:
            if params is None:
                raise InputError("add_penalty needs the parameters: call update(gradient, state, params)")
            slope = jax.grad(penalty)(params)
            return jax.tree.map(lambda g, s: g + (penalty_weight * s).astype(g.dtype), updates, slope)

        return optax.stateless(update)

    return optax.inject_hyperparams(scaled)(penalty_weight=_as_float(weight))


def _edge_penalty(alpha: Alpha) -> jax.Array:
    return jnp.mean(jnp.concatenate([jax.nn.logsumexp(leaf, axis=-1).ravel() for leaf in jax.tree.leaves(alpha)]))


def _global_penalty(alpha: Alpha) -> jax.Array:
    return jax.nn.logsumexp(jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(alpha)]))


def _zero_penalty(alpha: Alpha) -> jax.Array:
    # Differs from Ye et al.'s printed -log(1 + exp(-alpha)), whose gradient falls as alpha grows.
    return jnp.mean(jnp.concatenate([jax.nn.softplus(leaf).ravel() for leaf in jax.tree.leaves(alpha)]))


BETA_DECAY_PENALTIES: dict[str, Callable[[Alpha], jax.Array]] = {
    "edge": _edge_penalty,
    "global": _global_penalty,
    "zero": _zero_penalty,
}


def beta_decay_penalty(alpha: Alpha, variant: str = "edge") -> jax.Array:
    """The regulariser of Beta-DARTS (Ye et al. 2022), a scalar; its gradient is largest where softmax(alpha) is.

    Args:
      alpha: pytree of floats [edges, operations]. All edges of all leaves (cell types) count alike.
      variant: "edge": mean over edges of logsumexp over operations, the published loss. "global": logsumexp over all
        entries. "zero": mean over entries of log(1 + exp(alpha)).

    Raises:
      InputError: unknown variant.
    """
    return _beta_decay(variant)(alpha)


def add_beta_decay(weight: optax.ScalarOrSchedule, variant: str = "edge") -> optax.GradientTransformationExtraArgs:
    """Adds `weight * beta_decay_penalty(alpha, variant)` to the outer objective; see there and `add_penalty`.

    Ye et al. raise the weight linearly from 0 to 50 over a search.
    """
    return add_penalty(_beta_decay(variant), weight)


def _beta_decay(variant: str) -> Callable[[Alpha], jax.Array]:
    if variant not in BETA_DECAY_PENALTIES:
        raise unknown_choice("variant", variant, BETA_DECAY_PENALTIES)
    return BETA_DECAY_PENALTIES[variant]


def _as_float(value: Any) -> Any:
    """An int would make an int of every value that is set later."""
    return float(value) if isinstance(value, (int, float, np.number)) else value
