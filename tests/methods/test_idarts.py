"""Does iDARTS train w for some steps, and then alpha once, at the weights reached?"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxdarts.bilevel import Bilevel, InnerStep, neumann
from jaxdarts.errors import InputError
from jaxdarts.methods.base import View
from jaxdarts.methods.parts import virtual_step
from jaxdarts.tasks.base import means
from tests.methods import toy
from tests.methods.making import batches, settings_of, started


def test_alpha_moves_once_in_so_many_steps_at_the_weights_reached() -> None:
    """w as if there were no alpha; the hypergradient is that of K + 1 Neumann terms on the last batch."""
    method, plain = toy.make("idarts", inner_steps=3, hypergradient="neumann"), toy.make("darts")
    state = started(method)
    params = state.params
    for number in range(6):
        train, valid = batches(number)
        before = state
        state, totals = method.step(state, train, valid)
        is_due = number % 3 == 2
        assert [int(totals[name][1]) for name in ("alpha_loss", "hypergradient_norm")] == [is_due, is_due]
        same = jax.tree.map(np.array_equal, before.alpha, state.alpha)
        assert all(jax.tree.leaves(same)) is not is_due
        if is_due:
            inner, outer = plain.problem.losses
            views = [View(batch, before.stats) for batch in (train, valid)]
            settings = settings_of("idarts", learning_rate=0.05)
            step = InnerStep(virtual_step(settings), state.opt_state)
            gradient, info = neumann(3)(Bilevel(inner, outer), step, state.params, before.alpha, *views)
            np.testing.assert_allclose(means(totals)["alpha_loss"], info.valid_loss, rtol=1e-6)
            norm = np.sqrt(sum((np.asarray(leaf) ** 2).sum() for leaf in jax.tree.leaves(gradient)))
            np.testing.assert_allclose(means(totals)["hypergradient_norm"], norm, rtol=1e-4)
    assert not np.array_equal(params["classifier"], state.params["classifier"])


def test_an_epoch_without_a_step_on_alpha_has_no_outer_loss() -> None:
    method = toy.make("idarts", inner_steps=5)
    _, totals = method.step(started(method), *batches())
    assert np.isnan(means(totals)["alpha_loss"]) and np.isfinite(means(totals)["train_loss"])


def test_published_settings_and_wrong_ones() -> None:
    settings = settings_of("idarts", preset="paper", space="nasbench201", hypergradient="neumann")
    found = (settings.epochs, settings.learning_rate, settings.nesterov, settings.l2, settings.neumann_terms)
    assert found == (30, 0.01, True, 5e-4, 3) and settings.inner_steps == 4
    assert settings_of("idarts", preset="paper", space="s1").epochs == 50
    with pytest.raises(InputError, match="inner_steps must be at least 1; got 0"):
        settings_of("idarts", inner_steps=0)
    with pytest.raises(InputError, match="neumann_terms must be at most 100; got 101"):
        settings_of("idarts", hypergradient="neumann", neumann_terms=101)
