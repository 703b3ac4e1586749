"""Matrices with a chosen spectrum, and a small network with mixing weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

Symmetric = Callable[..., np.ndarray]


@pytest.fixture
def symmetric() -> Symmetric:
    """A float64 matrix with the given eigenvalues and random eigenvectors."""

    def make(eigenvalues: Any, seed: int = 0) -> np.ndarray:
        eigenvalues = np.asarray(eigenvalues, np.float64)
        size = len(eigenvalues)
        vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
        matrix = (vectors * eigenvalues) @ vectors.T
        return (matrix + matrix.T) / 2

    return make


@pytest.fixture
def mixed_network() -> Callable[..., tuple[Callable[[Any], jax.Array], Any]]:
    """(f, alpha): the loss of a small network whose layers mix four operations by softmax(alpha)."""

    def make(edges: int = 2, width: int = 4, dtype: Any = jnp.float32) -> tuple[Callable[[Any], jax.Array], Any]:
        random = np.random.default_rng(1)

        def normal(*shape: int) -> jax.Array:
            return jnp.asarray(random.normal(size=shape), dtype)

        weights = normal(2 * edges, width, width) * width**-0.5
        inputs, targets = normal(16, width), normal(16, width)
        alpha = {"reduce": normal(edges, 4), "normal": normal(edges, 4)}

        def layer(hidden: jax.Array, edge: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            mixing, weight = edge
            mapped = hidden @ weight
            operations = jnp.stack([hidden, jnp.tanh(mapped), jnp.sin(mapped), jnp.zeros_like(hidden)])
            return jnp.tensordot(mixing, operations, 1), None

        def f(alpha: Any) -> jax.Array:
            mixing = jax.nn.softmax(jnp.concatenate([alpha["normal"], alpha["reduce"]]))
            hidden, _ = jax.lax.scan(layer, inputs, (mixing, weights))
            return jnp.mean((hidden - targets) ** 2)

        return f, alpha

    return make
