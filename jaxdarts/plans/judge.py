"""How good is a network on a part of the data, with alpha's mixing weights or with any others?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxdarts.methods.base import Problem, SearchState
from jaxdarts.networks.supernet import Weights
from jaxdarts.sharding import replicate
from jaxdarts.tasks.base import Stream, Totals, means, with_derived

_TOGETHER = 16  # architectures that an accelerator scores in one program
_IN_FLIGHT = 64  # groups that are scored before the host waits for one


class Measurer:
    """Means of the task's metrics over a part of the data, in evaluation mode; every example counts once.

    Examples are as they are, not augmented. One compiled program serves all calls on a CPU.
    Differs from RobustDARTS, which also measures on augmented examples.
    """

    def __init__(
        self, problem: Problem, mesh: Mesh | None = None, together: int | None = None, train: bool = False
    ) -> None:
        """`mesh`: of the devices, if several.

        `together`: architectures that one program scores; None: one on a CPU, which gains nothing by more.
        `train`: normalise by every batch's own statistics. Examples that fill no whole batch are left out then, unless
        there are no others.
        """
        self._problem, self._mesh, self._train = problem, mesh, train
        self._mean_weights = jax.jit(problem.mean_weights)
        self._together = together or (1 if jax.default_backend() == "cpu" else _TOGETHER)
        self._programs: dict[Any, Any] = {}  # by how a stream's examples are taken

    def __call__(
        self, stream: Stream, state: SearchState, weights: Weights | None = None, num_batches: int | None = None
    ) -> dict[str, float]:
        """Every metric's mean over the whole part, or its first batches.

        `weights` None: the mean ones of the state's alpha.
        """
        weights = self._mean_weights(state.alpha, state.values) if weights is None else weights
        totals = self._totals(stream, self._sums(stream), state, weights, num_batches)
        # Added by the host, in double precision and exactly for counts.
        found = means({n: (sum(float(t[n][0]) for t in totals), sum(int(t[n][1]) for t in totals)) for n in totals[0]})
        return with_derived(self._problem.task.metrics, found)

    def score(
        self, stream: Stream, state: SearchState, weights: Mapping[str, np.ndarray], num_batches: int | None
    ) -> np.ndarray:
        """As `Judge.score`. Evaluations are sent to the device without waiting for results.

        Cost: n * num_batches forward passes.
        """
        count, found, task = len(next(iter(weights.values()))), [], self._problem.task
        derived = task.metrics[task.objective].of
        base = task.objective if derived is None else derived[0]
        one = self._sums(stream)
        program = one if self._together == 1 else self._many(stream, one)
        for start in range(0, count, self._together):
            # The last group is filled up with its last architecture, so that there is one shape.
            rows = np.minimum(np.arange(start, start + self._together), count - 1)
            group: dict[str, Any] = {
                cell: value[rows] if self._together > 1 else value[start] for cell, value in weights.items()
            }
            many = self._together > 1
            found.append([t[base] for t in self._totals(stream, program, state, Weights(group), num_batches, many)])
            if len(found) >= _IN_FLIGHT:
                jax.block_until_ready(found[-_IN_FLIGHT])
        sums, counts = (
            np.concatenate([np.sum([np.atleast_1d(pair[i]) for pair in batches], axis=0) for batches in found])
            for i in (0, 1)
        )
        mean = sums[:count] / counts[:count]
        return mean if derived is None else np.array([derived[1](value) for value in mean])

    def _sums(self, stream: Stream) -> Any:
        if stream.plain not in self._programs:

            @jax.jit
            def sums(
                state: Any, weights: Weights, data: Any, position: jax.Array, mask: jax.Array, memory: Any
            ) -> tuple[Totals, Any]:
                params, stats, values = state
                batch = stream.plain(data, position)
                return self._problem.measured(params, stats, weights, values, batch, mask, memory, self._train)

            self._programs[stream.plain] = sums
        return self._programs[stream.plain]

    def _many(self, stream: Stream, one: Any) -> Any:
        key = ("many", stream.plain)
        if key not in self._programs:
            axes = (None, 0, None, None, None, 0)
            self._programs[key] = jax.jit(jax.vmap(one, in_axes=axes))
        return self._programs[key]

    def _totals(
        self,
        stream: Stream,
        program: Any,
        state: SearchState,
        weights: Weights,
        num_batches: int | None,
        weights_of_many: bool = False,
    ) -> list[Totals]:
        dtype = self._problem.network.dtype
        weights = jax.tree.map(lambda value: jnp.asarray(value, dtype), weights)
        weights = replicate(weights, self._mesh)  # where the state is, so that all calls are one program
        needed = (state.params, state.stats, state.values)
        positions = list(islice(stream.positions(), num_batches))
        if self._train:
            positions = [pair for pair in positions if pair[1].all()] or positions
        memory, found = self._problem.network.memory(stream.side_by_side), []
        if weights_of_many:
            memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self._together, *leaf.shape)), memory)
        for position, mask in positions:
            totals, memory = program(needed, weights, stream.data, jnp.asarray(position), jnp.asarray(mask), memory)
            found.append(totals)
        return found


class StateJudge:
    """A `Judge`: scores mixing weights with one state's network on one part of the data."""

    def __init__(self, measurer: Measurer, stream: Stream, state: SearchState) -> None:
        self._measurer, self._stream, self._state = measurer, stream, state

    def __call__(self, weights: Weights | None = None) -> dict[str, float]:
        """Every metric's mean."""
        return self._measurer(self._stream, self._state, weights)

    def score(self, weights: Mapping[str, np.ndarray], num_batches: int | None) -> np.ndarray:
        """The objective of several architectures."""
        return self._measurer.score(self._stream, self._state, weights, num_batches)
