"""Does a gradient fit into memory, or must its cells be rematerialised?"""

from __future__ import annotations

import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.methods import Batch, LossInputs, SearchProblem
from jaxdarts.networks import init_alpha

# A program asks for about this many times what its backward pass reads (measured: darts at the paper's size, 1.2).
PROGRAM_OVER_KEPT = 1.25
# No program of fewer image positions times channels times cells comes near any machine's memory.
SMALL = 1 << 20


def exceeds_memory(problem: SearchProblem, batch_size: int) -> bool:
    """Whether a gradient is expected to need more than three quarters of the device's memory.

    Cost: for large settings one tracing of the network, some seconds.
    """
    height, width, _ = problem.image_shape
    if batch_size * height * width * problem.supernet.channels * problem.supernet.num_cells <= SMALL:
        return False
    memory = memory_bytes()
    return memory is not None and PROGRAM_OVER_KEPT * kept_bytes(problem, batch_size) > 0.75 * memory


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
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on this system
        return None
