"""Of which loss is the recorded curvature?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.methods import View
from jaxdarts.methods.relaxations import Relaxation
from jaxdarts.plans.observers import hessian_product
from jaxdarts.tasks.base import Stream
from tests.methods.making import batches, make, started


def test_the_curvature_of_a_sampled_relaxation_is_that_of_the_mean_weights() -> None:
    """The same numbers as with the relaxation that it is a sample of, whatever the key would have sampled."""
    method = make("darts")
    plain, state = method.problem, started(method)
    mean = plain.relaxation.mean

    def sample(alpha: Any, values: Any, key: jax.Array | None) -> Any:
        assert key is not None
        return jax.tree.map(lambda leaf: leaf * jax.random.normal(key, leaf.shape), mean(alpha, values))

    sampled = dataclasses.replace(plain, relaxation=Relaxation(plain.relaxation.init, sample, mean, uses_key=True))
    data = batches()[1]
    never: Any = None
    stream = Stream(data, 4, 1, never, never, never, never, held=lambda data, number: data)
    direction = jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), state.alpha)
    expected, found = (hessian_product(problem, stream, 1)(state, direction) for problem in (plain, sampled))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)
    other = jax.grad(lambda a: sampled.outer(state.params, a, View(data, state.stats, key=jax.random.key(0)))[0])
    assert np.abs(jax.jvp(other, (state.alpha,), (direction,))[1]["normal"] - expected["normal"]).max() > 1e-3
