"""Is Beta-Decay the gradient of its penalty, with every hypergradient, and does a step do what its factor says?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import (
    BETA_DECAY_PENALTIES,
    HYPERGRADIENTS,
    InnerStep,
    add_beta_decay,
    beta_decay_factor,
    beta_decay_penalty,
    set_hyperparameters,
    weight_optimiser,
)
from jaxdarts.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden" / "beta_decay.json"


@pytest.fixture
def alpha(x64: None) -> Any:
    rng = np.random.default_rng(1)
    return {"normal": jnp.asarray(rng.normal(size=(5, 4))), "reduce": jnp.asarray(rng.normal(size=(3, 2)))}


def slope_of(variant: str, alpha: Any, mask: Any = None) -> Any:
    return jax.jit(jax.grad(lambda a: beta_decay_penalty(a, variant, mask)))(alpha)


@pytest.mark.parametrize("variant", BETA_DECAY_PENALTIES)
def test_beta_decay_adds_the_gradient_of_its_penalty(alpha: Any, variant: str) -> None:
    transformation = add_beta_decay(3.0, variant)
    gradient = jax.tree.map(np.cos, alpha)
    got, _ = jax.jit(transformation.update)(gradient, transformation.init(alpha), alpha)
    expected = jax.tree.map(lambda g, s: g + 3 * np.asarray(s), gradient, slope_of(variant, alpha))
    chex.assert_trees_all_close(got, expected, rtol=1e-12)


def test_beta_decay_by_its_formulas(alpha: Any) -> None:
    rows = [np.asarray(row) for leaf in alpha.values() for row in leaf]
    entries = np.concatenate(rows)
    expected = {
        "edge": np.mean([np.log(np.exp(row).sum()) for row in rows]),
        "global": np.log(np.exp(entries).sum()),
        "zero": np.mean(np.log(1 + np.exp(entries))),
    }
    assert {v: float(beta_decay_penalty(alpha, v)) for v in BETA_DECAY_PENALTIES} == pytest.approx(expected, rel=1e-12)
    slopes = {v: slope_of(v, alpha)["normal"] for v in BETA_DECAY_PENALTIES}
    a = np.asarray(alpha["normal"])
    np.testing.assert_allclose(slopes["edge"], np.exp(a) / np.exp(a).sum(-1, keepdims=True) / 8, rtol=1e-12)
    np.testing.assert_allclose(slopes["global"], np.exp(a) / np.exp(entries).sum(), rtol=1e-12)
    np.testing.assert_allclose(slopes["zero"], 1 / (1 + np.exp(-a)) / 26, rtol=1e-12)


def test_the_references_loss_and_gradient(x64: None) -> None:
    golden = json.loads(GOLDEN.read_text())
    loss, slope = jax.value_and_grad(beta_decay_penalty)(jnp.asarray(golden["alpha"]))
    np.testing.assert_allclose(loss, golden["beta_loss"], rtol=1e-14)
    np.testing.assert_allclose(slope, golden["beta_grad"], rtol=1e-14)


@pytest.mark.parametrize("variant", BETA_DECAY_PENALTIES)
def test_entries_that_pad_an_edge_do_not_count(alpha: Any, variant: str) -> None:
    """Two edges with three and four candidates: as if the lists had their lengths, each on its own."""
    wide = jnp.pad(alpha["normal"][:2], ((0, 0), (0, 1)), constant_values=70.0).at[0, 3].set(-7.0)
    mask = np.array([[True] * 3 + [False] * 2, [True] * 4 + [False]])
    lists = [alpha["normal"][:1, :3], alpha["normal"][1:2]]
    np.testing.assert_allclose(beta_decay_penalty(wide, variant, mask), beta_decay_penalty(lists, variant), rtol=1e-12)
    slope, expected = slope_of(variant, wide, mask), slope_of(variant, lists)
    np.testing.assert_allclose(slope[mask], np.concatenate([np.ravel(leaf) for leaf in expected]), rtol=1e-12)
    assert not np.asarray(slope)[~mask].any()
    factor = beta_decay_factor(wide, 0.5, variant, mask)
    assert (np.asarray(factor)[~mask] == 1).all()
    np.testing.assert_allclose(factor[0, :3], beta_decay_factor(lists, 0.5, variant)[0][0], rtol=1e-12)


@pytest.mark.parametrize("name", HYPERGRADIENTS)
def test_it_is_a_term_of_the_outer_objective_of_every_hypergradient(curve: Any, name: str) -> None:
    """A hypergradient of `valid_loss + 0.7 penalty` is that of `valid_loss`, and Beta-Decay's part."""
    n, optimiser = curve, weight_optimiser(0.1, l2=1e-2)

    def gradient_of(valid_loss: Any) -> Any:
        problem = n.problem._replace(valid_loss=valid_loss)
        inner = InnerStep(optimiser, optimiser.init(n.params))
        return HYPERGRADIENTS[name]()(problem, inner, n.params, n.alpha, n.train_batch, n.valid_batch)[0]

    def penalised(variant: str) -> Any:
        def loss(params: Any, alpha: Any, batch: Any) -> Any:
            value, aux = n.problem.valid_loss(params, alpha, batch)
            return value + 0.7 * beta_decay_penalty(alpha, variant), aux

        return gradient_of(loss)

    def added(variant: str, gradient: Any) -> Any:
        transformation = add_beta_decay(0.7, variant)
        return transformation.update(gradient, transformation.init(n.alpha), n.alpha)[0]

    plain = gradient_of(n.problem.valid_loss)
    for variant in BETA_DECAY_PENALTIES:
        # finite_difference divides rounding errors by its radius.
        tolerance = 1e-9 if name == "finite_difference" else 1e-12
        np.testing.assert_allclose(added(variant, plain), penalised(variant), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("variant", BETA_DECAY_PENALTIES)
def test_the_factor_is_what_a_step_does_to_the_strengths(alpha: Any, variant: str) -> None:
    """Ye et al. 2022: the strengths after a step with Beta-Decay are theta times those after a step without.

    Exactly if there is no other gradient; else up to the square of the step's size.
    """
    alpha, gradient, weight = alpha["normal"], jnp.sin(7 * alpha["normal"]), 20.0

    def strengths(gradient: Any, size: float, weight: float) -> np.ndarray:
        chain = optax.chain(add_beta_decay(weight, variant), optax.sgd(size))
        updates, _ = chain.update(gradient, chain.init(alpha), alpha)
        return np.asarray(jax.nn.softmax(optax.apply_updates(alpha, updates), axis=-1))

    still = jnp.zeros_like(alpha)
    alone = strengths(still, 0.1, weight)
    np.testing.assert_allclose(
        alone, beta_decay_factor(alpha, 0.1 * weight, variant) * strengths(still, 0.1, 0.0), rtol=1e-12
    )

    def error(size: float) -> float:
        theta = np.asarray(beta_decay_factor(alpha, size * weight, variant))
        with_decay, without = strengths(gradient, size, weight), strengths(gradient, size, 0.0)
        change = np.abs(with_decay - without).max()
        difference = np.abs(with_decay - theta * without).max()
        assert difference < 0.1 * change  # the factor explains what Beta-Decay does
        return float(difference)

    sizes = (1e-3, 5e-4, 2.5e-4)
    errors = [error(size) for size in sizes]
    assert errors[0] > 1e-9  # not exact
    orders = [np.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    np.testing.assert_allclose(orders, 2, atol=0.05)


@pytest.mark.parametrize("variant", BETA_DECAY_PENALTIES)
def test_the_strongest_operation_loses_most(alpha: Any, variant: str) -> None:
    theta = np.asarray(beta_decay_factor(alpha, 5.0, variant)["normal"])
    order = np.argsort(np.asarray(alpha["normal"]), axis=-1)
    assert (np.diff(np.take_along_axis(theta, order, axis=-1)) < 0).all()
    assert (theta.min(-1) < 1).all() and (theta.max(-1) > 1).all()


def test_weight_by_schedule_and_from_the_state(alpha: Any) -> None:
    zero = jax.tree.map(np.zeros_like, alpha)
    slope = jax.tree.map(np.asarray, slope_of("edge", alpha))
    scheduled = add_beta_decay(optax.linear_schedule(0.0, 50.0, 100))
    state = scheduled.init(alpha)
    for count in range(3):
        got, state = scheduled.update(zero, state, alpha)
        chex.assert_trees_all_close(got, jax.tree.map(lambda s, c=count: 0.5 * c * s, slope), rtol=1e-6)
    constant = add_beta_decay(1)
    got, _ = constant.update(zero, set_hyperparameters(constant.init(alpha), beta_weight=2.5), alpha)
    chex.assert_trees_all_close(got, jax.tree.map(lambda s: 2.5 * s, slope), rtol=1e-12)


def test_large_entries_do_not_overflow() -> None:
    huge = {"normal": jnp.full((2, 3), 500.0), "reduce": jnp.full((2, 3), -500.0)}
    all_of_them = jax.jit(lambda: [jax.value_and_grad(beta_decay_penalty)(huge, v) for v in BETA_DECAY_PENALTIES])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(all_of_them()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: add_beta_decay(1.0, "edges"), r"unknown variant 'edges'; choose from edge, .*did you mean 'edge'"),
        (lambda: beta_decay_penalty(jnp.zeros((2, 2)), "all"), "unknown variant 'all'"),
        (lambda: beta_decay_factor(jnp.zeros((2, 2)), 0.1, "all"), "unknown variant 'all'"),
        (lambda: add_beta_decay(-1.0), "beta_weight must be a finite number that is not negative, got -1.0"),
        (lambda: add_beta_decay(float("nan")), "beta_weight"),
    ],
)
def test_arguments_out_of_range(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_it_needs_the_parameters() -> None:
    transformation = add_beta_decay(1.0)
    with pytest.raises(InputError, match="needs the parameters"):
        transformation.update(jnp.zeros(2), transformation.init(jnp.zeros(2)))


def test_only_a_part_of_alpha_is_penalised() -> None:
    alpha = {"normal": jnp.asarray([[0.0, jnp.log(3.0)]]), "edges": {"normal": jnp.asarray([5.0])}}
    decay = add_beta_decay(2.0, part=lambda alpha: {"normal": alpha["normal"]})
    updates, _ = decay.update(jax.tree.map(jnp.zeros_like, alpha), decay.init(alpha), alpha)
    np.testing.assert_allclose(updates["normal"], [[0.5, 1.5]], rtol=1e-6)
    np.testing.assert_array_equal(updates["edges"]["normal"], [0])
