"""Do the optimisers follow PyTorch's rules, and do the penalties add their own gradients?"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import (
    BETA_DECAY_PENALTIES,
    add_beta_decay,
    add_penalty,
    alpha_optimiser,
    beta_decay_penalty,
    clip_by_global_norm,
    set_hyperparameters,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.errors import InputError


@pytest.fixture
def alpha(x64: None) -> Any:
    rng = np.random.default_rng(1)
    return {"normal": jnp.asarray(rng.normal(size=(5, 4))), "reduce": jnp.asarray(rng.normal(size=(3, 2)))}


def slope_of(variant: str, alpha: Any) -> Any:
    return jax.jit(jax.grad(lambda a: beta_decay_penalty(a, variant)))(alpha)


def run(optimiser: optax.GradientTransformation, params: Any, gradients: list[Any]) -> Any:
    @jax.jit
    def step(params: Any, state: Any, gradient: Any) -> Any:
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for gradient in gradients:
        params, state = step(params, state, gradient)
    return params


@pytest.mark.parametrize("clip_norm", [5.0, None])
def test_weight_optimiser_follows_pytorch(x64: None, clip_norm: float | None) -> None:
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=4)}
    # Norms on both sides of 5.
    gradients = [{key: size * rng.normal(size=leaf.shape) for key, leaf in start.items()} for size in (0.1, 9, 1, 30)]
    w = {key: leaf.copy() for key, leaf in start.items()}
    buffer = {key: np.zeros_like(leaf) for key, leaf in start.items()}
    clipped = []
    for gradient in gradients:
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        coefficient = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
        clipped.append(coefficient < 1)
        for key in w:
            buffer[key] = 0.9 * buffer[key] + (coefficient * gradient[key] + 3e-4 * w[key])
            w[key] = w[key] - 0.025 * buffer[key]
    assert clipped == ([False] * 4 if clip_norm is None else [False, True, False, True])
    chex.assert_trees_all_close(run(weight_optimiser(0.025, clip_norm=clip_norm), start, gradients), w, rtol=1e-12)


def test_virtual_step_takes_the_weight_optimisers_state(x64: None) -> None:
    params, gradient = jnp.array([1.0, -2.0]), jnp.array([30.0, 40.0])
    optimiser = weight_optimiser(0.025, momentum=0.5, l2=0.1)
    _, state = optimiser.update(gradient, optimiser.init(params), params)
    virtual = virtual_step_optimiser(1.0, momentum=0.5, l2=7.0)
    chex.assert_trees_all_equal_structs(state, virtual.init(params))
    updates, _ = virtual.update(gradient, set_hyperparameters(state, l2=0.2), params)
    buffer = gradient * 5 / (50 + 1e-6) + 0.1 * params
    # The learning rate and L2 come from the state; the gradient of norm 50 is not clipped.
    np.testing.assert_allclose(updates, -0.025 * (0.5 * buffer + gradient + 0.2 * params), rtol=1e-12)


def test_alpha_optimiser_follows_pytorch(alpha: Any) -> None:
    a = np.asarray(alpha["normal"])
    rng = np.random.default_rng(2)
    gradients = [scale * rng.normal(size=a.shape) for scale in (1.0, 1e-7, 0.1, 3.0)]
    expected, m, s = a.copy(), np.zeros_like(a), np.zeros_like(a)
    for t, gradient in enumerate(gradients, start=1):
        g = gradient + 1e-3 * expected
        m = 0.5 * m + 0.5 * g
        s = 0.999 * s + 0.001 * g**2
        denominator = np.sqrt(s) / np.sqrt(1 - 0.999**t) + 1e-8
        expected = expected - 3e-4 / (1 - 0.5**t) * m / denominator
    # optax raises the decay rates to the count in float32.
    np.testing.assert_allclose(run(alpha_optimiser(), jnp.asarray(a), gradients), expected, rtol=1e-7)


def test_optimisers_agree_with_pytorch_itself() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 4, 3)).astype(np.float32)
    for ours, theirs in (
        (alpha_optimiser(), lambda w: torch.optim.Adam(w, 3e-4, (0.5, 0.999), weight_decay=1e-3)),
        (weight_optimiser(0.025, clip_norm=2.0), lambda w: torch.optim.SGD(w, 0.025, 0.9, weight_decay=3e-4)),
    ):
        w = torch.nn.Parameter(torch.tensor(start))
        optimiser = theirs([w])
        for gradient in gradients:
            w.grad = torch.tensor(gradient)
            if isinstance(optimiser, torch.optim.SGD):
                torch.nn.utils.clip_grad_norm_([w], 2.0)
            optimiser.step()
        np.testing.assert_allclose(run(ours, jnp.asarray(start), list(gradients)), w.detach().numpy(), rtol=2e-6)


def test_penalties_come_before_l2_and_adam(alpha: Any) -> None:
    gradient = jax.tree.map(np.sin, alpha)
    penalised = jax.tree.map(lambda g, s: g + 0.7 * np.asarray(s), gradient, slope_of("edge", alpha))
    got = run(alpha_optimiser(penalties=[add_beta_decay(0.7)]), alpha, [gradient])
    chex.assert_trees_all_close(got, run(alpha_optimiser(), alpha, [penalised]), rtol=1e-12)
    scales = alpha_optimiser(penalties=[optax.scale(0.0)], l2=0.0)  # a penalty sees the gradient before L2 does
    chex.assert_trees_all_close(run(scales, alpha, [gradient]), alpha)


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


def test_penalty_weight_by_schedule_and_from_the_state(alpha: Any) -> None:
    zero = jax.tree.map(np.zeros_like, alpha)
    slope = jax.tree.map(np.asarray, slope_of("edge", alpha))
    scheduled = add_beta_decay(optax.linear_schedule(0.0, 50.0, 100))
    state = scheduled.init(alpha)
    for count in range(3):
        got, state = scheduled.update(zero, state, alpha)
        chex.assert_trees_all_close(got, jax.tree.map(lambda s, c=count: 0.5 * c * s, slope), rtol=1e-6)
    constant = add_beta_decay(1)
    got, _ = constant.update(zero, set_hyperparameters(constant.init(alpha), penalty_weight=2.5), alpha)
    chex.assert_trees_all_close(got, jax.tree.map(lambda s: 2.5 * s, slope), rtol=1e-12)


def test_large_entries_do_not_overflow() -> None:
    huge = {"normal": jnp.full((2, 3), 500.0), "reduce": jnp.full((2, 3), -500.0)}
    all_of_them = jax.jit(lambda: [jax.value_and_grad(beta_decay_penalty)(huge, v) for v in BETA_DECAY_PENALTIES])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(all_of_them()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: weight_optimiser(-0.1), "learning_rate must be a finite number that is not negative, got -0.1"),
        (lambda: weight_optimiser(0.1, l2=-1e-4), "l2"),
        (lambda: weight_optimiser(0.1, momentum=1.0), "momentum"),
        (lambda: weight_optimiser(0.1, clip_norm=0.0), "clip_norm"),
        (lambda: virtual_step_optimiser(float("inf")), "learning_rate"),
        (lambda: alpha_optimiser(-1.0), "learning_rate"),
        (lambda: alpha_optimiser(l2=float("nan")), "l2"),
        (lambda: alpha_optimiser(b2=1.0), "b2"),
        (lambda: alpha_optimiser(eps=-1e-8), "eps"),
        (lambda: clip_by_global_norm(-5.0), "clip_norm"),
        (lambda: add_beta_decay(1.0, "edges"), r"unknown variant 'edges'; choose from edge, .*did you mean 'edge'"),
        (lambda: beta_decay_penalty(jnp.zeros((2, 2)), "all"), "unknown variant 'all'"),
    ],
)
def test_arguments_out_of_range(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_a_penalty_needs_the_parameters() -> None:
    transformation = add_penalty(lambda a: (a**2).sum(), 1.0)
    with pytest.raises(InputError, match="needs the parameters"):
        transformation.update(jnp.zeros(2), transformation.init(jnp.zeros(2)))
