"""Are the pieces of a step compiled once for each function, shared, and let go with their owner?"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.bilevel import Bilevel, InnerStep, Parts, mixed_product, unrolled, value_and_gradients, weight_optimiser

W, ALPHA = jnp.array([0.3, -0.2]), jnp.array([1.3, 0.8])
OPTIMISER = weight_optimiser(0.1)
STATE = OPTIMISER.init(W)


class Loss:
    """Counts how often Python looks at it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        self.calls += 1
        return jnp.sum((w - alpha) ** 4), None


def step(loss: Loss) -> Any:
    return unrolled()(Bilevel(loss, loss), InnerStep(OPTIMISER, STATE), W, ALPHA, None, None)[0]


def test_one_trace_for_all_steps_and_measurements() -> None:
    """The gradient is traced once, and the product calls the same piece."""
    loss, parts = Loss(), Parts()
    run = parts.run(lambda: (step(loss), mixed_product(loss, W, ALPHA, None, W)))
    gradient, _ = run()
    assert loss.calls == 1
    run()
    parts.run(value_and_gradients)(loss, W, ALPHA, None)
    assert loss.calls == 1
    np.testing.assert_allclose(gradient, step(Loss()), rtol=1e-6)
    other = Loss()
    parts.run(step)(other)
    assert other.calls == 1


def test_without_parts_the_loss_is_asked_at_every_call() -> None:
    loss = Loss()
    step(loss)
    first = loss.calls
    step(loss)
    assert loss.calls == 2 * first > 2


def test_the_outermost_owner_wins() -> None:
    loss, inner, outer = Loss(), Parts(), Parts()
    outer.run(inner.run(step))(loss)
    assert outer._programs and not inner._programs


def test_one_program_around_everything() -> None:
    loss = Loss()
    whole = jax.jit(Parts().run(lambda: step(loss)))
    np.testing.assert_allclose(whole(), step(Loss()), rtol=1e-6)
    assert loss.calls == 1


def test_an_error_leaves_no_owner_behind() -> None:
    def fail() -> None:
        raise RuntimeError

    loss = Loss()
    for _ in range(2):
        try:
            Parts().run(fail)()
        except RuntimeError:
            step(loss)
    assert loss.calls > 2


def test_programs_and_functions_go_with_their_owner() -> None:
    loss, parts = Loss(), Parts()
    parts.run(step)(loss)
    reference = weakref.ref(loss)
    del loss
    gc.collect()
    assert reference() is not None
    del parts
    gc.collect()
    assert reference() is None
