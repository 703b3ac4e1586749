"""Does every batch hold what it should, without repetition, and evaluation every example once?"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdarts.data.batches import (
    epoch_order,
    eval_batches,
    random_batch_indices,
    steps_per_epoch,
    train_batch_indices,
)
from jaxdarts.errors import InputError


def test_epoch_order_is_a_permutation_fixed_by_its_key():
    order = epoch_order(jax.random.key(0), 50)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    np.testing.assert_array_equal(order, epoch_order(jax.random.key(0), 50))
    assert not np.array_equal(order, epoch_order(jax.random.key(1), 50))


def test_train_batches_are_disjoint_and_the_step_may_be_traced():
    order = epoch_order(jax.random.key(0), 50)
    take = jax.jit(train_batch_indices, static_argnums=2)
    batches = np.stack([take(order, step, 8) for step in range(steps_per_epoch(50, 8))])
    assert batches.shape == (6, 8)
    np.testing.assert_array_equal(batches.ravel(), order[:48])


@pytest.mark.parametrize(("num_examples", "batch_size"), [(5, 5), (100, 64), (1, 1)])
def test_random_batch_has_no_repetition(num_examples, batch_size):
    keys = jax.random.split(jax.random.key(0), 50)
    batches = np.asarray(jax.jit(jax.vmap(lambda key: random_batch_indices(key, num_examples, batch_size)))(keys))
    assert batches.shape == (50, batch_size) and batches.dtype == np.int32
    assert batches.min() >= 0 and batches.max() < num_examples
    assert all(len(set(batch)) == batch_size for batch in batches.tolist())


def test_random_batches_are_uniform_over_sets():
    keys = jax.random.split(jax.random.key(1), 3000)
    batches = np.sort(np.asarray(jax.jit(jax.vmap(lambda key: random_batch_indices(key, 5, 2)))(keys)), axis=1)
    sets, counts = np.unique(batches, axis=0, return_counts=True)
    assert len(sets) == 10
    assert np.abs(counts - 300).max() < 5 * np.sqrt(300 * 0.9)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 4), (8, 4), (3, 5)])
def test_evaluation_covers_every_example_once(num_examples, batch_size):
    batches = list(eval_batches(num_examples, batch_size))
    assert {(indices.shape, mask.shape) for indices, mask in batches} == {((batch_size,), (batch_size,))}
    covered = np.concatenate([indices[mask] for indices, mask in batches])
    np.testing.assert_array_equal(covered, np.arange(num_examples))
    assert all(indices.max() < num_examples and indices.dtype == np.int32 for indices, _ in batches)


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="batch_size 64 is larger than the data: 63 examples"):
        steps_per_epoch(63, 64)
    with pytest.raises(InputError, match="batch_size must be at least 1, not 0"):
        steps_per_epoch(63, 0)
    with pytest.raises(InputError, match="nothing to evaluate"):
        eval_batches(0, 4)
