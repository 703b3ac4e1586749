"""How many cells must be rematerialised for a gradient to fit into memory?"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.networks import Supernet, init_alpha, softmax_weights
from jaxdarts.networks.functional import Context, Network
from jaxdarts.networks.supernet import Weights
from jaxdarts.sizes import SMALL
from jaxdarts.spaces import CellSpace

# A program asks for about this many times what its backward pass reads (measured: darts at the paper's size, 1.2).
PROGRAM_OVER_KEPT = 1.25
# What a gradient may take on a CPU, where a process shares the memory with others. Recomputing the first of eight
# cells, which hold a fifth to a quarter, takes 3 % longer (docs/performance.md).
CPU_BYTES = 8e9


def cells_to_rematerialise(
    network: Callable[[int], Network],
    image_shape: tuple[int, int, int],
    batch: Callable[[int], Any],
    loss: Any,
    batch_size: int,
) -> int:
    """The fewest first blocks to rematerialise so that a gradient stays below three quarters of the device's memory.

    On a CPU also below `CPU_BYTES`. A block is taken to keep in proportion to its image positions times channels,
    beside what goes into it, which is kept anyway.

    Args:
      network: blocks that are rematerialised -> a network whose module is a Supernet.
      image_shape: height, width, channels.
      batch: size -> a batch; it is only traced.
      loss: of the task.
      batch_size: images that share one memory.

    Cost: for large settings one tracing of the network, some seconds, and one more where it doesn't fit.
    """
    height, width, _ = image_shape
    whole = network(0)
    supernet = whole.module
    if batch_size * height * width * supernet.channels * len(supernet.blocks) <= SMALL:
        return 0
    memory = memory_bytes()
    limit = math.inf if memory is None else 0.75 * memory
    if jax.default_backend() == "cpu":
        limit = min(limit, CPU_BYTES)
    weights = _block_weights(supernet)

    def needed(which: Network) -> float:
        return PROGRAM_OVER_KEPT * kept_bytes(which, supernet.space, lambda: batch(batch_size), loss)

    everything = needed(whole)
    if everything <= limit:
        return 0
    anyway = needed(network(len(weights)))
    for cells in range(1, len(weights)):
        # Cells that are computed again come last in the backward pass, one at a time, when the others have gone.
        most = max([sum(weights[cells:]), *weights[:cells]])
        if anyway + (everything - anyway) * most / sum(weights) <= limit:
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


def kept_bytes(network: Network, space: CellSpace, batch: Callable[[], Any], loss: Any) -> int:
    """What a gradient keeps from the forward for the backward pass, from shapes alone."""
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    alpha = jax.eval_shape(lambda: init_alpha(space, jax.random.key(0)))
    key = jax.random.key(0) if network.needs_key else None
    values = {"auxiliary_skip": jnp.ones(())} if network.module.auxiliary_skip else {}

    def kept(params: Any, alpha: Any, batch: Any, stats: Any) -> Any:
        def value(w: Any, a: Any) -> jax.Array:
            weights = Weights(softmax_weights(space, a))
            outputs, _, _ = network.apply(w, stats, weights, batch, (), Context(True, key, values))
            return loss(outputs, batch)[0]

        return jax.vjp(value, params, alpha)[1]

    leaves = jax.tree.leaves(jax.eval_shape(kept, params, alpha, jax.eval_shape(batch), stats))
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
