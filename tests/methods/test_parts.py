"""Do settings become the parts that they name?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import apply_update
from jaxdarts.methods.parts import virtual_step, weights
from tests.methods.making import settings_of

PARAMS = {"w": jnp.asarray([1.0, -2.0, 3.0])}
GRADIENT = {"w": jnp.asarray([0.3, 0.1, -0.2])}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [False, True])
def test_the_virtual_step_is_the_next_step(nesterov: bool, clip: bool) -> None:
    """With the same momentum; clipped only if asked."""
    settings = settings_of("darts", nesterov=nesterov, clip_virtual_step=clip, clip_norm=0.1)
    state = apply_update(weights(settings), GRADIENT, weights(settings).init(PARAMS), PARAMS)[1]
    settings.clip_norm = 0.1 if clip else None
    expected, _ = apply_update(weights(settings), GRADIENT, state, PARAMS)
    settings.clip_norm = 0.1
    found, _ = apply_update(virtual_step(settings), GRADIENT, state, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
