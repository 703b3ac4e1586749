"""DSNAS (Hu et al. 2020): one sampled operation an edge, and alpha learns by what each edge did to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.methods.base import CLASSIFICATION_ONLY, Ingredients, Method, MethodEntry
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha, Relaxation, tempered
from jaxdarts.methods.sampling import Draw, drawn_as, log_probabilities, one_hot_largest, soft_sample, standard_gumbel
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group
from jaxdarts.spaces import CellSpace


@dataclass(frozen=True)
class DsnasSettings(Group):
    """DSNAS."""

    dsnas_entropy: bool = False
    """Add the gradient of an edge's entropy to that of its sample's log-probability, as an option of the authors' code
    does."""


def rewarded(space: CellSpace, base: Relaxation, entropy: bool = False, draw: Draw | None = None) -> Relaxation:
    """`base` at its start and in the mean; a step has one-hot samples z of softmax(alpha), one for all cells of a type.

    The gradient in an edge's alpha is R (z - softmax(alpha)): that of the sample's log-probability, times the
    derivative R of the loss in the weight of the sampled operation (eq. 6 and 8), summed over the cells of the type.

    Args:
      space: whose alpha.
      base: DARTS' relaxation.
      entropy: R also multiplies the gradient of the edge's entropy.
      draw: standard Gumbel numbers; None: from the key.
    """
    numbers = draw or standard_gumbel(space)

    def sample(alpha: Alpha, values: Mapping[str, jax.Array], key: jax.Array | None) -> Weights:
        logits = tempered({cell: alpha[cell] for cell in space.cell_types}, values)
        chosen = one_hot_largest(soft_sample(space, logits, drawn_as(numbers, logits, key), jnp.ones(())))
        logs = log_probabilities(space, logits)
        weights = {}
        for cell, z in chosen.items():
            finite = jnp.where(jnp.asarray(space.mask(cell)), logs[cell], 0)
            score = (z * finite).sum(axis=-1, keepdims=True)
            if entropy:
                score -= (jnp.exp(finite) * finite).sum(axis=-1, keepdims=True)
            # The score's value is taken away, its gradient stays.
            weights[cell] = z * (1 + (score - jax.lax.stop_gradient(score)))
        return Weights(weights)

    return base._replace(sample=sample, uses_key=True)


def build_dsnas(ingredients: Ingredients, draw: Draw | None = None, **options: Any) -> Method:
    """One gradient for w and alpha through a sampled network. `draw`: of `rewarded`; `options`: of `gradient_method`.

    Cost: that of DARTS' first order or less, as every operation is computed.
    """
    # Differs from SNAS-Series, where only the sampled network is trained but the whole supernet runs once more.
    settings, problem = ingredients.settings, ingredients.problem
    assert problem.space is not None
    return gradient_method(
        ingredients, rewarded(problem.space, problem.relaxation, settings.dsnas_entropy, draw), **options
    )


DSNAS = MethodEntry(
    build_dsnas,
    "the likeliest operations of alpha, which was rewarded by what each sampled operation did to the loss",
    settings=(DsnasSettings,),
    defaults={
        "": {
            "hypergradient": "first_order",
            "single_level": True,
            "alpha_init_scale": 0.01,
            "alpha_clip_norm": 10.0,
        },
        # Half of a batch of 64 from each part of the data.
        "paper": {"epochs": 150, "batch_size": 32},
    },
    tasks=CLASSIFICATION_ONLY,
)
