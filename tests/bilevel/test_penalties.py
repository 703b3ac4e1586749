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
    add_beta_decay,
    add_penalty,
    alpha_optimiser,
    beta_decay_penalty,
    clip_by_global_norm,
    get_hyperparameters,
    set_hyperparameters,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.errors import InputError


@pytest.fixture
def alpha(x64: None) -> Any:
    rng = np.random.default_rng(1)
    return {"normal": jnp.asarray(rng.normal(size=(5, 4))), "reduce": jnp.asarray(rng.normal(size=(3, 2)))}


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
        (
            alpha_optimiser(l2=0.0, weight_decay=50.0),
            lambda w: torch.optim.AdamW(w, 3e-4, (0.5, 0.999), weight_decay=50.0),
        ),
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


def test_decoupled_weight_decay_shrinks_alpha_whatever_the_gradient(alpha: Any) -> None:
    gradients = [jax.tree.map(np.sin, alpha)]
    plain, decayed = (run(alpha_optimiser(0.1, weight_decay=decay), alpha, gradients) for decay in (None, 0.5))
    chex.assert_trees_all_close(decayed, jax.tree.map(lambda p, a: p - 0.1 * 0.5 * a, plain, alpha), rtol=1e-12)
    state = alpha_optimiser(weight_decay=0.5).init(alpha)
    assert float(get_hyperparameters(set_hyperparameters(state, weight_decay=2.0))["weight_decay"]) == 2


def test_penalties_come_before_l2_and_adam(alpha: Any) -> None:
    gradient = jax.tree.map(np.sin, alpha)
    penalised = jax.tree.map(lambda g, s: g + 0.7 * np.asarray(s), gradient, jax.grad(beta_decay_penalty)(alpha))
    got = run(alpha_optimiser(penalties=[add_beta_decay(0.7)]), alpha, [gradient])
    chex.assert_trees_all_close(got, run(alpha_optimiser(), alpha, [penalised]), rtol=1e-12)
    scales = alpha_optimiser(penalties=[optax.scale(0.0)], l2=0.0)  # a penalty sees the gradient before L2 does
    chex.assert_trees_all_close(run(scales, alpha, [gradient]), alpha)


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
        (lambda: alpha_optimiser(weight_decay=-0.1), "weight_decay"),
    ],
)
def test_arguments_out_of_range(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_a_penalty_needs_the_parameters() -> None:
    transformation = add_penalty(lambda a: (a**2).sum(), 1.0)
    with pytest.raises(InputError, match="needs the parameters"):
        transformation.update(jnp.zeros(2), transformation.init(jnp.zeros(2)))
