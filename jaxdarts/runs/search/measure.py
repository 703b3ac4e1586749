"""What is measured at the end of an epoch?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxdarts.bilevel import get_hyperparameters
from jaxdarts.curvature import extreme_eigenvalues_of_operator
from jaxdarts.keys import run_keys
from jaxdarts.methods import Candidate, SearchState, local_average
from jaxdarts.runs.schedules import drop_path, learning_rate
from jaxdarts.runs.search.assemble import EpochSums, Search
from jaxdarts.runs.search.config import stopping_rule
from jaxdarts.runs.search.regularisers import beta_weight, temperature
from jaxdarts.spaces import discretise


def measure_epoch(
    search: Search, state: SearchState, sums: EpochSums, epoch: int, step: int, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, its duration excepted; None for what the method does not learn.

    Where `select_every` asks for it, `selected` is the genotype that the method would return now.

    Args:
      search: the run's functions.
      state: after the epoch's last step.
      sums: over the epoch's steps.
      epoch: counted from 0.
      step: steps done since the start.
      history: the lines of the epochs before, for the local average of the dominant eigenvalue.
    """
    config, steps = search.config, search.steps_per_epoch
    strengths = search.problem.mixing_weights(state.alpha, state.temperature)
    genotype = discretise(search.space, {cell: np.asarray(value) for cell, value in strengths.items()})
    record: dict[str, Any] = {
        "epoch": epoch,
        "step": step,
        "train_loss": None,
        "train_accuracy": None,
        "alpha_loss": None,
        "valid_loss": None,
        "valid_accuracy": None,
        "learning_rate": learning_rate(config, epoch),
        # The shortest text that stands for the number in its precision: 0.0003, not 0.0003000000142492354.
        "l2": float(str(np.asarray(get_hyperparameters(state.opt_state)["l2"])[()])),
        "drop_path": drop_path(config, epoch),
        "beta_weight": beta_weight(config, epoch),
        "temperature": temperature(config, epoch),
        "dominant_eigenvalue": None,
        "smallest_eigenvalue": None,
        "largest_magnitude_eigenvalue": None,
        "local_average": None,
        "hypergradient_norm": None,
        "alpha": None,
        "genotype": genotype.to_json(),
        "skip_connections": genotype.count("skip_connect"),
    }
    if search.benchmark is not None:
        record["benchmark"] = search.benchmark.look_up(genotype)
    if "params" in search.method.learns:
        record["train_loss"] = float(sums.train_loss) / steps
        record["train_accuracy"] = int(sums.train_correct) / (steps * config.batch_size)
        record["valid_loss"], record["valid_accuracy"] = search.validate(state)
    if "alpha" in search.method.learns:
        record["alpha_loss"] = float(sums.alpha_loss) / steps
        record["hypergradient_norm"] = float(sums.hypergradient_norm) / steps
        record["alpha"] = {cell: np.asarray(values, np.float64).tolist() for cell, values in state.alpha.items()}
        last = epoch == config.epochs - 1
        if config.curvature_every and (epoch % config.curvature_every == 0 or last):
            record.update(_curvature(search, state, epoch, history))
    if search.method.select is not None and config.select_every and (epoch + 1) % config.select_every == 0:
        best = select(search, state, step)[0]
        record.update(selected=best.genotype.to_json(), selected_accuracy=best.accuracy)
    return record


def select(search: Search, state: SearchState, step: int) -> list[Candidate]:
    """What the method's `select` returns of a search that ends after `step` steps, best first."""
    assert search.method.select is not None
    key = jax.random.fold_in(run_keys(search.config.seed).selection, step)
    return search.method.select(partial(search.validate.score, state), key)


def _curvature(
    search: Search, state: SearchState, epoch: int, history: Sequence[Mapping[str, Any]]
) -> dict[str, float | None]:
    """Both ends of the alpha-Hessian's spectrum, and the tracker's average of the dominant one."""
    config = search.config
    found = extreme_eigenvalues_of_operator(
        lambda vector: search.hessian_product(state, vector),
        state.alpha,
        jax.random.fold_in(run_keys(config.seed).curvature, epoch),
        config.curvature_products,
        config.alpha_l2 if config.curvature_weight_decay_shift else 0.0,
        host_loop=True,
    )
    reach = stopping_rule(config).reach
    before = [record["dominant_eigenvalue"] for record in history]
    measured = [value for value in before if value is not None] + [float(found.largest)]
    return {
        "dominant_eigenvalue": float(found.largest),
        "smallest_eigenvalue": float(found.smallest),
        "largest_magnitude_eigenvalue": float(found.largest_magnitude),
        # The newest average that is known: it is centred some measurements back (Zela et al. 2020).
        "local_average": local_average(measured, reach)[-1 - reach] if len(measured) > reach else None,
    }
