"""Is the curvature that a search measures that of its outer objective, in alpha, on the images that it says?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.errors import InputError
from jaxdarts.keys import run_keys
from jaxdarts.methods import StoppingRule
from jaxdarts.plans.base import Moment
from jaxdarts.plans.observers import CurvatureSettings, curvature_told
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


def test_an_eigenvalue_that_is_not_finite_takes_no_part_in_the_average() -> None:
    """Whether it is the newest or an older one; a window of three is settled a measurement later."""
    settings = CurvatureSettings(1, 2, rule=StoppingRule(window=3))
    state: Any = SimpleNamespace(alpha={"cell": jnp.zeros(2)})
    history = [{"dominant_eigenvalue": value} for value in (1.0, 2.0, None, 6.0)]

    def average(newest: float) -> Any:
        observe = curvature_told(lambda state, vector: {"cell": newest * vector["cell"]}, settings, run_keys(0))
        return observe(Moment(state, 4, 4, True, {}, history))["local_average"]

    assert average(math.nan) == (1 + 2 + 6) / 3
    np.testing.assert_allclose(average(10.0), (2 + 6 + 10) / 3, rtol=1e-5)
