"""Every method with every part: one trace, the same when continued and under vmap; an entry in METHODS is enough."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS, Parts, alpha_optimiser
from jaxdarts.bilevel import weight_optimiser as make_weight_optimiser
from jaxdarts.methods import METHODS, Method, Problem, SearchState
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.images import SearchProblem, train_mode_loss
from jaxdarts.methods.parts import EARLY_STOPPING, network_options
from jaxdarts.methods.settings import TEMPERATURE_FORMS
from jaxdarts.networks import Supernet
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.runs.checkpoint import Checkpoints
from jaxdarts.spaces import SearchSpace
from jaxdarts.tasks.base import Totals, means
from jaxdarts.tasks.classification import Batch
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


class Jitted:
    """A method, its step as one program, and how often that was traced."""

    def __init__(self, method: Method) -> None:
        self.method, self.traces = method, 0

        def step(state: SearchState, train: Batch, valid: Batch) -> tuple[SearchState, Totals]:
            self.traces += 1
            return method.step(state, train, valid)

        self.step: Callable[..., tuple[SearchState, Totals]] = jax.jit(step)


@functools.cache
def jitted(method: str, hypergradient: str) -> Jitted:
    learns = {"hypergradient": hypergradient} if METHODS[method].learns_alpha else {}
    return Jitted(make(method, **learns))


LEARNING = [name for name, entry in METHODS.items() if entry.learns_alpha]
# Every method, and every hypergradient with the method that takes any.
CASES = [("darts", name) for name in sorted(HYPERGRADIENTS)]
CASES += [(method, "unrolled") for method in METHODS if method != "darts"]


@pytest.mark.parametrize(("method", "hypergradient"), CASES)
def test_steps_move_everything_trace_once_and_can_be_continued(method: str, hypergradient: str, tmp_path: Path) -> None:
    case = jitted(method, hypergradient)
    first = state = started(case.method)
    checkpoints, states = Checkpoints(tmp_path), []
    for seed in range(2):
        # Another learning rate, weight or temperature must not compile again.
        state = at_epoch(case.method, state, 9 * seed)
        checkpoints.save(seed, state)
        state, totals = case.step(state, *batches(seed))
        assert all(np.isfinite(value) for value in means(totals).values())
        states.append(state)
    assert case.traces == 1
    assert int(state.step) == 2
    restored = checkpoints.restore_latest(first)
    assert restored is not None and restored.step == 1
    assert_same(case.step(restored.state, *batches(1))[0], state)
    assert case.traces == 1
    # Random search draws its alpha, which counts as moving.
    for name in ("params", "alpha", "stats") if case.method.learns else ():
        before, after = jax.tree.leaves(getattr(first, name)), jax.tree.leaves(getattr(state, name))
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), name


@pytest.mark.parametrize(("method", "hypergradient"), CASES)
def test_a_step_in_parts_equals_the_step_as_one_program(method: str, hypergradient: str) -> None:
    case = jitted(method, hypergradient)
    state = started(case.method)
    train, valid = batches(0)
    whole, whole_totals = case.step(state, train, valid)
    parts, parts_totals = case.method.step(state, train, valid)
    assert_same(whole, parts, 1e-4)
    assert_same(whole_totals, parts_totals, 1e-4)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_seeds_under_vmap_equal_seeds_one_by_one(method: str) -> None:
    case = jitted(method, "unrolled")
    states = [started(case.method, seed=seed) for seed in (3, 4)]
    train, valid = batches(0)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together, _ = jax.jit(jax.vmap(case.method.step, in_axes=(0, None, None)))(together, train, valid)
    for index, alone in enumerate(states):
        state, _ = case.step(alone, train, valid)
        assert_same(jax.tree.map(lambda leaf, i=index: leaf[i], together), state, 1e-4)


# Several parts at a time: what is compiled of them is shared by all methods that have the same problem.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "first_order": {"beta_weight": 5.0, "beta_variant": "zero", "early_stopping": "stop"},
    "finite_difference": {"temperature_start": 2.0, "temperature_end": 0.5, "beta_schedule": "50-0"},
    "unrolled": {"drop_path": 0.3, "temperature_start": 2.0, "early_stopping": "go-back"},
    "neumann": {"temperature_start": 1.01, "temperature_form": "update", "drop_path": 0.3, "beta_variant": "global"},
    "conjugate_gradient": {"alpha_weight_decay": 0.1, "beta_weight": 5.0, "clip_norm": 1.0},
}
COMBINATIONS["neumann"]["beta_weight"] = 5.0


@pytest.fixture(scope="module")
def shared() -> tuple[Parts, Callable[..., Problem]]:
    """One store of programs, and one problem for all methods with the same supernet."""

    @functools.cache
    def problem(**options: Any) -> Problem:
        return SearchProblem(SPACE, Supernet(SPACE, num_classes=3, channels=4, num_cells=1, **options), (8, 8, 1))

    return Parts(), problem


@pytest.mark.parametrize("hypergradient", sorted(COMBINATIONS))
@pytest.mark.parametrize("method", LEARNING)
def test_every_method_takes_every_part(
    method: str, hypergradient: str, shared: tuple[Parts, Callable[..., Problem]]
) -> None:
    parts, problem = shared
    own = {"hypergradient": hypergradient, **COMBINATIONS[hypergradient]}
    network = network_options(METHODS[method], SearchConfig(method=method, **own))
    search = make(method, problem=problem(**network), **own)
    step = parts.run(search.step)
    states = [started(search)]
    for epoch in range(2):
        state, totals = step(at_epoch(search, states[-1], 8 * epoch + 1), *batches(epoch))
        assert all(np.isfinite(value) for value in means(totals).values())
        states.append(state)
    for name in ("params", "alpha", "stats"):
        before, after = (jax.tree.leaves(getattr(state, name)) for state in (states[0], states[-1]))
        assert all(np.isfinite(leaf).all() for leaf in after)
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), name


def test_the_combinations_hold_every_part() -> None:
    """A new hypergradient, temperature or way of stopping early asks for a place here."""
    assert set(COMBINATIONS) == set(HYPERGRADIENTS)
    default, own = SearchConfig(), list(COMBINATIONS.values())
    for name, choices in (("early_stopping", EARLY_STOPPING), ("temperature_form", TEMPERATURE_FORMS)):
        assert {case.get(name, getattr(default, name)) for case in own} == set(choices), name


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


@pytest.mark.parametrize("name", METHODS)
def test_settings_of_a_method_are_told_and_no_others(name: str) -> None:
    """Each group has a title; what a method changes by preset are presets' names."""
    entry = METHODS[name]
    assert set(entry.defaults) <= {"", *SearchConfig.presets}
    for group in entry.settings:
        assert group.__doc__ and not group.__doc__.startswith(f"{group.__name__}("), "a dataclass without a docstring"
