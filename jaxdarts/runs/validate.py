"""How good is the supernet on the validation half, with alpha's mixing weights or with any others?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.data import Dataset, eval_batches
from jaxdarts.methods import Batch, SearchProblem, SearchState, as_given, eval_mode_sums
from jaxdarts.networks.supernet import Alpha
from jaxdarts.runs.config import SearchConfig
from jaxdarts.runs.inputs import SearchData, plain

_IN_FLIGHT = 64  # architectures that are scored before the host waits for one


class Validator:
    """Loss and accuracy on the validation half, in evaluation mode. One compiled program serves all calls.

    Batches are not augmented. Differs from RobustDARTS, which also measures on augmented images.
    """

    def __init__(self, config: SearchConfig, dataset: Dataset, problem: SearchProblem, data: SearchData) -> None:
        self._data, self._batch_size = data, config.batch_size
        self._relax = jax.jit(problem.relax, static_argnums=0)
        self._space = problem.space
        given = problem._replace(relax=as_given)

        @jax.jit
        def sums(
            state: SearchState, weights: Alpha, valid: Batch, indices: jax.Array, mask: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            batch = plain(config, dataset, valid, indices)
            return eval_mode_sums(given, state.params, state.batch_stats, weights, batch, mask)

        self._sums = sums

    def __call__(self, state: SearchState, weights: Mapping[str, Any] | None = None) -> tuple[float, float]:
        """Mean cross-entropy and accuracy.

        Args:
          state: whose weights and statistics are used.
          weights: mixing weights, {"normal", "reduce"}: float[edges, operations]; None for those of the state's alpha.
        """
        weights = self._relax(self._space, state.alpha) if weights is None else weights
        losses, correct = self._totals(state, weights, None)
        size = self._data.valid.labels.shape[0]
        return sum(map(float, losses)) / size, sum(map(int, correct)) / size

    def score(self, state: SearchState, weights: Mapping[str, np.ndarray], num_batches: int | None) -> np.ndarray:
        """Accuracies float64[n] of the supernet with n architectures' mixing weights, float[n, edges, operations].

        On the first `num_batches` validation batches, the same for all; None: on the whole half. Evaluations are sent
        to the device without waiting for results. Cost: n * num_batches forward passes.
        """
        size = self._data.valid.labels.shape[0]
        examples = size if num_batches is None else min(size, num_batches * self._batch_size)
        total: list[list[jax.Array]] = []
        for index in range(len(weights["normal"])):
            one = {cell: value[index] for cell, value in weights.items()}
            total.append(self._totals(state, one, num_batches)[1])
            if len(total) > _IN_FLIGHT:
                jax.block_until_ready(total[-_IN_FLIGHT])
        return np.array([sum(map(int, correct)) for correct in total]) / examples

    def _totals(
        self, state: SearchState, weights: Mapping[str, Any], num_batches: int | None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        weights = {cell: jnp.asarray(value, state.drop_path.dtype) for cell, value in weights.items()}
        batches = islice(eval_batches(self._data.valid.labels.shape[0], self._batch_size), num_batches)
        found = [
            self._sums(state, weights, self._data.valid, jnp.asarray(indices), jnp.asarray(mask))
            for indices, mask in batches
        ]
        return [loss for loss, _ in found], [correct for _, correct in found]
