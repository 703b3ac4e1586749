"""Is alpha divided after its update, and is a constant temperature weight decay?"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import add_temperature_decay, alpha_optimiser, set_hyperparameters
from jaxdarts.errors import InputError

ALPHA, GRADIENT = jnp.array([[1.0, -2.0, 0.5]]), jnp.array([[0.3, 0.2, -0.1]])


def step(optimiser: optax.GradientTransformation, **values: float) -> Any:
    state = set_hyperparameters(optimiser.init(ALPHA), **values)
    return optax.apply_updates(ALPHA, optimiser.update(GRADIENT, state, ALPHA)[0])


def test_the_update_as_written() -> None:
    """alpha = (alpha - eta g) / T, from the state's own temperature."""
    optimiser = optax.chain(optax.sgd(0.5), add_temperature_decay(1.25))
    np.testing.assert_allclose(step(optimiser), (ALPHA - 0.5 * GRADIENT) / 1.25, rtol=1e-6)
    np.testing.assert_allclose(step(optimiser, temperature=4.0), (ALPHA - 0.5 * GRADIENT) / 4, rtol=1e-6)


def test_after_adam_it_divides_what_adam_gives() -> None:
    plain, divided = alpha_optimiser(0.1), alpha_optimiser(0.1, last=[add_temperature_decay(2)])
    np.testing.assert_allclose(step(divided), step(plain) / 2, rtol=1e-6)


def test_a_constant_temperature_is_decoupled_weight_decay() -> None:
    """Of rate (1 - 1/T) a step, with a learning rate smaller by T."""
    divided = optax.chain(optax.sgd(0.5), add_temperature_decay(1.25))
    decay = optax.chain(optax.sgd(0.5 / 1.25), optax.add_decayed_weights(-(1 - 1 / 1.25)))
    np.testing.assert_allclose(step(divided), step(decay), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_below_one_are_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature must be a finite number of at least 1; got "):
        add_temperature_decay(temperature)


def test_it_needs_the_parameters() -> None:
    transformation = add_temperature_decay(2.0)
    with pytest.raises(InputError, match="needs the parameters"):
        transformation.update(GRADIENT, transformation.init(ALPHA))
