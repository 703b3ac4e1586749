"""Bi-level problems in double precision: a quadratic one whose answers are known, and a smooth network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import Bilevel


class Quadratic(NamedTuple):
    """train = w.A w / 2 - w.B alpha; valid = |w - c|^2 / 2 + alpha.D w + |alpha|^2; A has eigenvalues 0.5 to 3."""

    A: np.ndarray
    B: np.ndarray
    c: np.ndarray
    D: np.ndarray
    w: np.ndarray
    alpha: np.ndarray
    problem: Bilevel

    def alpha_gradient(self, w: np.ndarray) -> np.ndarray:
        return self.D @ w + 2 * self.alpha

    def weight_gradient(self, w: np.ndarray) -> np.ndarray:
        return w - self.c + self.D.T @ self.alpha


@pytest.fixture
def quadratic(x64: None) -> Quadratic:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    A = basis @ np.diag([0.5, 1.0, 1.5, 2.0, 3.0]) @ basis.T
    B, c, D = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(3, 5))

    def train_loss(w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        return w @ A @ w / 2 - w @ B @ alpha, None

    def valid_loss(w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.sum((w - c) ** 2) / 2 + alpha @ D @ w + alpha @ alpha, w

    return Quadratic(A, B, c, D, rng.normal(size=5), rng.normal(size=3), Bilevel(train_loss, valid_loss))


class Network(NamedTuple):
    """A mixture of smooth layers, with weights, alpha and batches as nested pytrees."""

    problem: Bilevel
    params: Any
    alpha: Any
    train_batch: Any
    valid_batch: Any


def _loss(stem: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
    def loss(params: Any, alpha: Any, batch: Any) -> tuple[jax.Array, Any]:
        hidden = stem(batch["x"], params["stem"])
        mixing = jnp.tanh(alpha["cell"][0])
        hidden = mixing[0] * jnp.tanh(hidden @ params["layers"][0]) + mixing[1] * hidden
        output = jnp.exp(alpha["cell"][1]) * (hidden @ params["head"]["kernel"])
        return jnp.mean((output - batch["y"]) ** 2), {"batch_stats": hidden.mean(0)}

    return loss


def _network(seed: int, stem: Callable[[jax.Array, jax.Array], jax.Array]) -> Network:
    # Arrays come from numpy: hundreds of small programs less to compile.
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape))

    params = {"stem": normal(4, 5), "layers": [normal(5, 5)], "head": {"kernel": normal(5), "unused": None}}
    alpha = {"cell": (normal(2), 0.3 * normal())}
    batches = [{"x": normal(6, 4), "y": normal(6)} for _ in range(2)]
    loss = _loss(stem)
    return Network(Bilevel(loss, loss), params, alpha, *batches)


def plain_stem(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.tanh(x @ kernel)


@jax.custom_vjp
def custom_stem(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return plain_stem(x, kernel)


def _stem_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    y = plain_stem(x, kernel)
    return y, (x, kernel, y)


def _stem_backward(residuals: tuple[jax.Array, ...], y_bar: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel, y = residuals
    z_bar = y_bar * (1 - y**2)
    return z_bar @ kernel.T, x.T @ z_bar


custom_stem.defvjp(_stem_forward, _stem_backward)


@pytest.fixture
def make_network() -> Callable[..., Network]:
    """seed -> Network, in whatever precision is on."""
    return lambda seed, custom_vjp=False: _network(seed, custom_stem if custom_vjp else plain_stem)


@pytest.fixture
def network(x64: None, make_network: Callable[..., Network]) -> Network:
    return make_network(0)


@pytest.fixture
def custom_vjp_network(x64: None, make_network: Callable[..., Network]) -> Network:
    """The same network; its first layer, which alpha does not reach, brings its own reverse rule."""
    return make_network(0, custom_vjp=True)


@pytest.fixture
def curve(quadratic: Quadratic) -> Network:
    """The quadratic problem with third derivatives, on flat vectors: compiles fast. Batches are scalars."""
    q = quadratic

    def train_loss(w: jax.Array, alpha: jax.Array, batch: jax.Array) -> tuple[jax.Array, None]:
        return w @ q.A @ w / 2 + batch * (jnp.sin(w) ** 2) @ (q.B @ jnp.sin(alpha)), None

    return Network(q.problem._replace(train_loss=train_loss), q.w, q.alpha, np.float64(1.5), None)
