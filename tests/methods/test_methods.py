"""Are steps of DARTS in a supernet what they are meant to be?"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS, alpha_optimiser
from jaxdarts.bilevel import weight_optimiser as make_weight_optimiser
from jaxdarts.methods import METHODS, Method, Problem
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.images import SearchProblem, train_mode_loss
from jaxdarts.methods.parts import network_options
from jaxdarts.networks import Supernet
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import SearchSpace
from jaxdarts.tasks.base import means
from tests.methods.making import at_epoch, batches, started

SPACE = SearchSpace.uniform("tiny", ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"), num_nodes=1)
NOISY = SearchSpace.uniform("noisy", ("noise", "skip_connect"), num_nodes=1)
FIXED = {"hypergradient": "first_order", "learning_rate": 0.05, "alpha_learning_rate": 1e-2}


def make(
    method: str = "darts",
    space: SearchSpace = SPACE,
    remat: int = 0,
    compute_dtype: Any = None,
    problem: Problem | None = None,
    **own: Any,
) -> Method:
    """From its entry, as a search builds it, on a supernet of one cell."""
    settings = SearchConfig(**SearchConfig.used(FIXED, {"method": method, **own}))
    entry = METHODS[method]
    if problem is None:
        supernet = Supernet(
            space, num_classes=3, channels=4, num_cells=1, remat=remat, **network_options(entry, settings)
        )
        problem = SearchProblem(space, supernet, (8, 8, 1), compute_dtype=compute_dtype)
    return entry.build(Ingredients(problem, settings))


def assert_same(a: Any, b: Any, tolerance: float = 0.0) -> None:
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("hypergradient", sorted(HYPERGRADIENTS))
def test_every_hypergradient_in_parts_equals_one_program(hypergradient: str) -> None:
    """In a supernet; with other networks, see test_every_method.py."""
    search = make(hypergradient=hypergradient)
    state = started(search)
    whole, whole_totals = jax.jit(search.step)(state, *batches(0))
    parts, parts_totals = search.step(state, *batches(0))
    assert_same(whole, parts, 1e-4)
    assert_same(whole_totals, parts_totals, 1e-4)


def test_rematerialised_search_is_the_same() -> None:
    """From the same weights, with drop path and noise, in parts as the search command runs it."""
    train, valid = batches(0)
    states = []
    for remat in (0, 1):
        search = make("darts", NOISY, remat=remat, hypergradient="unrolled", drop_path=0.3)
        state = started(search)
        states.append((state, search.step(state, train, valid)[0]))
    (first, after), (first_again, after_again) = states
    assert_same(first, first_again)
    assert_same(after, after_again, 1e-4)


def test_bfloat16_steps_keep_float32_state() -> None:
    train, valid = batches(0)
    wide, narrow = (make(hypergradient="unrolled", compute_dtype=dtype) for dtype in (None, jnp.bfloat16))
    state = started(wide)
    expected, expected_info = jax.jit(wide.step)(state, train, valid)
    got, info = jax.jit(narrow.step)(state, train, valid)
    chex.assert_trees_all_equal_dtypes(got, expected)
    assert_same(got, expected, 0.1)
    np.testing.assert_allclose(info["train_loss"], expected_info["train_loss"], rtol=0.03)
    assert info["train_loss"][0] != expected_info["train_loss"][0]


def test_a_loss_of_float64_arguments_is_float64(x64: None) -> None:
    """Whatever the problem's own precision: benchmarks and research code pass float64 to a float32 problem."""
    problem = SearchProblem(SPACE, Supernet(SPACE, num_classes=3, channels=4, num_cells=1), (8, 8, 1), jnp.float32)
    params, batch_stats = problem.init_network(jax.random.key(0))
    weights = {cell: jnp.zeros(SPACE.alpha_shape(cell)) for cell in ("normal", "reduce")}
    batch, _ = batches(0)
    double = lambda tree: jax.tree.map(  # noqa: E731
        lambda leaf: leaf.astype("float64") if leaf.dtype == "float32" else leaf, tree
    )

    def loss(step: float) -> jax.Array:
        moved = jax.tree.map(lambda leaf: leaf + step, double(params))
        return train_mode_loss(problem, moved, double(weights), double(batch), batch_stats=double(batch_stats))[0]

    assert loss(0.0).dtype == jnp.float64
    assert loss(1e-10) != loss(0.0)  # lost in float32


def test_drop_path_is_a_value_and_not_a_program() -> None:
    search = make(drop_path=0.9)
    step = jax.jit(search.step)
    state = started(search)
    train, valid = batches(0)
    none, _ = step(state, train, valid)
    without = make()
    same, _ = jax.jit(without.step)(started(without), train, valid)
    assert float(none.values["drop_path"]) == 0 and not same.values
    assert_same(dataclasses.replace(none, values={}), same, 1e-5)
    dropped, _ = step(at_epoch(search, state, 9), train, valid)
    assert float(dropped.values["drop_path"]) == pytest.approx(0.9)
    assert not np.allclose(none.params["stem"]["conv"]["kernel"], dropped.params["stem"]["conv"]["kernel"], atol=1e-7)
    assert step._cache_size() == 1


def test_a_temperature_divides_alpha_and_is_a_value() -> None:
    """alpha at temperature T has the mixing weights of alpha / T at 1, and a gradient smaller by T."""
    train, valid = batches(0)
    plain = means(jax.jit(make().step)(started(make()), train, valid)[1])
    search = make(temperature_start=2.0, temperature_end=0.25)
    step, state = jax.jit(search.step), started(search)
    losses, norms = [], []
    for epoch, temperature in ((0, 2.0), (9, 0.25)):
        alpha = jax.tree.map(lambda leaf, t=temperature: t * leaf, state.alpha)
        hot = at_epoch(search, dataclasses.replace(state, alpha=alpha), epoch)
        new, totals = step(hot, train, valid)
        assert float(new.values["temperature"]) == temperature
        losses.append(means(totals)["alpha_loss"])
        norms.append(means(totals)["hypergradient_norm"] * temperature)
    np.testing.assert_allclose(losses, [plain["alpha_loss"]] * 2, rtol=1e-5)
    np.testing.assert_allclose(norms, [plain["hypergradient_norm"]] * 2, rtol=1e-4)
    assert step._cache_size() == 1


def test_noise_follows_the_key_and_the_step() -> None:
    search = make(space=NOISY)
    step = jax.jit(search.step)
    state = started(search)
    train, valid = batches(0)
    losses = [
        means(step(start, train, valid)[1])["train_loss"]
        for start in (state, state, dataclasses.replace(state, step=state.step + 1))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_first_order_step_is_adam_on_the_outer_gradient_then_sgd_with_the_new_alpha() -> None:
    search = make()
    state = started(search, seed=1)
    train, valid = batches(4)
    new, info = jax.jit(search.step)(state, train, valid)

    problem = SearchProblem(SPACE, Supernet(SPACE, num_classes=3, channels=4, num_cells=1), (8, 8, 1))

    def loss(params, alpha, batch):  # type: ignore[no-untyped-def]
        return train_mode_loss(problem, params, alpha, batch, batch_stats=state.stats)[0]

    slope = jax.jit(jax.grad(loss, argnums=1))(state.params, state.alpha, valid)
    optimiser = alpha_optimiser(1e-2)
    updates, _ = optimiser.update(slope, optimiser.init(state.alpha), state.alpha)
    chex.assert_trees_all_close(new.alpha, optax.apply_updates(state.alpha, updates), rtol=1e-3, atol=1e-6)

    train_loss, gradient = jax.jit(jax.value_and_grad(loss))(state.params, new.alpha, train)
    np.testing.assert_allclose(means(info)["train_loss"], train_loss, rtol=1e-5)
    optimiser = make_weight_optimiser(0.05)
    updates, _ = optimiser.update(gradient, optimiser.init(state.params), state.params)
    chex.assert_trees_all_close(new.params, optax.apply_updates(state.params, updates), rtol=1e-4, atol=1e-6)
