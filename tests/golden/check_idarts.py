"""Does iDARTS do what its paper says? Used by check_methods.py.

Not compared: `notebook_fd/*`, the authors' difference at a radius at which it is wrong; `neumann_term_*` above 0, as
the terms are compared by what they add up to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from method_setting import Setting, rows
from relative_errors import Row, group_rows, relative_error

from jaxdarts.bilevel import (
    Bilevel,
    InnerStep,
    apply_update,
    neumann,
    set_hyperparameters,
    value_and_gradients,
)
from jaxdarts.methods.parts import weights
from jaxdarts.tasks.classification import Batch


def check_idarts(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    yield from _network(own)
    if "quadratic/H" in own.case.arrays:
        yield from _quadratic(own)


def _network(own: Setting) -> Iterator[Row]:
    case, arrays, alpha = own.case, own.case.arrays, own.alpha
    optimiser, params = weights(own.settings), own.params
    state, losses, norms = optimiser.init(params), [], []
    for x, y in zip(arrays["inner_x"], arrays["inner_y"], strict=True):
        view = own.view(Batch(jnp.asarray(x.transpose(0, 2, 3, 1)), jnp.asarray(y)))
        (value, _), (gradient, _) = value_and_gradients(own.problem.outer, params, alpha, view)
        params, state = apply_update(optimiser, gradient, state, params)
        losses.append(value)
        norms.append(optax.tree.norm(gradient))
    yield from rows({"inner_losses": np.stack(losses), "inner_grad_norms": np.stack(norms)}, case)
    yield from group_rows("inner_params", own.torch(params), case.group("inner_params"))
    train, valid = own.view(own.train), own.view(own.valid)
    (value, _), (v, direct) = value_and_gradients(own.problem.outer, params, alpha, valid)
    (train_value, _), _ = value_and_gradients(own.problem.outer, params, alpha, train)
    yield from rows({"inner_valid_loss": value, "inner_train_loss": train_value}, case)
    yield from group_rows("direct", direct, case.group("direct"))
    yield from group_rows("neumann_term_0", own.torch(v), case.group("neumann_term_0"))
    # The file's Hessian is that of the loss without weight decay.
    inner = InnerStep(optimiser, set_hyperparameters(state, l2=0.0))
    problem = Bilevel(own.problem.outer, own.problem.outer)
    terms = range(1, len(arrays["term_norms"]) + 1)
    found = [neumann(count)(problem, inner, params, alpha, train, valid)[0] for count in terms]
    stacked = {cell: np.stack([np.asarray(one[cell]) for one in found]) for cell in alpha}
    yield Row("hypergradient", relative_error(stacked, case.group("hypergradient")))
    lr = own.settings.learning_rate
    mixed = {cell: (np.asarray(direct[cell]) - value) / lr for cell, value in stacked.items()}
    yield Row("mixed", relative_error(mixed, case.group("mixed")))


def _quadratic(own: Setting) -> Iterator[Row]:
    """A closed form: K = T - 1 terms are the derivative through all T steps; many are the implicit one."""
    q = {name: jnp.asarray(value) for name, value in own.case.group("quadratic").items()}
    step = own.case.meta["quadratic"]["step"]

    def inner(w: Any, alpha: Any, batch: Any) -> Any:
        apart = w - q["A"] @ alpha
        return apart @ q["H"] @ apart / 2, ()

    def outer(w: Any, alpha: Any, batch: Any) -> Any:
        return ((w - q["b"]) ** 2).sum() / 2 + q["c"] @ alpha, ()

    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=step)
    path = [q["w0"]]
    for _ in range(len(q["trajectory"]) - 1):
        path.append(path[-1] - step * jax.grad(inner, has_aux=True)(path[-1], q["alpha"], None)[0])
    reference = own.case.arrays
    found = {"quadratic/trajectory": np.stack(path)}
    ahead = InnerStep(sgd, sgd.init(path[-1]))
    terms = range(len(q["hypergradient"]))
    found["quadratic/hypergradient"] = np.stack(
        [neumann(k + 1)(Bilevel(inner, outer), ahead, path[-1], q["alpha"], None, None)[0] for k in terms]
    )
    for name, value in found.items():
        yield Row(name, relative_error({"": value}, {"": reference[name]}))
