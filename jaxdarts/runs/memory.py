"""How many cells must be rematerialised for a gradient to fit into memory?"""

from __future__ import annotations

import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.methods import Batch, LossInputs, SearchProblem
from jaxdarts.networks import Supernet, init_alpha
from jaxdarts.runs.allocator import SMALL

# A program asks for about this many times what its backward pass reads (measured: darts at the paper's size, 1.2).
PROGRAM_OVER_KEPT = 1.25
# What a gradient may take on a CPU, where a process shares the memory with others. Recomputing the first of eight
# cells, which hold a fifth to a quarter, takes 3 % longer (docs/performance.md).
CPU_BYTES = 8e9


def cells_to_rematerialise(problem: SearchProblem, batch_size: int) -> int:
    """The fewest first blocks to rematerialise so that a gradient stays below three quarters of the device's memory.

    On a CPU also below `CPU_BYTES`. A block is taken to keep in proportion to its image positions times channels.

    Cost: for large settings one tracing of the network, some seconds.
    """
    height, width, _ = problem.image_shape
    supernet = problem.supernet
    if batch_size * height * width * supernet.channels * len(supernet.blocks) <= SMALL:
        return 0
    memory = memory_bytes()
    limit = math.inf if memory is None else 0.75 * memory
    if jax.default_backend() == "cpu":
        limit = min(limit, CPU_BYTES)
    needed = PROGRAM_OVER_KEPT * kept_bytes(problem, batch_size)
    weights = _block_weights(supernet)
    for cells in range(len(weights)):
        # Cells that are computed again come last in the backward pass, one at a time, when the others have gone.
        most = max([sum(weights[cells:]), *weights[:cells]])
        if needed * most / sum(weights) <= limit:
            return cells
    return len(weights)


def _block_weights(supernet: Supernet) -> list[float]:
    """What each block keeps, relative to the first: positions times channels; a reduction has edges of both sizes.

    A residual block, which is never computed again, counts as nothing: it keeps as much as one of a cell's many edges.
    """
    weights, size = [], 1.0
    for block in supernet.blocks:
        weights.append(0.0 if block.cell_type is None else 0.75 * size if block.reduction else size)
        if block.reduction:
            size /= 2
    return weights


def kept_bytes(problem: SearchProblem, batch_size: int) -> int:
    """What a gradient keeps from the forward for the backward pass, from shapes alone."""
    shape = (batch_size, *problem.image_shape)
    batch = jax.eval_shape(lambda: Batch(jnp.zeros(shape, problem.dtype), jnp.zeros(shape[:1], jnp.int32)))
    params, batch_stats = jax.eval_shape(problem.init_network, jax.random.key(0))
    alpha = jax.eval_shape(lambda: init_alpha(problem.space, jax.random.key(0)))
    key = jax.random.key(0) if problem.needs_key else None

    def kept(params: Any, alpha: Any, batch: Batch, batch_stats: Any) -> Any:
        inputs = LossInputs(batch, batch_stats, None, key)
        return jax.vjp(lambda w, a: problem.loss(w, a, inputs)[0], params, alpha)[1]

    leaves = jax.tree.leaves(jax.eval_shape(kept, params, alpha, batch, batch_stats))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def memory_bytes() -> int | None:
    """Of the first device; on a CPU the machine's. None where neither says."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return None
