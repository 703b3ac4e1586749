"""Does the auxiliary skip connection fade as its schedule says, and act wherever the supernet is computed?"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import SearchState, View
from jaxdarts.methods.darts_minus import DartsMinusSettings
from tests.methods.making import at_epoch, batches, make, started


@pytest.mark.parametrize(
    ("name", "middle", "last"),
    [
        ("linear", 0.5, 0.02),
        ("cosine", 0.5, (1 + math.cos(math.pi * 49 / 50)) / 2),
        ("slow_cosine", math.sqrt(0.5), math.cos(math.pi * 49 / 100)),
        ("constant", 1, 1),
    ],
)
def test_schedules(name: str, middle: float, last: float) -> None:
    method = make("darts-minus", epochs=50, auxiliary_skip_schedule=name, auxiliary_skip_start=2.0)
    schedule = method.schedules["auxiliary_skip"]
    assert [schedule(epoch) for epoch in (0, 25, 49)] == pytest.approx([2, 2 * middle, 2 * last])


def test_the_coefficient_acts_in_both_steps_in_measuring_and_in_the_curvature() -> None:
    """Each sees another number at another epoch, and one program serves all epochs."""
    method = make("darts-minus")
    problem = method.problem
    state = started(method)
    train, valid = batches()
    step = jax.jit(method.step)

    @jax.jit
    def others(state: SearchState) -> Any:
        view = View(valid, state.stats, (), state.values)
        mask = jnp.ones(len(valid.labels), bool)
        weights = problem.mean_weights(state.alpha, state.values)
        measured, _ = problem.measured(state.params, state.stats, weights, state.values, valid, mask)
        loss = lambda alpha: problem.outer(state.params, alpha, view)[0]  # noqa: E731
        direction = jax.tree.map(lambda leaf: jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), state.alpha)
        curved = jax.jvp(jax.grad(loss), (state.alpha,), (direction,))[1]
        return measured["loss"][0], curved["normal"][0, 2]

    found = []
    for epoch in (0, 5):
        now = at_epoch(method, state, epoch)
        np.testing.assert_allclose(now.values["auxiliary_skip"], 1 - epoch / 10)
        _, totals = step(now, train, valid)
        found.append([float(totals["train_loss"][0]), float(totals["alpha_loss"][0]), *map(float, others(now))])
    assert step._cache_size() == 1
    assert all(abs(a - b) > 1e-6 for a, b in zip(*found, strict=True)), found


def test_at_0_it_is_darts() -> None:
    """The weights of the connections learn nothing then."""
    method = make("darts-minus", l2=0.0)
    state = started(method)
    still = dataclasses.replace(state, values={"auxiliary_skip": jnp.float32(0)})
    step = jax.jit(method.step)
    pairs = []
    for start in (state, still):
        new, _ = step(start, *batches())
        kernels = {
            jax.tree_util.keystr(path): (leaf, new_leaf)
            for (path, leaf), new_leaf in zip(
                jax.tree.leaves_with_path(start.params), jax.tree.leaves(new.params), strict=True
            )
            if "skip_connect" in jax.tree_util.keystr(path)
        }
        pairs.append(kernels)
    # A reduction cell's edge from an input has two of them: the candidate's, and after it the auxiliary one's.
    for name, (before, after) in pairs[1].items():
        np.testing.assert_array_equal(before[len(before) // 2 :], after[len(after) // 2 :], err_msg=name)
        moved = pairs[0][name]
        assert np.abs(moved[0] - moved[1])[len(before) // 2 :].max() > 0


def test_wrong_settings() -> None:
    with pytest.raises(InputError, match="unknown auxiliary_skip_schedule 'linaer'.*did you mean 'linear'"):
        DartsMinusSettings(auxiliary_skip_schedule="linaer")
    with pytest.raises(InputError, match="auxiliary_skip_start must be at least 0; got -1"):
        DartsMinusSettings(auxiliary_skip_start=-1)
