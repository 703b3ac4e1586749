"""Do hyperparameters change inside the state, without a new trace?"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import (
    InnerStep,
    add_beta_decay,
    alpha_optimiser,
    get_hyperparameters,
    set_hyperparameters,
    unrolled,
    weight_optimiser,
)
from jaxdarts.errors import InputError


def test_changing_them_does_not_retrace(curve: Any) -> None:
    n = curve
    optimiser = weight_optimiser(0.1, l2=1e-2)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(state: Any) -> Any:
        inner = InnerStep(optimiser, state)
        return unrolled()(n.problem, inner, n.params, n.alpha, n.train_batch, n.valid_batch)[1].valid_loss

    first = optimiser.init(n.params)
    losses = [float(step(set_hyperparameters(first, **values))) for values in ({}, {"learning_rate": 1}, {"l2": 3.0})]
    assert len({round(loss, 4) for loss in losses}) == 3  # every one had its effect
    assert losses[1] == pytest.approx(float(step(weight_optimiser(1.0, l2=1e-2).init(n.params))), rel=1e-12)


def test_read_back_through_a_chain_and_nesting() -> None:
    optimiser = alpha_optimiser(penalties=[add_beta_decay(2, "edge")])
    nested = optax.inject_hyperparams(lambda scale: optax.chain(optax.scale(scale), optimiser))(scale=0.5)
    state = nested.init(jnp.zeros((3, 2)))
    assert set(get_hyperparameters(state)) == {"scale", "beta_weight", "learning_rate", "l2"}
    changed = set_hyperparameters(state, beta_weight=0.25, l2=np.float64(0.5), scale=-1)
    values = {name: float(value) for name, value in get_hyperparameters(changed).items()}
    assert values == pytest.approx({"scale": -1, "beta_weight": 0.25, "learning_rate": 3e-4, "l2": 0.5})
    chex.assert_trees_all_equal_shapes_and_dtypes(state, changed)
    assert float(get_hyperparameters(state)["l2"]) == pytest.approx(1e-3)  # the old state is as it was
    assert get_hyperparameters(optax.adam(0.1).init(jnp.zeros(2))) == {}


def test_a_population_takes_one_value_or_one_each() -> None:
    optimiser = weight_optimiser(0.1)
    state = jax.vmap(optimiser.init)(jnp.zeros((3, 4)))
    np.testing.assert_allclose(get_hyperparameters(set_hyperparameters(state, l2=0.5))["l2"], [0.5] * 3)
    state = set_hyperparameters(state, learning_rate=jnp.array([1.0, 2.0, 3.0]), l2=0.0)
    updates, _ = jax.vmap(optimiser.update)(jnp.full((3, 4), 0.1), state, jnp.zeros((3, 4)))
    np.testing.assert_allclose(updates[:, 0], [-0.1, -0.2, -0.3], rtol=1e-6)


def test_bad_values() -> None:
    state = weight_optimiser(0.1).init(jnp.zeros(2))
    with pytest.raises(InputError, match="unknown hyperparameter 'lr'; choose from l2, learning_rate"):
        set_hyperparameters(state, lr=0.1)
    with pytest.raises(InputError, match="l2 must be a finite number that is not negative, got -1"):
        set_hyperparameters(state, l2=-1.0)
    with pytest.raises(InputError, match="learning_rate"):
        set_hyperparameters(state, learning_rate=float("nan"))
    with pytest.raises(InputError, match="beta_weight must be .* not negative, got -2"):
        set_hyperparameters(add_beta_decay(1.0).init(jnp.zeros(2)), beta_weight=-2.0)
    with pytest.raises(InputError, match="shape"):
        set_hyperparameters(state, l2=jnp.ones(3))
    scheduled = weight_optimiser(optax.constant_schedule(0.1)).init(jnp.zeros(2))
    with pytest.raises(InputError, match="learning_rate follows a schedule"):
        set_hyperparameters(scheduled, learning_rate=0.2)
