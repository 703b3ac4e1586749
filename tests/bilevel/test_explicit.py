"""Are the hypergradients through explicit inner steps the derivatives they claim to be?"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import (
    Bilevel,
    InnerStep,
    finite_difference,
    first_order,
    unrolled,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.errors import InputError

RATE, MOMENTUM, L2 = 0.1, 0.9, 0.05


def warmed_up(optimiser: optax.GradientTransformation, params: Any) -> InnerStep:
    """A state with momentum in it: two updates with arbitrary gradients."""

    @jax.jit
    def update(state: Any, scale: float) -> Any:
        return optimiser.update(jax.tree.map(lambda p: scale * jnp.cos(p + 1), params), state, params)[1]

    return InnerStep(optimiser, update(update(optimiser.init(params), 0.3), -0.7))


def autodiff(n: Any, inner: InnerStep, batches: Any) -> Any:
    """jax.grad through plain steps, one a batch: slow, and obviously right."""

    def outer(alpha: Any) -> jax.Array:
        params, state = n.params, inner.state
        for batch in batches:
            gradient, _ = jax.grad(n.problem.train_loss, has_aux=True)(params, alpha, batch)
            updates, state = inner.update.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return n.problem.valid_loss(params, alpha, n.valid_batch)[0]

    return jax.jit(jax.grad(outer))(n.alpha)


def call(hypergradient: Any, n: Any, inner: InnerStep) -> Any:
    return jax.jit(lambda: hypergradient(n.problem, inner, n.params, n.alpha, n.train_batch, n.valid_batch))()


def test_first_order_on_the_quadratic(quadratic: Any) -> None:
    q = quadratic
    inner = InnerStep(optax.sgd(RATE), optax.sgd(RATE).init(q.w))
    got, info = first_order()(q.problem, inner, q.w, q.alpha, None, None)
    np.testing.assert_allclose(got, q.alpha_gradient(q.w), rtol=1e-12)
    np.testing.assert_allclose(info.valid_loss, q.problem.valid_loss(q.w, q.alpha, None)[0], rtol=1e-12)
    np.testing.assert_array_equal(info.aux, q.w)


@pytest.mark.parametrize("steps", [1, 5])
def test_unrolled_on_the_quadratic(quadratic: Any, steps: int) -> None:
    q = quadratic
    inner = warmed_up(virtual_step_optimiser(RATE, MOMENTUM, L2), q.w)
    w, buffer = q.w, np.asarray(optax.tree.get(inner.state, "trace"))
    dw, dbuffer = np.zeros_like(q.B), np.zeros_like(q.B)
    for _ in range(steps):
        buffer = MOMENTUM * buffer + q.A @ w - q.B @ q.alpha + L2 * w
        dbuffer = MOMENTUM * dbuffer + q.A @ dw - q.B + L2 * dw
        w, dw = w - RATE * buffer, dw - RATE * dbuffer
    got, info = unrolled(steps)(q.problem, inner, q.w, q.alpha, None, None)
    np.testing.assert_allclose(got, q.alpha_gradient(w) + dw.T @ q.weight_gradient(w), rtol=1e-11)
    np.testing.assert_allclose(info.aux, w, rtol=1e-12)  # evaluated after the steps


def test_many_steps_approach_the_gradient_through_the_solution(quadratic: Any) -> None:
    q = quadratic
    solution = np.linalg.solve(q.A, q.B)
    w = solution @ q.alpha
    optimiser = optax.sgd(0.3)
    got, _ = unrolled(300)(q.problem, InnerStep(optimiser, optimiser.init(w)), w, q.alpha, None, None)
    np.testing.assert_allclose(got, q.alpha_gradient(w) + solution.T @ q.weight_gradient(w), rtol=1e-9)


OPTIMISERS = {
    "momentum and L2": lambda: virtual_step_optimiser(RATE, MOMENTUM, L2),
    "clipped": lambda: weight_optimiser(RATE, MOMENTUM, L2, clip_norm=0.1),
    "optax's clip": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(RATE)),
    "Adam": lambda: optax.adam(RATE),
    "injected Adam with a schedule": lambda: optax.inject_hyperparams(optax.adam)(optax.linear_schedule(RATE, 0, 10)),
    "Nesterov": lambda: optax.sgd(RATE, MOMENTUM, nesterov=True),
}


@pytest.mark.parametrize(
    ("name", "steps"), [(name, 1) for name in OPTIMISERS] + [("clipped", 3), ("injected Adam with a schedule", 3)]
)
def test_unrolled_equals_autodiff_through_the_steps(curve: Any, name: str, steps: int) -> None:
    inner = warmed_up(OPTIMISERS[name](), curve.params)
    got, _ = call(unrolled(steps), curve, inner)
    np.testing.assert_allclose(got, autodiff(curve, inner, [curve.train_batch] * steps), rtol=1e-9)


def test_unrolled_equals_autodiff_on_a_network(network: Any) -> None:
    inner = warmed_up(virtual_step_optimiser(RATE, MOMENTUM, L2), network.params)
    got, _ = call(unrolled(2), network, inner)
    chex.assert_trees_all_close(got, autodiff(network, inner, [network.train_batch] * 2), rtol=1e-9)


def test_unrolled_over_stacked_batches(curve: Any) -> None:
    inner = warmed_up(virtual_step_optimiser(RATE, MOMENTUM, L2), curve.params)
    batches = np.array([0.5, 2.0, -1.0])
    got, _ = call(unrolled(3, stacked_batches=True), curve._replace(train_batch=batches), inner)
    np.testing.assert_allclose(got, autodiff(curve, inner, batches), rtol=1e-9)
    got, _ = call(unrolled(1, stacked_batches=True), curve._replace(train_batch=batches[:1]), inner)
    np.testing.assert_allclose(got, autodiff(curve, inner, batches[:1]), rtol=1e-9)
    with pytest.raises(InputError, match="leading axis of 2"):
        call(unrolled(2, stacked_batches=True), curve._replace(train_batch=batches), inner)


def test_the_darts_toy_pair() -> None:
    """Liu et al. 2019, figure 2: (1, 1) with an inner step of 0.5, (2, 2) without."""
    problem = Bilevel(
        lambda w, a, _: (w**2 - 2 * a * w + a**2, None),
        lambda w, a, _: (a * w - 2 * a + 1, None),
    )
    optimiser = optax.sgd(0.5)

    def stationary(hypergradient: Any) -> tuple[float, float]:
        def alternate(carry: Any, _: None) -> Any:
            w, a = carry
            gradient, _ = hypergradient(problem, InnerStep(optimiser, optimiser.init(w)), w, a, None, None)
            a = a - 0.1 * gradient
            return (w - 0.1 * jax.grad(lambda w: problem.train_loss(w, a, None)[0])(w), a), None

        (w, a), _ = jax.lax.scan(alternate, (jnp.float32(-2.0), jnp.float32(2.0)), None, length=400)
        return float(w), float(a)

    assert stationary(unrolled()) == pytest.approx((1, 1), abs=1e-4)
    assert stationary(finite_difference()) == pytest.approx((1, 1), abs=1e-3)
    assert stationary(first_order()) == pytest.approx((2, 2), abs=1e-4)


def test_central_difference_is_of_order_two(curve: Any) -> None:
    inner = warmed_up(virtual_step_optimiser(RATE, MOMENTUM, L2), curve.params)
    exact, _ = call(unrolled(), curve, inner)

    def error(radius: float) -> float:
        got, _ = call(finite_difference(radius), curve, inner)
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, got, exact)))

    errors = [error(radius) for radius in (1e-1, 1e-2, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(100, rel=0.05)


def test_central_difference_is_the_formula_of_the_darts_code(curve: Any) -> None:
    """The lines of quark0/darts cnn/architect.py, in numpy."""
    n, radius = curve, 1e-2
    inner = warmed_up(virtual_step_optimiser(RATE, MOMENTUM, L2), n.params)
    w, buffer = n.params, np.asarray(optax.tree.get(inner.state, "trace"))
    train, valid = (jax.jit(jax.grad(loss, (0, 1), has_aux=True)) for loss in n.problem)
    moved = w - RATE * (MOMENTUM * buffer + train(w, n.alpha, n.train_batch)[0][0] + L2 * w)
    v, alpha_gradient = valid(moved, n.alpha, n.valid_batch)[0]
    R = radius / np.linalg.norm(v)
    above, below = (train(w + sign * R * v, n.alpha, n.train_batch)[0][1] for sign in (1, -1))

    got, info = call(finite_difference(radius), n, inner)
    np.testing.assert_allclose(got, alpha_gradient - RATE * (above - below) / (2 * R), rtol=1e-9)
    np.testing.assert_allclose(info.valid_loss, n.problem.valid_loss(moved, n.alpha, None)[0], rtol=1e-12)


@pytest.mark.parametrize("hypergradient", [finite_difference(), unrolled(), unrolled(2)])
def test_outer_objective_without_weights(quadratic: Any, hypergradient: Any) -> None:
    """A zero direction divides nothing by zero."""
    problem = quadratic.problem._replace(valid_loss=lambda w, a, _: (a @ a, None))
    optimiser = weight_optimiser(RATE)
    inner = InnerStep(optimiser, optimiser.init(quadratic.w))
    got, _ = hypergradient(problem, inner, quadratic.w, quadratic.alpha, None, None)
    np.testing.assert_allclose(got, 2 * quadratic.alpha, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_steps_of_either_momentum(nesterov: bool, x64: None) -> None:
    """Of w^2 / 2 with L2: a heavy ball and Nesterov's form in PyTorch, written out."""
    optimiser = weight_optimiser(0.1, momentum=0.9, l2=0.5, clip_norm=None, nesterov=nesterov)
    w, buffer = jnp.array([2.0, -1.0]), 0.0
    state, expected = optimiser.init(w), np.array([2.0, -1.0])
    for _ in range(2):
        updates, state = optimiser.update(w, state, w)
        w = w + updates
        slope = 1.5 * expected
        buffer = 0.9 * buffer + slope
        expected = expected - 0.1 * (slope + 0.9 * buffer if nesterov else buffer)
        np.testing.assert_allclose(w, expected, rtol=1e-14)


def test_clipping_a_zero_gradient_has_a_derivative(quadratic: Any) -> None:
    optimiser = weight_optimiser(RATE, l2=0.0)
    w = np.linalg.solve(quadratic.A, quadratic.B @ quadratic.alpha)
    zero = quadratic.problem._replace(train_loss=lambda w, a, _: (0.0 * w @ quadratic.B @ a, None))
    got, _ = unrolled()(zero, InnerStep(optimiser, optimiser.init(w)), w, quadratic.alpha, None, None)
    np.testing.assert_allclose(got, quadratic.alpha_gradient(w), rtol=1e-12)


@pytest.mark.parametrize("radius", [0.0, -1e-2, float("nan"), float("inf")])
def test_radius_must_be_positive(radius: float) -> None:
    with pytest.raises(InputError, match="radius"):
        finite_difference(radius)


def test_steps_must_be_positive() -> None:
    with pytest.raises(InputError, match="steps must be at least 1, got 0"):
        unrolled(0)
