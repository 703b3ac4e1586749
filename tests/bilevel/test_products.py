"""Is the mixed product the mixed second derivative?"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdarts.bilevel import alpha_product, mixed_product


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


def test_alpha_product_is_alpha_rows_of_the_dense_hessian(x64: None) -> None:
    def loss(w, alpha, batch):  # type: ignore[no-untyped-def]
        return jnp.sum(jnp.sin(w["a"]) * jnp.exp(alpha)) * batch + jnp.prod(alpha) * w["a"][0], None

    w, alpha = {"a": jnp.array([0.3, -0.7, 1.1])}, jnp.array([0.2, 0.5, -0.4])
    u, v = {"a": jnp.array([1.0, -2.0, 0.5])}, jnp.array([0.1, 0.3, 2.0])
    both, unravel = ravel_pytree((w, alpha))
    dense = jax.hessian(lambda x: loss(*unravel(x), 2.0)[0])(both)
    rows = (dense @ ravel_pytree((u, v))[0])[3:]
    np.testing.assert_allclose(alpha_product(loss, w, alpha, 2.0, u, v), rows, rtol=1e-12)
