"""How the outer gradient is taken at an inner optimum, by the implicit function theorem.

Where the gradient of the inner objective is zero, the hypergradient is `d_alpha - M p` with `(H + l2 I) p = v`:
v and d_alpha the outer gradients in w and alpha, H the inner objective's Hessian in w, M its mixed second derivative
(Zela et al. 2020, appendix A). The estimators differ in how they solve for p. All evaluate both objectives at the
present weights. `l2` is the hyperparameter of that name in the inner optimiser's state (0 if it has none): the
optimum of `train_loss` plus L2 is where the inner optimiser is heading.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.hyperparameters import check_between, check_count, get_hyperparameters
from jaxdarts.bilevel.loops import scan, while_loop
from jaxdarts.bilevel.parts import part
from jaxdarts.bilevel.problem import Alpha, Batch, Bilevel, HypergradientFn, HypergradientInfo, InnerStep, Params
from jaxdarts.bilevel.products import add_scaled, value_and_gradients
from jaxdarts.errors import InputError

_Matvec = Callable[[Params], Params]


def neumann(terms: int = 2, learning_rate: float | jax.Array | None = None) -> HypergradientFn:
    """The implicit hypergradient with a truncated Neumann series for the inverse Hessian.

    `p = eta * sum over j < terms of (I - eta (H + l2 I))^j v` (Lorraine et al. 2020, algorithm 3; iDARTS, Zhang et
    al. 2021, eq. 9). It converges as terms grow if the eigenvalues of `eta (H + l2 I)` lie between 0 and 2.

    Args:
      terms: terms of the series, at least 1. One term is one unrolled step of SGD with the outer objective taken
        before the step.
      learning_rate: eta, positive. None: the hyperparameter "learning_rate" in the inner optimiser's state.

    Raises:
      InputError: `terms` is not a whole number of at least 1, `learning_rate` is not positive, or it is None and the
        state has none.

    Cost: one outer gradient, one inner gradient, `terms` forward derivatives of it (each about a gradient; the
    gradient's intermediate values are kept for them).
    """
    terms = check_count("terms", terms)
    if learning_rate is not None:
        check_between("learning_rate", learning_rate, 0, inf, "be a positive number")

    def solve(matvec: _Matvec, v: Params, inner: InnerStep) -> Params:
        hyperparameters = get_hyperparameters(inner.state)
        if learning_rate is None and "learning_rate" not in hyperparameters:
            raise InputError("neumann needs learning_rate=...: the inner optimiser's state holds no learning rate")
        eta = jnp.asarray(hyperparameters["learning_rate"] if learning_rate is None else learning_rate)

        def add_term(carry: tuple[Params, Params], _: None) -> tuple[tuple[Params, Params], None]:
            term, total = carry
            term = add_scaled(term, -eta, matvec(term))
            return (term, add_scaled(total, 1, term)), None

        (_, total), _ = scan(add_term, (v, v), None, terms - 1) if terms > 1 else ((v, v), None)
        return jax.tree.map(lambda leaf: (eta * leaf).astype(leaf.dtype), total)

    return _implicit(solve)


def conjugate_gradient(max_steps: int = 10, damping: float = 1e-2, tolerance: float = 1e-6) -> HypergradientFn:
    """The implicit hypergradient with `(H + (l2 + damping) I) p = v` solved by conjugate gradients.

    The solver of Pedregosa 2016 and Rajeswaran et al. 2019 (iMAML). It needs a positive definite matrix: away from an
    inner minimum H has negative eigenvalues, and `damping` must exceed the largest of them in size.

    Args:
      max_steps: most products, at least 1.
      damping: added to the diagonal, not negative.
      tolerance: stop when the residual's norm is below this times the norm of v.

    Raises:
      InputError: one of the arguments is out of range.

    Cost: one outer gradient, one inner gradient, up to `max_steps` forward derivatives of it.
    """
    max_steps = check_count("max_steps", max_steps)
    check_between("damping", damping, 0, inf, "be a number that is not negative", with_low=True)
    check_between("tolerance", tolerance, 0, 1, "lie between 0 and 1")

    def solve(matvec: _Matvec, v: Params, inner: InnerStep) -> Params:
        # Not jax.scipy's, whose loop is compiled at every call that is not under jit.
        smallest = jnp.square(tolerance) * _dot(v, v)

        def unsolved(carry: tuple[Any, ...]) -> jax.Array:
            _, _, square, _, step = carry
            return (square > smallest) & (step < max_steps)

        def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            solution, residual, square, direction, step = carry
            image = add_scaled(matvec(direction), damping, direction)
            length = square / _dot(direction, image)
            solution, residual = add_scaled(solution, length, direction), add_scaled(residual, -length, image)
            new_square = _dot(residual, residual)
            direction = add_scaled(residual, new_square / square, direction)
            return solution, residual, new_square, direction, step + 1

        start = (jax.tree.map(jnp.zeros_like, v), v, _dot(v, v), v, jnp.zeros((), jnp.int32))
        return while_loop(unsolved, advance, start)[0]

    return _implicit(solve)


def _dot(a: Params, b: Params) -> jax.Array:
    products = jax.tree.map(lambda x, y: jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST), a, b)
    return jnp.asarray(sum(jax.tree.leaves(products)))


def _implicit(solve: Callable[[_Matvec, Params, InnerStep], Params]) -> HypergradientFn:
    @part(2)
    def implicit(
        problem: Bilevel,
        update: optax.GradientTransformation,
        state: optax.OptState,
        params: Params,
        alpha: Alpha,
        train_batch: Batch,
        valid_batch: Batch,
    ) -> tuple[Alpha, HypergradientInfo]:
        outer, (v, alpha_gradient) = value_and_gradients(problem.valid_loss, params, alpha, valid_batch)
        if not jax.tree.leaves(params):
            return alpha_gradient, HypergradientInfo(*outer)
        # linearize: the many products at one point share one gradient.
        _, along = jax.linearize(lambda w: value_and_gradients(problem.train_loss, w, alpha, train_batch)[1], params)
        l2 = get_hyperparameters(state).get("l2", 0.0)
        with jax.numpy_dtype_promotion("standard"):  # as in `add_scaled`
            p = solve(lambda direction: add_scaled(along(direction)[0], l2, direction), v, InnerStep(update, state))
        return add_scaled(alpha_gradient, -1, along(p)[1]), HypergradientInfo(*outer)

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        return implicit(problem, inner.update, inner.state, params, alpha, train_batch, valid_batch)

    return hypergradient
