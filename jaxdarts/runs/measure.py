"""What is measured at the end of an epoch?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdarts.curvature import extreme_eigenvalues_of_operator
from jaxdarts.methods import SearchState
from jaxdarts.runs.assemble import EpochSums, Search, drop_path, learning_rate
from jaxdarts.runs.metrics import local_average
from jaxdarts.spaces import discretise


def measure_epoch(
    search: Search, state: SearchState, sums: EpochSums, epoch: int, step: int, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, its duration excepted.

    Args:
      search: the run's functions.
      state: after the epoch's last step.
      sums: over the epoch's steps.
      epoch: counted from 0.
      step: steps done since the start.
      history: the lines of the epochs before, for the local average of the dominant eigenvalue.
    """
    config, steps = search.config, search.steps_per_epoch
    valid_loss, valid_accuracy = search.validate(state)
    alpha = {cell: np.asarray(values, np.float64) for cell, values in state.alpha.items()}
    strengths = search.problem.relax(search.space, state.alpha)
    genotype = discretise(search.space, {cell: np.asarray(value) for cell, value in strengths.items()})
    record: dict[str, Any] = {
        "epoch": epoch,
        "step": step,
        "train_loss": float(sums.train_loss) / steps,
        "train_accuracy": int(sums.train_correct) / (steps * config.batch_size),
        "alpha_loss": float(sums.alpha_loss) / steps,
        "valid_loss": valid_loss,
        "valid_accuracy": valid_accuracy,
        "learning_rate": learning_rate(config, epoch),
        "l2": config.l2,
        "drop_path": drop_path(config, epoch),
        "dominant_eigenvalue": None,
        "smallest_eigenvalue": None,
        "largest_magnitude_eigenvalue": None,
        "local_average": None,
        "hypergradient_norm": float(sums.hypergradient_norm) / steps,
        "alpha": {cell: values.tolist() for cell, values in alpha.items()},
        "genotype": genotype.to_json(),
        "skip_connections": genotype.count("skip_connect"),
    }
    last = epoch == config.epochs - 1
    if config.curvature_every and (epoch % config.curvature_every == 0 or last):
        record.update(_curvature(search, state, epoch, history))
    return record


def _curvature(
    search: Search, state: SearchState, epoch: int, history: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Both ends of the alpha-Hessian's spectrum, and the tracker's average of the dominant one."""
    config = search.config
    found = extreme_eigenvalues_of_operator(
        lambda vector: search.hessian_product(state, vector),
        state.alpha,
        jax.random.fold_in(jax.random.key(config.seed), epoch),
        config.curvature_products,
        config.alpha_l2 if config.curvature_weight_decay_shift else 0.0,
        host_loop=True,
    )
    before = [record["dominant_eigenvalue"] for record in history]
    measured = [value for value in before if value is not None] + [float(found.largest)]
    return {
        "dominant_eigenvalue": float(found.largest),
        "smallest_eigenvalue": float(found.smallest),
        "largest_magnitude_eigenvalue": float(found.largest_magnitude),
        # The newest average that is known: it is centred two measurements back (Zela et al. 2020).
        "local_average": local_average(measured)[-3] if len(measured) >= 3 else None,
    }
