"""Is everything compiled once, before it is called, and nothing besides?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import Ahead, Bilevel, InnerStep, Parts, compilable, unrolled, weight_optimiser

W, ALPHA = jnp.array([0.3, -0.2]), jnp.array([1.3, 0.8])
OPTIMISER = weight_optimiser(0.1)
STATE = OPTIMISER.init(W)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The threads of what XLA compiles inside, one entry a program."""
    found: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(threading.current_thread().name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def loss(w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
    return jnp.sum((w - alpha) ** 4), None


def test_a_step_finds_its_pieces_compiled_by_threads() -> None:
    """Five: gradient, product (which holds a gradient, but no program of it), an update, its reverse, and `own`."""

    def step(own: Callable[[jax.Array], jax.Array]) -> jax.Array:
        return own(unrolled()(Bilevel(loss, loss), InnerStep(OPTIMISER, STATE), W, ALPHA, None, None)[0])

    expected, own = step(jnp.sum), compilable(jax.jit(lambda alpha: alpha.sum()))
    run = Parts().run(lambda: step(own))
    with compilations() as before, Ahead() as ahead:
        ahead.trace(run)
    assert len(before) == 5 and threading.current_thread().name not in before
    with compilations() as after:
        found = run()
    assert not after
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_program_is_compiled_once_for_arguments_of_a_kind() -> None:
    program = compilable(jax.jit(lambda x: x + 1))
    x, y = jnp.zeros(3), jnp.zeros(4)
    with compilations() as found:
        with Ahead() as ahead:
            ahead.trace(lambda: (program(x), program(x + 1), program(y)))
        assert len(found) == 2
        program(x), program(y)
        with Ahead() as again:
            again.trace(lambda: program(x * 2))
        assert len(found) == 2, "it is there already"


def test_what_a_program_calls_is_a_part_of_it() -> None:
    inner = compilable(jax.jit(lambda x: x - 1))
    outer, x = compilable(jax.jit(lambda x: inner(x) * 2)), jnp.zeros(3)
    with compilations() as found, Ahead() as ahead:
        ahead.trace(lambda: outer(x))
    assert len(found) == 1


def test_nothing_is_computed_and_an_error_waits_for_nothing() -> None:
    seen = []

    def fails() -> jax.Array:
        seen.append(compilable(jax.jit(lambda x: x * 2))(jnp.ones(2)))
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"), Ahead() as ahead:
        ahead.trace(fails)
    assert isinstance(seen[0], jax.core.Tracer)
    assert float(compilable(jax.jit(lambda x: x * 2))(jnp.ones(()))) == 2, "outside nothing is left of it"
