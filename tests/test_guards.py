"""Does everything trace under JAX's own guards against silent promotion, which many set for all their code?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts import curvature
from jaxdarts.bilevel import alpha_optimiser, weight_optimiser
from jaxdarts.bilevel.products import apply_update
from jaxdarts.data import augment
from jaxdarts.networks import OPERATIONS, DiscreteNetwork, Supernet, init_alpha, softmax_weights
from jaxdarts.spaces import NASBENCH201, S1, CellSpace, SearchSpace, discretise

KEY = jax.random.key(0)
SPACES = [NASBENCH201, S1, SearchSpace.uniform("all", sorted(OPERATIONS), num_nodes=2)]


@pytest.fixture(autouse=True)
def guards() -> Iterator[None]:
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def total(outputs: Any) -> jax.Array:
    return sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(outputs))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_networks(space: CellSpace, dtype: Any) -> None:
    """Both kinds, training and evaluation, with drop path, an odd size, and the derivative of all."""
    images = jnp.zeros((2, 9, 8, 3), dtype)
    alpha = init_alpha(space, KEY)
    weights = jax.tree.map(lambda leaf: leaf.astype(dtype), softmax_weights(space, alpha))
    search = Supernet(space, 3, 2, 3, remat=2)
    found = DiscreteNetwork(discretise(space, alpha), 3, 2, 3)
    for network, arguments in ((search, (images, weights)), (found, (images,))):
        shapes = jax.eval_shape(partial(network.init, key=KEY), KEY, *arguments)

        def loss(params: Any, arguments: Any, statistics: Any, network: Any = network) -> jax.Array:
            variables = {"params": params, "batch_stats": statistics}
            options = {"train": True, "drop_path": 0.2, "key": KEY, "mutable": ["batch_stats"]}
            return total(network.apply(variables, *arguments, **options)[0])

        jax.eval_shape(jax.grad(loss, argnums=(0, 1)), shapes["params"], arguments, shapes["batch_stats"])
        jax.eval_shape(partial(network.apply, key=KEY), shapes, *arguments)


@pytest.mark.parametrize("optimiser", [alpha_optimiser(), weight_optimiser(0.1)], ids=["alpha", "weights"])
def test_updates(optimiser: Any) -> None:
    params = {"a": jnp.ones((2, 3))}
    jax.eval_shape(partial(apply_update, optimiser), params, optimiser.init(params), params)


@pytest.mark.parametrize("stored", [np.uint8, np.float32])
def test_augmentation(stored: Any) -> None:
    images = jnp.zeros((2, 8, 8, 3), stored)
    make = partial(augment, mean=np.zeros(3), std=np.ones(3), cutout_length=4, cutout_probability=0.5)
    assert jax.eval_shape(make, KEY, images).shape == (2, 8, 8, 3)


@pytest.mark.parametrize("narrow", [jnp.float32, jnp.bfloat16])
def test_curvature(narrow: Any) -> None:
    """With leaves of two precisions, too."""
    x = {"a": jnp.ones((2, 3), narrow), "b": jnp.ones(4)}

    def f(x: Any) -> jax.Array:
        return total(jax.tree.map(jnp.sin, x)) ** 2

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), x)
    jax.eval_shape(lambda: curvature.spectrum(f, x, 0.1, 3))
    jax.eval_shape(lambda: curvature.batched_hvp(f, x, stacked, 1))
    jax.eval_shape(lambda: curvature.extreme_eigenvalues(f, x, KEY, 4, 0.1))
    jax.eval_shape(lambda: curvature.top_eigenvalues(f, x, KEY, 2, 4, "LM", 0.1))
    for sigma in (None, 0.1):
        jax.eval_shape(lambda sigma=sigma: curvature.spectral_density(f, x, KEY, 4, 2, 16, sigma))
