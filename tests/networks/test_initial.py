"""Are parameters made once, and read as they are afterwards?"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from jaxdarts.networks.initial import parameter

CALLS: list[tuple[int, ...]] = []


def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    CALLS.append(shape)
    return jax.random.normal(key, shape, dtype)


class Scaled(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        return x * parameter(self, "scale", init, (self.size,), x.dtype)


def test_a_network_reads_what_it_was_made_with() -> None:
    x = jnp.ones(3)
    CALLS.clear()
    variables = Scaled(3).init(jax.random.key(0), x)
    assert CALLS == [(3,)]
    np.testing.assert_array_equal(Scaled(3).apply(variables, x), variables["params"]["scale"])
    assert CALLS == [(3,)], "not traced again to compare shapes"


def test_wrong_and_missing_parameters_are_told() -> None:
    variables = Scaled(3).init(jax.random.key(0), jnp.ones(3))
    with pytest.raises(ScopeParamShapeError, match="scale"):
        Scaled(2).apply(variables, jnp.ones(2))
    with pytest.raises(ScopeParamNotFoundError, match="scale"):
        Scaled(3).apply({"params": {"other": jnp.ones(3)}}, jnp.ones(3))
