"""How are initial weights drawn without a program that takes longer to compile than the search step?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_CHUNK = 1 << 18


class _Pool:
    """Uniform numbers in (-1, 1), drawn in large chunks from one key and handed out in order."""

    def __init__(self, key: jax.Array) -> None:
        self.key, self.drawn, self.used, self.chunk = key, 0, 0, jnp.zeros((0,))

    def take(self, size: int, dtype: Any) -> jax.Array:
        if self.used + size > self.chunk.size or self.chunk.dtype != dtype:
            length = max(_CHUNK, 1 << (size - 1).bit_length())
            self.chunk = jax.random.uniform(jax.random.fold_in(self.key, self.drawn), (length,), dtype, -1, 1)
            self.drawn, self.used = self.drawn + 1, 0
        self.used += size
        return self.chunk[self.used - size : self.used]


_pool: ContextVar[_Pool | None] = ContextVar("pool", default=None)


@contextmanager
def one_pool(key: jax.Array) -> Iterator[None]:
    """Inside, `uniform_initializer` takes its numbers from one pool instead of from each parameter's own key.

    A generator for each of some hundred parameters compiles in seconds to minutes, and runs once.
    """
    token = _pool.set(_Pool(key))
    try:
        yield
    finally:
        _pool.reset(token)


def uniform_initializer(fan_in: int) -> Callable[..., jax.Array]:
    """PyTorch's default for convolutions and linear layers: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        pool = _pool.get()
        if pool is None:
            return bound * jax.random.uniform(key, shape, dtype, -1, 1)
        return bound * pool.take(math.prod(shape), dtype).reshape(shape)

    return init


def parameter(module: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...], dtype: Any) -> Any:
    """`module.param(name, init, shape, dtype)` in a network that has its parameters, without tracing `init`.

    Flax traces it for every parameter only to compare shapes, which takes longer than to trace the network.
    """
    found: Any = None if module.is_initializing() else module.get_variable("params", name)
    return found if found is not None and found.shape == shape else module.param(name, init, shape, dtype)
