"""How does Beta-DARTS (Ye et al. 2022) keep softmax(alpha) from growing apart, and what does a step of it do?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.hyperparameters import check_not_negative
from jaxdarts.bilevel.penalties import add_slope, as_float
from jaxdarts.bilevel.problem import Alpha
from jaxdarts.errors import unknown_choice

Mask = Any  # pytree like alpha, of bool[edges, operations]: which entries are candidates


def _edge_penalty(alpha: Alpha, mask: Mask) -> jax.Array:
    edges = jax.tree.map(lambda a, m: jax.nn.logsumexp(a, axis=-1, where=m), alpha, mask)
    return jnp.mean(jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(edges)]))


def _global_penalty(alpha: Alpha, mask: Mask) -> jax.Array:
    entries, candidates = (jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (alpha, mask))
    return jax.nn.logsumexp(entries, where=candidates)


def _zero_penalty(alpha: Alpha, mask: Mask) -> jax.Array:
    # Differs from Ye et al.'s printed -log(1 + exp(-alpha)), whose gradient falls as alpha grows.
    sums = jax.tree.map(lambda a, m: jnp.where(m, jax.nn.softplus(a), 0).sum(), alpha, mask)
    return sum(jax.tree.leaves(sums)) / sum(leaf.sum() for leaf in jax.tree.leaves(mask))


BETA_DECAY_PENALTIES: dict[str, Callable[[Alpha, Mask], jax.Array]] = {
    "edge": _edge_penalty,
    "global": _global_penalty,
    "zero": _zero_penalty,
}


def beta_decay_penalty(alpha: Alpha, variant: str = "edge", mask: Mask | None = None) -> jax.Array:
    """The regulariser of Beta-DARTS (Ye et al. 2022), a scalar; its gradient is largest where softmax(alpha) is.

    Args:
      alpha: pytree of floats [edges, operations]. All edges of all leaves (cell types) count alike.
      variant: "edge": mean over edges of logsumexp over operations, the published loss; its gradient is softmax(alpha)
        divided by the number of edges. "global": logsumexp over all entries. "zero": mean over entries of
        log(1 + exp(alpha)).
      mask: like alpha, False where an entry only pads an edge with fewer candidates; None: all are candidates.

    Raises:
      InputError: unknown variant.
    """
    return _penalty(variant, mask)(alpha)


def add_beta_decay(
    weight: optax.ScalarOrSchedule,
    variant: str = "edge",
    mask: Mask | None = None,
    part: Callable[[Alpha], Alpha] = lambda alpha: alpha,
) -> optax.GradientTransformationExtraArgs:
    """Adds `weight * beta_decay_penalty(alpha, variant, mask)` to the outer objective, whatever its hypergradient.

    Ye et al. raise the weight linearly from 0 to 50 over a search, with alpha's learning rate 3e-4.

    Args:
      weight: not negative; a number becomes the traced hyperparameter "beta_weight" in the state
        (`set_hyperparameters`), a schedule counts updates.
      variant, mask: see `beta_decay_penalty`.
      part: alpha -> what of it is penalised.

    Raises:
      InputError: unknown variant, or a weight that is negative or not finite.
    """
    check_not_negative("beta_weight", weight)
    whole = _penalty(variant, mask)
    penalty = lambda alpha: whole(part(alpha))  # noqa: E731
    return optax.inject_hyperparams(lambda beta_weight: add_slope(penalty, beta_weight))(beta_weight=as_float(weight))


def beta_decay_factor(
    alpha: Alpha, step_size: jax.typing.ArrayLike, variant: str = "edge", mask: Mask | None = None
) -> Alpha:
    """By what a step with beta decay multiplies softmax(alpha), beside the same step without: the factor theta.

    `theta_k = sum_j exp(a_j) / sum_j exp(step_size (F_k - F_j)) exp(a_j)` on each edge, where F is the penalty's
    gradient (Ye et al. 2022, section 3.3; there F is softmax(alpha), up to the number of edges). It is less than 1
    where F is above its mean weighted by softmax(alpha), so that the strongest operation loses most. For a step of
    plain gradient descent of size eta with weight lambda, `step_size = eta * lambda`, it holds up to terms of second
    order in eta, and exactly where alpha does not move otherwise. Adam's steps are not of this form.

    Args:
      alpha: pytree of floats [edges, operations], before the step.
      step_size: learning rate times weight of the penalty.
      variant, mask: see `beta_decay_penalty`.

    Returns:
      Like alpha, positive; 1 where `mask` is False.

    Raises:
      InputError: unknown variant.
    """
    force = jax.grad(_penalty(variant, mask))(alpha)

    def factor(a: jax.Array, f: jax.Array, m: jax.Array) -> jax.Array:
        before = jax.nn.logsumexp(a, axis=-1, where=m, keepdims=True)
        after = jax.nn.logsumexp(a - step_size * f, axis=-1, where=m, keepdims=True) + step_size * f
        return jnp.where(m, jnp.exp(before - after), 1)

    return jax.tree.map(factor, alpha, force, _mask(alpha, mask))


def _penalty(variant: str, mask: Mask | None) -> Callable[[Alpha], jax.Array]:
    if variant not in BETA_DECAY_PENALTIES:
        raise unknown_choice("variant", variant, BETA_DECAY_PENALTIES)
    return lambda alpha: BETA_DECAY_PENALTIES[variant](alpha, _mask(alpha, mask))


def _mask(alpha: Alpha, mask: Mask | None) -> Mask:
    return jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), alpha) if mask is None else mask
