"""Is averaged SGD what PyTorch's is, and does it begin when the published code says?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import weight_optimiser
from jaxdarts.methods import Change, Method, Problem
from jaxdarts.methods.averaging import AVERAGING, averaged, is_due
from jaxdarts.methods.relaxations import as_given
from jaxdarts.networks.functional import Network
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.tasks.base import Metric, Task

LENGTHS, L2, RATE = [6, 3, 6, 4, 6, 5], 0.1, 0.2


def quadratic() -> Method:
    """Half of |w - batch|^2, with a learning rate that the batch asks for."""
    network = Network(
        init=lambda key: ({"w": jnp.ones(2)}, {}),
        apply=lambda params, stats, weights, batch, memory, context: (params["w"], stats, memory),
        needs_key=False,
        dtype=jnp.float32,
        module=None,
    )

    def loss(outputs: Any, batch: Any) -> Any:
        value = 0.5 * jnp.square(outputs - batch["target"]).sum()
        return value, {"loss": (value, jnp.ones((), jnp.int32))}

    metrics = {"loss": Metric("less")}
    task = Task(loss, loss, lambda *_: {}, metrics, "loss", ("loss", lambda m: m["loss"]), rate=lambda b: b["rate"])
    problem = Problem(None, network, task, as_given())
    return averaged(problem, optimiser=weight_optimiser(RATE, 0.0, L2, None), patience=5)


def batch(length: int, index: int) -> dict[str, jax.Array]:
    return {"target": jnp.array([index, -1.0]), "rate": jnp.float32(length / 6)}


def test_averaged_steps_by_hand() -> None:
    method = quadratic()
    state = method.init(jax.random.key(0))
    step = jax.jit(method.step)
    w, mean, before, iterates = np.ones(2), np.ones(2), None, []
    for index, length in enumerate(LENGTHS):
        if index == 2:
            state = set_values(state, {AVERAGING: 1.0})
        own = RATE * length / 6
        # From the second averaged step on with the rate of the step before.
        rate = before if index > 2 else own
        w = w - rate * (w - np.array([index, -1.0]) + L2 * w)
        before = own
        if index >= 2:
            iterates.append(w)
        # The first averaged iterate is not in the mean.
        mean = w if len(iterates) < 2 else np.mean(iterates[1:], axis=0)
        state, _ = step(state, batch(length, index))
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
        np.testing.assert_allclose(method.as_measured(state).params["w"], mean, rtol=1e-5)
    assert len(iterates) == 4
    # What the schedule has set is left as it was.
    assert float(state.opt_state.hyperparams["learning_rate"]) == pytest.approx(RATE)


def history(losses: list[float | None], averaging: float = 0.0) -> list[dict[str, Any]]:
    return [{"epoch": i, "valid_loss": loss, AVERAGING: averaging} for i, loss in enumerate(losses)]


def test_the_switch_is_thrown_once() -> None:
    method = quadratic()
    falling = [6.0, 5.0, 4.0, 3.9, 3.8, 3.7, 3.6]
    assert method.decide(history(falling)) is None
    worse = [*falling, 5.5, 5.5, 6.1]
    assert method.decide(history(worse)) == Change({AVERAGING: 1.0})
    assert method.decide(history(worse, averaging=1.0)) is None


@pytest.mark.parametrize(
    ("losses", "due"),
    [
        ([5.0] * 6, False),  # five epochs before are too few
        ([5.0, 6, 6, 6, 6, 6, 5.5], True),  # after seven: worse than the first
        ([5.0, 6, 6, 6, 6, 6, 5.0], False),  # as good is not worse
        ([5.0, 4, 6, 6, 6, 6, 4.5], False),  # the second is not earlier by more than five
        ([5.0, 4, 6, 6, 6, 6, 4.5, 4.5], True),
        ([5.0, 4, 6, 6, 6, 6, None], True),
    ],
)
def test_when_the_published_code_switches(losses: list[float | None], due: bool) -> None:
    assert is_due(losses, 5) is due
