"""How the outer gradient is taken at an inner optimum, by the implicit function theorem.

Where the gradient of the inner objective is zero, the hypergradient is `d_alpha - M p` with `(H + l2 I) p = v`:
v and d_alpha the outer gradients in w and alpha, H the inner objective's Hessian in w, M its mixed second derivative
(Zela et al. 2020, appendix A). The estimators differ in how they solve for p. All evaluate both objectives at the
present weights. `l2` is the hyperparameter of that name in the inner optimiser's state (0 if it has none): the
optimum of `train_loss` plus L2 is where the inner optimiser is heading.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import optax

from jaxdarts.bilevel.hyperparameters import get_hyperparameters
from jaxdarts.bilevel.problem import Alpha, Batch, Bilevel, HypergradientFn, HypergradientInfo, InnerStep, Params
from jaxdarts.bilevel.products import add_scaled, value_and_gradients
from jaxdarts.errors import InputError

_Matvec = Callable[[Params], Params]


def neumann(terms: int = 2, learning_rate: float | None = None) -> HypergradientFn:
    """The implicit hypergradient with a truncated Neumann series for the inverse Hessian.

    `p = eta * sum over j < terms of (I - eta (H + l2 I))^j v` (Lorraine et al. 2020, algorithm 3; iDARTS, Zhang et
    al. 2021, eq. 9). It converges as terms grow if the eigenvalues of `eta (H + l2 I)` lie between 0 and 2.

    Args:
      terms: terms of the series, at least 1. One term is one unrolled step of SGD with the outer objective taken
        before the step.
      learning_rate: eta, positive. None: the hyperparameter "learning_rate" in the inner optimiser's state.

    Raises:
      InputError: `terms` is less than 1, `learning_rate` is not positive, or it is None and the state has none.

    Cost: one outer gradient, one inner gradient, `terms` forward derivatives of it (each about a gradient; the
    gradient's intermediate values are kept for them).
    """
    if terms < 1:
        raise InputError(f"terms must be at least 1, got {terms}")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate must be a positive number, got {learning_rate}")

    def solve(matvec: _Matvec, v: Params, inner: InnerStep) -> Params:
        hyperparameters = get_hyperparameters(inner.state)
        if learning_rate is None and "learning_rate" not in hyperparameters:
            raise InputError("neumann needs learning_rate=...: the inner optimiser's state holds no learning rate")
        eta = jnp.asarray(hyperparameters["learning_rate"] if learning_rate is None else learning_rate)

        def add_term(carry: tuple[Params, Params], _: None) -> tuple[tuple[Params, Params], None]:
            term, total = carry
            term = add_scaled(term, -eta, matvec(term))
            return (term, add_scaled(total, 1, term)), None

        (_, total), _ = jax.lax.scan(add_term, (v, v), None, length=terms - 1)
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

    Cost: one outer gradient, one inner gradient, up to `max_steps + 2` forward derivatives of it.
    """
    if max_steps < 1:
        raise InputError(f"max_steps must be at least 1, got {max_steps}")
    if not 0 <= damping < float("inf"):
        raise InputError(f"damping must be a number that is not negative, got {damping}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance must lie between 0 and 1, got {tolerance}")

    def solve(matvec: _Matvec, v: Params, inner: InnerStep) -> Params:
        solution, _ = jax.scipy.sparse.linalg.cg(
            lambda p: add_scaled(matvec(p), damping, p), v, tol=tolerance, maxiter=max_steps
        )
        return solution

    return _implicit(solve)


def _implicit(solve: Callable[[_Matvec, Params, InnerStep], Params]) -> HypergradientFn:
    @partial(jax.jit, static_argnums=(0, 1))
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
        # linearize: the many products at one point share one gradient.
        _, along = jax.linearize(lambda w: value_and_gradients(problem.train_loss, w, alpha, train_batch)[1], params)
        l2 = get_hyperparameters(state).get("l2", 0.0)
        p = solve(lambda direction: add_scaled(along(direction)[0], l2, direction), v, InnerStep(update, state))
        return add_scaled(alpha_gradient, -1, along(p)[1]), HypergradientInfo(*outer)

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        return implicit(problem, inner.update, inner.state, params, alpha, train_batch, valid_batch)

    return hypergradient
