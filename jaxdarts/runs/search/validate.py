"""How good is the supernet on the validation half, with alpha's mixing weights or with any others?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdarts.data import Dataset, eval_batches
from jaxdarts.methods import Batch, SearchProblem, SearchState, as_given, eval_mode_sums
from jaxdarts.networks.supernet import Alpha
from jaxdarts.runs.devices import replicate
from jaxdarts.runs.inputs import SearchData, plain
from jaxdarts.runs.search.config import SearchConfig

_TOGETHER = 16  # architectures that an accelerator scores in one program
_IN_FLIGHT = 64  # groups that are scored before the host waits for one


class Validator:
    """Loss and accuracy on the validation half, in evaluation mode. One compiled program serves all calls on a CPU.

    Batches are not augmented. Differs from RobustDARTS, which also measures on augmented images.
    """

    def __init__(
        self,
        config: SearchConfig,
        dataset: Dataset,
        problem: SearchProblem,
        data: SearchData,
        mesh: Mesh | None = None,
        together: int | None = None,
    ) -> None:
        """`mesh`: of the devices, if several.

        `together`: architectures that one program scores; None: one on a CPU, which gains nothing by more.
        """
        self._data, self._batch_size, self._mesh = data, config.batch_size, mesh
        self._mixing_weights = jax.jit(problem.mixing_weights)
        given = problem._replace(relax=as_given)

        @jax.jit
        def sums(
            state: SearchState, weights: Alpha, valid: Batch, indices: jax.Array, mask: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            batch = plain(config, dataset, valid, indices, mesh)
            return eval_mode_sums(given, state.params, weights, batch, mask, batch_stats=state.batch_stats)

        self._sums = sums
        self._together = together or (1 if jax.default_backend() == "cpu" else _TOGETHER)
        many = jax.jit(jax.vmap(sums, in_axes=(None, 0, None, None, None)))
        self._group_sums = sums if self._together == 1 else many

    def __call__(self, state: SearchState, weights: Mapping[str, Any] | None = None) -> tuple[float, float]:
        """Mean cross-entropy and accuracy.

        Args:
          state: whose weights and statistics are used.
          weights: mixing weights, float[edges, operations] for each cell type; None for those of the state's alpha.
        """
        weights = self._mixing_weights(state.alpha, state.temperature) if weights is None else weights
        losses, correct = self._totals(self._sums, state, weights, None)
        size = self._data.valid.labels.shape[0]
        return sum(map(float, losses)) / size, sum(map(int, correct)) / size

    def score(self, state: SearchState, weights: Mapping[str, np.ndarray], num_batches: int | None) -> np.ndarray:
        """Accuracies float64[n] of the supernet with n architectures' mixing weights, float[n, edges, operations].

        On the first `num_batches` validation batches, the same for all; None: on the whole half. Evaluations are sent
        to the device without waiting for results. Cost: n * num_batches forward passes.
        """
        size = self._data.valid.labels.shape[0]
        examples = size if num_batches is None else min(size, num_batches * self._batch_size)
        count, total = len(next(iter(weights.values()))), []
        for start in range(0, count, self._together):
            # The last group is filled up with its last architecture, so that there is one shape.
            rows = np.minimum(np.arange(start, start + self._together), count - 1)
            group = {cell: value[rows] if self._together > 1 else value[start] for cell, value in weights.items()}
            total.append(self._totals(self._group_sums, state, group, num_batches)[1])
            if len(total) >= _IN_FLIGHT:
                jax.block_until_ready(total[-_IN_FLIGHT])
        correct = [np.sum(np.stack([np.atleast_1d(batch) for batch in batches]), axis=0) for batches in total]
        return np.concatenate(correct)[:count] / examples

    def _totals(
        self, sums: Callable[..., Any], state: SearchState, weights: Mapping[str, Any], num_batches: int | None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        weights = {cell: jnp.asarray(value, state.drop_path.dtype) for cell, value in weights.items()}
        weights = replicate(weights, self._mesh)  # where the state is, so that all calls are one program
        batches = islice(eval_batches(self._data.valid.labels.shape[0], self._batch_size), num_batches)
        found = [
            sums(state, weights, self._data.valid, jnp.asarray(indices), jnp.asarray(mask)) for indices, mask in batches
        ]
        return [loss for loss, _ in found], [correct for _, correct in found]
