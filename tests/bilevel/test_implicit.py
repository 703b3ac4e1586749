"""Do the implicit hypergradients solve the system they claim to solve?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import InnerStep, conjugate_gradient, neumann, weight_optimiser
from jaxdarts.errors import InputError

RATE, L2, DAMPING = 0.2, 0.05, 0.3


def call(hypergradient: Any, q: Any, w: Any = None, optimiser: Any = None) -> np.ndarray:
    optimiser = weight_optimiser(RATE, l2=L2) if optimiser is None else optimiser
    w = q.w if w is None else w
    got, info = jax.jit(
        lambda: hypergradient(q.problem, InnerStep(optimiser, optimiser.init(w)), w, q.alpha, None, None)
    )()
    np.testing.assert_array_equal(info.aux, w)  # evaluated at the present weights
    return np.asarray(got)


@pytest.mark.parametrize("terms", [1, 2, 7])
def test_partial_sums_of_the_neumann_series(quadratic: Any, terms: int) -> None:
    q = quadratic
    H = q.A + L2 * np.eye(5)
    partial = RATE * sum(np.linalg.matrix_power(np.eye(5) - RATE * H, j) for j in range(terms))
    expected = q.alpha_gradient(q.w) + q.B.T @ partial @ q.weight_gradient(q.w)
    np.testing.assert_allclose(call(neumann(terms), q), expected, rtol=1e-11)
    # A learning rate that is given wins over the state's.
    np.testing.assert_allclose(
        call(neumann(terms, learning_rate=RATE), q, optimiser=weight_optimiser(7.0, l2=L2)), expected, rtol=1e-11
    )


def test_neumann_series_converges_to_the_inverse(quadratic: Any) -> None:
    q = quadratic
    np.testing.assert_allclose(call(neumann(400), q), call(conjugate_gradient(5, 0.0), q), rtol=1e-9)


def test_conjugate_gradient_solves_the_damped_system(quadratic: Any) -> None:
    q = quadratic
    p = np.linalg.solve(q.A + (L2 + DAMPING) * np.eye(5), q.weight_gradient(q.w))
    got = call(conjugate_gradient(max_steps=5, damping=DAMPING, tolerance=1e-12), q)
    np.testing.assert_allclose(got, q.alpha_gradient(q.w) + q.B.T @ p, rtol=1e-9)
    # Too few steps are noticed.
    early = call(conjugate_gradient(max_steps=1, damping=DAMPING), q)
    assert not np.allclose(early, got, rtol=1e-3)


@pytest.mark.parametrize("l2", [0.0, L2])
def test_at_the_optimum_it_is_the_gradient_through_the_solution(quadratic: Any, l2: float) -> None:
    q = quadratic

    def outer(alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
        w = jnp.linalg.solve(q.A + l2 * np.eye(5), q.B @ alpha)
        return q.problem.valid_loss(w, alpha, None)

    (_, w), expected = jax.value_and_grad(outer, has_aux=True)(jnp.asarray(q.alpha))
    got = call(conjugate_gradient(5, 0.0, tolerance=1e-12), q, w=w, optimiser=weight_optimiser(RATE, l2=l2))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_outer_objective_without_weights(quadratic: Any) -> None:
    problem = quadratic.problem._replace(valid_loss=lambda w, a, _: (a @ a, w))
    for hypergradient in (neumann(3), conjugate_gradient()):
        np.testing.assert_allclose(call(hypergradient, quadratic._replace(problem=problem)), 2 * quadratic.alpha)


def test_neumann_without_a_learning_rate(quadratic: Any) -> None:
    with pytest.raises(InputError, match="learning_rate"):
        call(neumann(), quadratic, optimiser=optax.sgd(0.1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: neumann(0), "terms"),
        (lambda: neumann(2, -0.1), "learning_rate"),
        (lambda: conjugate_gradient(0), "max_steps"),
        (lambda: conjugate_gradient(3, -1.0), "damping"),
        (lambda: conjugate_gradient(3, float("nan")), "damping"),
        (lambda: conjugate_gradient(3, 0.0, 0.0), "tolerance"),
    ],
)
def test_arguments_out_of_range(build: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
