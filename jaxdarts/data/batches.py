"""Which examples make up each batch?"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxdarts.errors import InputError


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """How many whole batches an epoch has. Raises InputError for a batch below 1 or larger than the data.

    Differs from the reference, whose last batch of an epoch is a smaller one: here one compiled shape serves all, and
    the examples left over (fewer than a batch) are other ones in each epoch.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if batch_size > num_examples:
        raise InputError(f"batch_size {batch_size} is larger than the data: {num_examples} examples")
    return num_examples // batch_size


def epoch_order(key: Array, num_examples: int) -> Array:
    """A permutation int32 [num_examples], the order of one epoch."""
    return jax.random.permutation(key, num_examples).astype(jnp.int32)


def train_batch_indices(order: Array, step: ArrayLike, batch_size: int) -> Array:
    """int32 [batch_size]: the batch `step` (0-based, below `steps_per_epoch`; may be traced) of an epoch's order."""
    return jax.lax.dynamic_slice_in_dim(order, jnp.asarray(step) * batch_size, batch_size)


def random_batch_indices(key: Array, num_examples: int, batch_size: int) -> Array:
    """int32 [batch_size] without repetition: the first batch of a fresh shuffle, as the reference draws for alpha.

    Every set of `batch_size` examples is equally likely, as in `epoch_order(key)[:batch_size]` (RobustDARTS
    train_search.py:348); their order within the batch is not uniform, which no loss sees. Robert Floyd's sampling
    (Bentley and Floyd 1987), since sorting costs 150 times as much for 64 of 25 000 examples.
    Cost: a loop of batch_size steps, each comparing batch_size numbers. Needs batch_size <= num_examples.
    """
    last = jnp.arange(num_examples - batch_size, num_examples, dtype=jnp.int32)
    drawn = jax.random.randint(key, (batch_size,), 0, last + 1, dtype=jnp.int32)

    def add(position: Array, chosen: Array) -> Array:
        repeated = (chosen == drawn[position]).any()
        return chosen.at[position].set(jnp.where(repeated, last[position], drawn[position]))

    chosen: Array = jax.lax.fori_loop(0, batch_size, add, jnp.full(batch_size, -1, jnp.int32))
    return chosen


def eval_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches that hold every example exactly once: indices int32 [batch_size], mask bool [batch_size].

    All have one shape. The last is filled up with index 0, where the mask is False. Raises InputError for no examples.
    """
    if num_examples < 1 or batch_size < 1:
        raise InputError(f"nothing to evaluate: {num_examples} examples in batches of {batch_size}")
    return _eval_batches(num_examples, batch_size)


def _eval_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, num_examples, batch_size):
        positions = np.arange(start, start + batch_size, dtype=np.int32)
        valid = positions < num_examples
        yield np.where(valid, positions, 0).astype(np.int32), valid
