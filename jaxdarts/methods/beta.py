"""Beta-DARTS (Ye et al. 2022): DARTS with a penalty that keeps the mixing weights from growing apart."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import add_beta_decay
from jaxdarts.methods.base import Method, Problem
from jaxdarts.methods.darts import darts
from jaxdarts.spaces import CellSpace


def beta_darts(
    problem: Problem,
    *,
    alpha_optimiser: optax.GradientTransformation,
    weight: optax.ScalarOrSchedule = 50.0,
    variant: str = "edge",
    **options: Any,
) -> Method:
    """DARTS whose outer objective also holds `weight` times Beta-Decay, with any hypergradient.

    The weight is the traced hyperparameter "beta_weight" of `state.alpha_opt_state`; the paper raises it linearly from
    0 to 50 over the search, which a run does every epoch.

    Args:
      problem: what is searched.
      alpha_optimiser: of the outer objective; Beta-Decay comes before all of it.
      weight: of the penalty, not negative.
      variant: of it, see `beta_decay_penalty`.
      options: of `darts`.

    Cost of a step: that of `darts`; the penalty is a softmax of alpha.
    Differs from the public code, which has Beta-Decay in first order only: there as here it is a term of the outer
    objective that does not depend on the weights, so that it adds its own gradient to any hypergradient.
    """
    assert problem.space is not None
    decay = beta_decay_of_operations(problem.space, weight, variant)
    return darts(problem, alpha_optimiser=optax.chain(decay, alpha_optimiser), **options)


def beta_decay_of_operations(
    space: CellSpace, weight: optax.ScalarOrSchedule, variant: str
) -> optax.GradientTransformationExtraArgs:
    """`add_beta_decay` on what chooses between candidates, whatever else alpha holds, such as weights of edges."""
    return add_beta_decay(
        weight, variant, candidate_mask(space), lambda alpha: {cell: alpha[cell] for cell in space.cell_types}
    )


def candidate_mask(space: CellSpace) -> dict[str, jax.Array] | None:
    """Which entries of alpha belong to a candidate, bool[edges, operations] a cell type; None: all of them."""
    masks = {cell: space.mask(cell) for cell in space.cell_types}
    if all(mask.all() for mask in masks.values()):
        return None
    return {cell: jnp.asarray(mask) for cell, mask in masks.items()}
