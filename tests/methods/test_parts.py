"""Do settings become the parts that they name?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import apply_update, weight_optimiser
from jaxdarts.methods.parts import virtual_step, weights
from tests.methods.making import settings_of

PARAMS = {"w": jnp.asarray([1.0, -2.0, 3.0])}
GRADIENT = {"w": jnp.asarray([0.3, 0.1, -0.2])}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_the_virtual_step_is_the_next_step(nesterov: bool, clip: bool) -> None:
    """With the same momentum; clipped only if asked."""
    settings = settings_of("darts", hypergradient="unrolled", nesterov=nesterov, clip_virtual_step=clip, clip_norm=0.1)
    state = apply_update(weights(settings), GRADIENT, weights(settings).init(PARAMS), PARAMS)[1]
    next_step = weight_optimiser(0.025, 0.9, 3e-4, 0.1 if clip else None, nesterov=nesterov)
    expected, _ = apply_update(next_step, GRADIENT, state, PARAMS)
    found, _ = apply_update(virtual_step(settings), GRADIENT, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
