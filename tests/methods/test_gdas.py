"""Is GDAS' sample one operation an edge, and does alpha learn through it in the way that the name says?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import value_and_gradients
from jaxdarts.errors import InputError
from jaxdarts.methods import View
from jaxdarts.methods.base import relaxation_and_network_keys
from jaxdarts.methods.darts import step_keys
from jaxdarts.methods.gdas import GRADIENTS, GdasSettings, gumbel, straight_through
from jaxdarts.methods.relaxations import softmax
from jaxdarts.methods.sampling import soft_sample
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import NASBENCH201
from tests.methods.making import RAGGED, SPACE, batches, make, started

KEY = jax.random.key(0)
ALPHA = {"normal": jnp.asarray([[0.0, 0.7, 9.0], [0.2, -1.0, 1.5]]), "reduce": jnp.asarray([[1.0, 0.3], [0.0, 5.0]])}


def test_a_sample_is_one_candidate_of_every_edge() -> None:
    """Ones and zeros to the bit at any temperature, never an entry that pads a list; other keys, other samples."""
    relaxation = gumbel(RAGGED, softmax(RAGGED), "dense")
    seen = set()
    for seed in range(30):
        values = {"gdas_temperature": jnp.float32(0.01 + seed)}
        weights = relaxation.sample(ALPHA, values, jax.random.key(seed)).operations
        for cell in RAGGED.cell_types:
            np.testing.assert_array_equal(np.sort(weights[cell], axis=-1)[:, -1], 1)
            np.testing.assert_array_equal(weights[cell].sum(axis=-1), 1)
            assert not np.asarray(weights[cell])[~RAGGED.mask(cell)].any()
        seen.add(tuple(np.concatenate([np.ravel(weights[cell]) for cell in RAGGED.cell_types])))
    assert len(seen) > 3


def test_operations_are_sampled_as_often_as_their_softmax_says() -> None:
    """The Gumbel-max trick, at any temperature."""
    relaxation = gumbel(SPACE, softmax(SPACE), "dense")
    alpha = {cell: jnp.asarray([[0.0, 1.0, -1.0]] * 2) for cell in SPACE.cell_types}
    draw = lambda key: relaxation.sample(alpha, {"gdas_temperature": jnp.float32(7)}, key).operations  # noqa: E731
    often = jax.tree.map(lambda leaf: leaf.mean(axis=0), jax.vmap(draw)(jax.random.split(KEY, 4000)))
    for cell in SPACE.cell_types:
        np.testing.assert_allclose(often[cell], jax.nn.softmax(alpha[cell]), atol=0.03)


@pytest.mark.parametrize("form", GRADIENTS)
def test_gradient_forms(form: str) -> None:
    """By hand: p = softmax((log softmax(alpha) + noise) / tau), d p_i / d alpha_k = p_i (delta_ik - p_k) / tau."""
    alpha, tau, noise = np.array([0.3, -0.2, 0.9]), 2.5, np.array([0.1, 1.2, -0.4])
    cells = SPACE.cell_types
    rows = {cell: jnp.asarray([alpha] * 2) for cell in cells}
    relaxation = gumbel(SPACE, softmax(SPACE), form, lambda key: {cell: jnp.asarray([noise] * 2) for cell in cells})
    given = lambda a: relaxation.sample(a, {"gdas_temperature": jnp.float32(tau)}, KEY)  # noqa: E731
    weights, pull = jax.vjp(given, rows)
    g, c = np.array([2.0, -3.0, 5.0]), 7.0  # of the loss in each operation's weight, and in an edge's constant
    slope = jax.tree.map(lambda leaf: jnp.asarray(np.broadcast_to(g if leaf.ndim == 2 else c, leaf.shape)), weights)
    found = pull(jax.tree.map(lambda s, w: s.astype(w.dtype), slope, weights))[0]
    p = np.exp((alpha + noise) / tau) / np.exp((alpha + noise) / tau).sum()
    chosen = np.arange(3) == p.argmax()
    received = {"dense": g, "selected": g * chosen, "published": np.where(chosen, g, c)}[form]
    expected = p * (received - (p * received).sum()) / tau
    for cell in cells:
        np.testing.assert_allclose(found[cell], [expected] * 2, rtol=1e-5)
        np.testing.assert_array_equal(weights.operations[cell], [chosen] * 2)
        if form == "published":
            np.testing.assert_array_equal(weights.constants[cell], [0, 0])
        else:
            assert weights.constants is None


def test_padded_entries_have_no_gradient() -> None:
    relaxation = gumbel(RAGGED, softmax(RAGGED), "published")
    total = lambda a: sum(  # noqa: E731
        (leaf * jnp.arange(leaf.size).reshape(leaf.shape)).sum()
        for leaf in jax.tree.leaves(relaxation.sample(a, {"gdas_temperature": jnp.float32(3)}, KEY))
    )
    for slope in (jax.grad(total)(ALPHA), jax.jvp(jax.grad(total), (ALPHA,), (ALPHA,))[1]):
        for cell in RAGGED.cell_types:
            assert np.isfinite(slope[cell]).all()
            assert not np.asarray(slope[cell])[~RAGGED.mask(cell)].any()


def test_every_form_has_the_same_loss_and_gradient_in_w() -> None:
    """Both steps of a step draw for themselves, and one sample serves all cells."""
    train, valid = batches()
    found = {}
    for form in GRADIENTS:
        method = make("gdas", gdas_gradient=form)
        state = started(method)
        view = View(train, state.stats, (), state.values, KEY)
        (value, _), slopes = value_and_gradients(method.problem.outer, state.params, state.alpha, view)
        found[form] = (value, slopes)
    leaves = {form: jax.tree.leaves((value, slopes[0])) for form, (value, slopes) in found.items()}
    for form in ("selected", "dense"):
        for a, b in zip(leaves["published"], leaves[form], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    alphas = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(slopes[1])]) for _, slopes in found.values()]
    assert all(np.abs(alphas[i] - alphas[j]).max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_w_steps_first_and_each_step_draws_anew() -> None:
    """Alpha's gradient is taken at the new weights; the keys of the two samples differ."""
    drawn: list[Any] = []
    method = make("gdas")
    relaxation = method.problem.relaxation
    spy = lambda alpha, values, key: drawn.append(key) or relaxation.sample(alpha, values, key)  # noqa: E731
    problem = dataclasses.replace(method.problem, relaxation=relaxation._replace(sample=spy))
    state = started(method)
    train, valid = batches()
    new, totals = jax.jit(method.step)(state, train, valid)
    keys = step_keys(state.key, state.step)
    views = [View(batch, state.stats, (), state.values, key) for batch, key in zip((train, valid), keys, strict=True)]
    before, after = (problem.outer(params, state.alpha, views[1])[0] for params in (state.params, new.params))
    np.testing.assert_allclose(totals["alpha_loss"][0], after, rtol=1e-5)
    assert abs(after - before) > 1e-4
    np.testing.assert_allclose(
        totals["train_loss"][0], problem.inner(state.params, state.alpha, views[0])[0], rtol=1e-5
    )
    own = [jax.random.key_data(relaxation_and_network_keys(key)[0]) for key in (keys[1], keys[1], keys[0])]
    np.testing.assert_array_equal([jax.random.key_data(key) for key in drawn], own)
    assert not np.array_equal(own[0], own[2])


def test_the_mean_is_darts_softmax() -> None:
    """What is measured and discretised has no noise in it."""
    relaxation, plain = gumbel(RAGGED, softmax(RAGGED)), softmax(RAGGED)
    values = {"gdas_temperature": jnp.float32(0.1), "temperature": jnp.float32(2)}
    jax.tree.map(np.testing.assert_array_equal, relaxation.mean(ALPHA, values), plain.mean(ALPHA, values))
    jax.tree.map(np.testing.assert_array_equal, relaxation.init(KEY), plain.init(KEY))


def test_temperature_falls_from_10_to_a_tenth() -> None:
    schedule = make("gdas", epochs=250).schedules["gdas_temperature"]
    assert [schedule(0), schedule(249)] == pytest.approx([10, 0.1])
    assert schedule(1) == pytest.approx(10 - 9.9 / 249)
    assert make("gdas", epochs=1).schedules["gdas_temperature"](0) == 10


def test_auto_is_what_the_authors_do_in_the_space() -> None:
    found = []
    for space in (NASBENCH201, SPACE):
        relaxation = make("gdas", space, cells=3).problem.relaxation
        alpha = relaxation.init(KEY)
        found.append(relaxation.sample(alpha, {"gdas_temperature": jnp.float32(1)}, KEY).constants is not None)
    assert found == [True, False]


def test_straight_through_has_the_softmax_gradient() -> None:
    noise = {cell: jnp.ones_like(value) for cell, value in ALPHA.items()}
    soft = lambda a: soft_sample(RAGGED, a, noise, jnp.float32(2))  # noqa: E731
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.jacobian(lambda a: straight_through(soft(a))[0])(ALPHA),
        jax.jacobian(soft)(ALPHA),
    )


def test_published_settings_and_wrong_ones() -> None:
    settings = SearchConfig(method="gdas", preset="paper")
    assert (settings.hypergradient, settings.nesterov, settings.l2) == ("first_order", True, 5e-4)
    assert (settings.epochs, settings.batch_size, settings.cells) == (250, 256, 6)
    settings = SearchConfig(method="gdas", preset="paper", space="nasbench201")
    assert (settings.epochs, settings.batch_size, settings.cells) == (250, 64, 5)
    with pytest.raises(InputError, match="gdas_temperature_end must be greater than 0; got 0"):
        GdasSettings(gdas_temperature_end=0)
    with pytest.raises(InputError, match="unknown gdas_gradient 'dens'; choose from auto, dense, published, selected"):
        GdasSettings(gdas_gradient="dens")
