"""Is the mixed product the mixed second derivative?"""

from __future__ import annotations

from typing import Any

import chex
import jax
import numpy as np

from jaxdarts.bilevel import mixed_product


def test_quadratic(quadratic: Any) -> None:
    direction = np.arange(5.0)
    got = mixed_product(quadratic.problem.train_loss, quadratic.w, quadratic.alpha, None, direction)
    np.testing.assert_allclose(got, -quadratic.B.T @ direction, rtol=1e-12)


def test_equals_reverse_over_reverse(network: Any) -> None:
    loss = network.problem.train_loss
    direction = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.5, network.params)

    def slope(alpha: Any) -> jax.Array:
        gradient, _ = jax.grad(loss, has_aux=True)(network.params, alpha, network.train_batch)
        return sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))

    got = jax.jit(lambda a: mixed_product(loss, network.params, a, network.train_batch, direction))(network.alpha)
    chex.assert_trees_all_close(got, jax.jit(jax.grad(slope))(network.alpha), rtol=1e-11)


def test_layer_with_its_own_reverse_rule(network: Any, custom_vjp_network: Any) -> None:
    results = [
        jax.jit(lambda n=n: mixed_product(n.problem.train_loss, n.params, n.alpha, n.train_batch, n.params))()
        for n in (network, custom_vjp_network)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-11)
