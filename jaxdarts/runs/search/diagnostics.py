"""What does the end of a search say about the genotype it returns?"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxdarts.curvature import top_eigenvalues_of_operator
from jaxdarts.keys import run_keys
from jaxdarts.methods import SearchState
from jaxdarts.networks import OPERATIONS
from jaxdarts.runs.search.assemble import Search
from jaxdarts.spaces import Architecture, one_hot

_PRODUCTS_FOR_EACH = 2  # Hessian-vector products for each eigenvalue wanted


def diagnose(search: Search, state: SearchState, genotype: Architecture, epoch: int) -> dict[str, Any]:
    """A JSON object about the search's end.

    `operations`: counts of skip connections and of parameter-free operations in each cell, and of all operations.
    `discretisation`: accuracy and loss on the validation half, without retraining, with alpha's mixing weights and
    with the genotype's one-hot weights, and the difference of the accuracies (Zela et al. 2020, figure 5). None where
    the method does not learn alpha.
    `eigenvalues`: of the alpha-Hessian, the largest by magnitude first (Zela et al. 2020, figures 15 and 16), and how
    far each is from converged. None where the method does not learn alpha, or none are wanted.

    Args:
      search: the run's functions.
      state: at the end of the epoch that is returned.
      genotype: the one returned.
      epoch: the one returned.

    Cost: one pass over the validation half, and twice as many Hessian-vector products as eigenvalues.
    """
    found: dict[str, Any] = {
        "epoch": epoch,
        "operations": {
            "skip_connect": genotype.count("skip_connect"),
            "parameter_free": {cell: _parameter_free(genotype, cell) for cell in genotype.cell_types},
            "all": {cell: len(genotype.edges(cell)) for cell in genotype.cell_types},
        },
        "discretisation": None,
        "eigenvalues": None,
    }
    if "alpha" in search.method.learns:
        found["discretisation"] = _discretisation(search, state, genotype)
        if search.config.spectrum_size:
            found["eigenvalues"] = _spectrum(search, state)
    return found


def is_parameter_free(operation: str) -> bool:
    """Whether an operation has no weights at stride 1: skip connections, poolings, `noise`, `none`."""
    return not OPERATIONS[operation](1).layers


def _parameter_free(genotype: Architecture, cell: str) -> int:
    return sum(is_parameter_free(operation) for operation, _ in genotype.edges(cell))


def _discretisation(search: Search, state: SearchState, genotype: Architecture) -> dict[str, Any]:
    relaxed_loss, relaxed = search.validate(state)
    # Differs from RobustDARTS, whose one-hot weights can fall on `none`: these are those of the genotype.
    loss, accuracy = search.validate(state, one_hot(search.space, genotype))
    return {
        "relaxed": {"loss": relaxed_loss, "accuracy": relaxed},
        "one_hot": {"loss": loss, "accuracy": accuracy},
        "accuracy_change": accuracy - relaxed,
    }


def _spectrum(search: Search, state: SearchState) -> dict[str, Any]:
    config, space = search.config, search.space
    size = sum(int(space.mask(cell).sum()) for cell in space.cell_types)  # entries that pad alpha add only zeros
    count = min(config.spectrum_size, size)
    length = sum(leaf.size for leaf in jax.tree.leaves(state.alpha))
    result = top_eigenvalues_of_operator(
        lambda vector: search.hessian_product(state, vector),
        state.alpha,
        run_keys(config.seed).spectrum,
        count,
        min(max(_PRODUCTS_FOR_EACH * count, config.curvature_products), length),
        "LM",
        config.alpha_l2 if config.curvature_weight_decay_shift else 0.0,
        host_loop=True,
    )
    return {
        "values": np.asarray(result.value, np.float64).tolist(),
        "residuals": np.asarray(result.residual, np.float64).tolist(),
        "of": size,
    }
