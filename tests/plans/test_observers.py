"""Is the curvature that a search measures that of its outer objective, in alpha, on the images that it says?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.errors import InputError
from tests.runs.stepping import by_hand
from tests.runs.tiny import tiny_config


def test_hessian_product_written_by_hand(tmp_path: Path) -> None:
    """The mean cross-entropy of two batches of the validation half, its second derivative in alpha alone."""
    hand = by_hand(tiny_config(tmp_path, curvature_batches=2, hypergradient="unrolled"))
    search, state, random = hand.shared, hand.init(), np.random.default_rng(0)
    flat, unravel = ravel_pytree(state.alpha)
    point, direction = (jnp.asarray(random.normal(size=flat.shape), flat.dtype) for _ in range(2))
    images = np.asarray(search.data.valid.images[:20])  # of digits, from 0 to 1
    images = (images - np.asarray(search.data.dataset.mean)) / np.asarray(search.data.dataset.std)
    labels = np.asarray(search.data.valid.labels[:20])

    def loss(flat_alpha: jax.Array) -> jax.Array:
        weights = jax.tree.map(jax.nn.softmax, unravel(flat_alpha))
        total = jnp.zeros(())
        for batch in (slice(0, 10), slice(10, 20)):
            variables: Any = {"params": state.params, "batch_stats": state.stats}
            scores, _ = search.problem.network.module.apply(
                variables, jnp.asarray(images[batch], jnp.float32), weights, train=True, mutable=["batch_stats"]
            )
            total -= jax.nn.log_softmax(scores)[jnp.arange(10), labels[batch]].mean() / 2
        return total

    product = search.product(dataclasses.replace(state, alpha=unravel(point)), unravel(direction))
    expected = jax.jit(jax.hessian(loss))(point) @ direction
    size = float(jnp.abs(expected).max())
    assert size > 1e-3
    np.testing.assert_allclose(ravel_pytree(product)[0], expected, rtol=1e-3, atol=1e-5 * size)


def test_more_batches_than_the_half_holds_are_refused(tmp_path: Path) -> None:
    """40 images are four batches of 10: a fifth would count some images twice."""
    by_hand(tiny_config(tmp_path, curvature_batches=4))
    with pytest.raises(InputError, match=r"curvature_batches must be at most 4: the 40 examples .*; got 5"):
        by_hand(tiny_config(tmp_path, curvature_batches=5))
