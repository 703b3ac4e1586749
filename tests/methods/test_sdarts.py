"""Does w learn under the weights that SmoothDARTS moves, and alpha under its own?"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS
from jaxdarts.methods.base import View
from jaxdarts.methods.relaxations import as_given
from jaxdarts.methods.sdarts import RADIUS, attack, moved, project, uniform
from jaxdarts.tasks.base import means
from tests.methods import toy
from tests.methods.making import RAGGED, at_epoch, batches, settings_of, started
from tests.methods.toy import SPACE


def both(rows: list[list[float]]) -> dict[str, jax.Array]:
    return {cell: jnp.asarray(rows) for cell in ("normal", "reduce")}


def test_projection_by_hand() -> None:
    """Clamped, divided by the sum; 1 at the largest where nothing is positive; padding stays 0."""
    found = project(SPACE, both([[0.5, 2.0, 9.0], [-0.2, 0.3, 0.1]]))
    np.testing.assert_allclose(found["normal"], [[1 / 3, 2 / 3, 0], [0, 0.75, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(found["reduce"], [[0.2, 0.4, 0.4], [0, 1, 0]], rtol=1e-6)
    found = project(SPACE, both([[-0.5, -0.25, 9.0], [-1.0, -1.0, -1.0]]))
    np.testing.assert_array_equal(found["normal"], [[0, 1, 0], [1, 0, 0]])


def test_an_attack_on_a_linear_loss() -> None:
    """By signs it goes to the corner of the ball, and the projection comes after the ball."""
    slope = jnp.asarray([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    middle = both([[0.5, 0.5, 0.0], [0.4, 0.3, 0.3]]) | {"reduce": jnp.asarray([[0.2, 0.3, 0.5], [0.75, 0.25, 0.0]])}

    def loss(weights: dict[str, jax.Array]) -> jax.Array:
        return (weights["normal"] * slope).sum()

    nothing = jax.tree.map(jnp.zeros_like, middle)
    found = attack(SPACE, loss, middle, nothing, jnp.asarray(0.1), 2)
    one = np.array([[0.6, 0.4, 0], [0.4, 0.4, 0.2]])
    np.testing.assert_allclose(found.iterates["normal"][0], one, rtol=1e-5)
    np.testing.assert_allclose(found.weights["normal"], one, rtol=1e-5)  # the ball holds the second step
    np.testing.assert_array_equal(found.weights["reduce"], middle["reduce"])  # no gradient, no sign
    np.testing.assert_allclose(found.losses, [0, 0, 0.4, 0.4], atol=1e-6)
    # A start that is better for w than the middle, and no step to leave it by: the attack is undone.
    away = both([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
    found = attack(SPACE, loss, middle, away, jnp.asarray(0.1), 1)
    assert found.losses[-1] > found.losses[1]
    lost = attack(SPACE, lambda w: -jnp.abs(w["normal"][0, :2] - 0.5).sum(), middle, away, jnp.asarray(0.1), 1)
    assert lost.losses[0] > lost.losses[-1]
    np.testing.assert_array_equal(lost.weights["normal"], middle["normal"])


@pytest.mark.parametrize("name", ["sdarts-rs", "sdarts-adv"])
def test_only_the_step_on_w_sees_the_moved_weights(name: str) -> None:
    """The loss of w is that under the moved weights of the new alpha; alpha moves as DARTS' does."""
    method, plain = toy.make(name, temperature_start=2.0), toy.make("darts", temperature_start=2.0)
    state = at_epoch(method, started(method), 9)
    train, valid = batches(3)
    new, totals = method.step(state, train, valid)
    before = dataclasses.replace(state, values={n: v for n, v in state.values.items() if n != RADIUS})
    same, plain_totals = plain.step(before, train, valid)
    jax.tree.map(np.testing.assert_array_equal, (new.alpha, new.alpha_opt_state), (same.alpha, same.alpha_opt_state))
    assert means(totals)["train_loss"] != means(plain_totals)["train_loss"]
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
    weights = method.problem.mean_weights(new.alpha, new.values).operations
    perturbed = moved(SPACE, weights, uniform(SPACE)(key), state.values[RADIUS])
    given = dataclasses.replace(plain.problem, relaxation=as_given())
    loss, _ = given.outer(state.params, perturbed, View(train, state.stats))
    if name == "sdarts-rs":
        np.testing.assert_allclose(means(totals)["train_loss"], loss, rtol=1e-5)
    else:
        assert means(totals)["train_loss"] > means(plain_totals)["train_loss"]  # it is worse for w


def test_noise_is_new_in_every_step_and_within_its_radius() -> None:
    draws = [uniform(RAGGED)(jax.random.key(seed)) for seed in (0, 1)]
    for one, other in zip(draws[0].values(), draws[1].values(), strict=True):
        assert np.abs(one).max() <= 1 and not np.array_equal(one, other)
    method = toy.make("sdarts-rs")
    state = at_epoch(method, started(method), 9)
    train, valid = batches()
    losses = [
        means(method.step(dataclasses.replace(state, step=jnp.int32(step)), train, valid)[1])["train_loss"]
        for step in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_published_settings_and_wrong_ones() -> None:
    """.03 + .27 e / 50: .03 in the first epoch, .2946 in the last, never .3."""
    schedule = toy.make("sdarts-adv", epochs=50).schedules[RADIUS]
    np.testing.assert_allclose([schedule(epoch) for epoch in (0, 25, 49)], [0.03, 0.165, 0.2946])
    assert settings_of("sdarts-adv").attack_steps == 7
    assert settings_of("sdarts-rs", preset="paper", space="nasbench201").epochs == 100
    for wrong in (1.5, -0.1):
        with pytest.raises(InputError, match=f"perturbation_end must be between 0 and 1; got {wrong}"):
            settings_of("sdarts-rs", perturbation_end=wrong)
    with pytest.raises(InputError, match="attack_steps must be at least 1; got 0"):
        settings_of("sdarts-adv", attack_steps=0)
    with pytest.raises(InputError, match="attack_steps 3 is only for method sdarts-adv; got method 'sdarts-rs'"):
        settings_of("sdarts-rs", attack_steps=3)
    assert not METHODS["sdarts-rs"].takes_single_level
