"""How does research code put a search of image classification together, with batches of its own?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.methods.base import Problem, Seen, View
from jaxdarts.methods.relaxations import Alpha, softmax
from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import relaxed_network
from jaxdarts.spaces import CellSpace
from jaxdarts.tasks.classification import Batch, bare_task


def SearchProblem(  # noqa: N802  it makes a Problem, as a class would
    space: CellSpace,
    supernet: Supernet,
    image_shape: tuple[int, int, int],
    dtype: Any = jnp.float32,
    compute_dtype: Any = None,
) -> Problem:
    """A search in a space with a supernet, by cross-entropy, with DARTS' relaxation.

    Args:
      space: what is searched.
      supernet: the relaxed network.
      image_shape: height, width, channels.
      dtype: of w, alpha and statistics.
      compute_dtype: of what goes through the network in training; None: dtype.
    """
    network = relaxed_network(supernet, image_shape, dtype, compute_dtype)
    return Problem(space, network, bare_task(), softmax(space, dtype=dtype))


def train_mode_loss(
    problem: Problem,
    params: Any,
    alpha: Alpha,
    batch: Batch,
    *,
    batch_stats: Any,
    drop_path: jax.Array | float | None = None,
    key: jax.Array | None = None,
    temperature: jax.Array | float | None = None,
) -> tuple[jax.Array, Seen]:
    """Mean cross-entropy of a batch, normalised by the batch's own statistics (both objectives of DARTS).

    `drop_path` and `temperature` are left out of the program where they are None.
    """
    values = {
        name: jnp.asarray(value)
        for name, value in (("drop_path", drop_path), ("temperature", temperature))
        if value is not None
    }
    return problem.outer(params, alpha, View(batch, batch_stats, (), values, key))
