"""Does an optimiser at rest do nothing at all, and go on as if nothing had been?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.bilevel import add_temperature_decay, alpha_optimiser, apply_update, resting, set_hyperparameters

PARAMS = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(3.0)}
GRADIENT = {"a": jnp.asarray([0.5, 0.1]), "b": jnp.asarray(-1.0)}


def test_rest() -> None:
    plain = alpha_optimiser(0.1, l2=0.3, weight_decay=0.2, last=[add_temperature_decay(1.5)])
    optimiser = resting(plain)
    start = optimiser.init(PARAMS)
    params, state = apply_update(optimiser, GRADIENT, set_hyperparameters(start, moves=0, learning_rate=0.2), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, params, PARAMS)
    params, state = apply_update(optimiser, GRADIENT, set_hyperparameters(state, moves=1), params)
    expected, own_state = apply_update(
        plain, GRADIENT, set_hyperparameters(plain.init(PARAMS), learning_rate=0.2), PARAMS
    )
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    params, _ = apply_update(optimiser, GRADIENT, state, params)
    expected, _ = apply_update(plain, GRADIENT, own_state, expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
