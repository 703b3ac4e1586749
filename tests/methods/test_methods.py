"""Every method and hypergradient: one trace, the same under vmap; a new one is covered by its registry entry."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS, alpha_optimiser, set_hyperparameters, virtual_step_optimiser
from jaxdarts.bilevel import weight_optimiser as make_weight_optimiser
from jaxdarts.methods import METHODS, Batch, SearchMethod, SearchProblem, SearchState, train_mode_loss
from jaxdarts.networks import Supernet
from jaxdarts.spaces import SearchSpace

SPACE = SearchSpace.uniform("tiny", ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"), num_nodes=1)
NOISY = SearchSpace.uniform("noisy", ("noise", "skip_connect"), num_nodes=1)


def make(
    method: str = "darts",
    hypergradient: str = "first_order",
    space: SearchSpace = SPACE,
    drop_path: bool = False,
    remat: int = 0,
    compute_dtype: Any = None,
    **settings: Any,
) -> SearchMethod:
    supernet = Supernet(space, num_classes=3, channels=2, num_cells=1, remat=remat)
    problem = SearchProblem(space, supernet, (8, 8, 1), compute_dtype=compute_dtype)
    return METHODS[method](
        problem,
        hypergradient=HYPERGRADIENTS[hypergradient](),
        weight_optimiser=make_weight_optimiser(0.05),
        virtual_step=virtual_step_optimiser(0.05),
        alpha_optimiser=alpha_optimiser(1e-2),
        uses_drop_path=drop_path,
        **settings,
    )


def batches(seed: int) -> tuple[Batch, Batch]:
    generator = np.random.default_rng(seed)

    def one() -> Batch:
        images = jnp.asarray(generator.normal(size=(4, 8, 8, 1)), jnp.float32)
        return Batch(images, jnp.asarray(generator.integers(0, 3, 4), jnp.int32))

    return one(), one()


def assert_same(a: Any, b: Any, tolerance: float = 0.0) -> None:
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


# Every method, and every hypergradient with the method that takes any.
CASES = [("darts", name) for name in sorted(HYPERGRADIENTS)]
CASES += [(method, "unrolled") for method in METHODS if method != "darts"]


@pytest.mark.parametrize(("method", "hypergradient"), CASES)
def test_steps_move_everything_and_trace_once(method: str, hypergradient: str) -> None:
    search = make(method, hypergradient)
    traces = 0

    @jax.jit
    def step(state: SearchState, train: Batch, valid: Batch):  # type: ignore[no-untyped-def]
        nonlocal traces
        traces += 1
        return search.step(state, train, valid)

    first = jax.jit(search.init)(jax.random.key(0))
    state = first
    for seed in range(2):
        state, info = step(state, *batches(seed))
        assert all(np.isfinite(value) for value in info)
        # Another learning rate must not compile again.
        state = SearchState(**{**vars(state), "opt_state": set_hyperparameters(state.opt_state, learning_rate=0.01)})
    assert traces == 1
    assert int(state.step) == 2
    # Random search draws its alpha, which counts as moving.
    for name in ("params", "alpha", "batch_stats") if search.learns else ():
        before, after = jax.tree.leaves(getattr(first, name)), jax.tree.leaves(getattr(state, name))
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), name


@pytest.mark.parametrize(("method", "hypergradient"), CASES)
def test_a_step_in_parts_equals_the_step_as_one_program(method: str, hypergradient: str) -> None:
    search = make(method, hypergradient)
    state = jax.jit(search.init)(jax.random.key(0))
    train, valid = batches(0)
    whole, whole_info = jax.jit(search.step)(state, train, valid)
    parts, parts_info = search.step(state, train, valid)
    assert_same(whole, parts, 1e-4)
    np.testing.assert_allclose(whole_info, parts_info, rtol=1e-4)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_seeds_under_vmap_equal_seeds_one_by_one(method: str) -> None:
    search = make(method, "unrolled")
    keys = jax.random.split(jax.random.key(3), 2)
    train, valid = batches(0)
    together = jax.jit(jax.vmap(search.init))(keys)
    together, _ = jax.jit(jax.vmap(search.step, in_axes=(0, None, None)))(together, train, valid)
    alone = jax.jit(search.step)
    for index, key in enumerate(keys):
        state, _ = alone(jax.jit(search.init)(key), train, valid)
        assert_same(jax.tree.map(lambda leaf, i=index: leaf[i], together), state, 1e-4)


def test_rematerialised_search_is_the_same() -> None:
    """From the same weights, with drop path and noise, in parts as the search command runs it."""
    train, valid = batches(0)
    states = []
    for remat in (0, 1):
        search = make("darts", "unrolled", NOISY, drop_path=True, remat=remat)
        state = jax.jit(search.init)(jax.random.key(0))
        states.append((state, search.step(state, train, valid)[0]))
    (first, after), (first_again, after_again) = states
    assert_same(first, first_again)
    assert_same(after, after_again, 1e-4)


def test_bfloat16_steps_keep_float32_state() -> None:
    train, valid = batches(0)
    wide, narrow = (make("darts", "unrolled", compute_dtype=dtype) for dtype in (None, jnp.bfloat16))
    state = jax.jit(wide.init)(jax.random.key(0))
    expected, expected_info = jax.jit(wide.step)(state, train, valid)
    got, info = jax.jit(narrow.step)(state, train, valid)
    chex.assert_trees_all_equal_dtypes(got, expected)
    assert_same(got, expected, 0.1)
    np.testing.assert_allclose(info.train_loss, expected_info.train_loss, rtol=0.03)
    assert info.train_loss != expected_info.train_loss


def test_a_loss_of_float64_arguments_is_float64(x64: None) -> None:
    """Whatever the problem's own precision: benchmarks and research code pass float64 to a float32 problem."""
    problem = SearchProblem(SPACE, Supernet(SPACE, num_classes=3, channels=2, num_cells=1), (8, 8, 1), jnp.float32)
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
    search = make(drop_path=True)
    step = jax.jit(search.step)
    state = jax.jit(search.init)(jax.random.key(0))
    train, valid = batches(0)
    none, _ = step(state, train, valid)
    same, _ = jax.jit(make(drop_path=False).step)(state, train, valid)
    assert_same(none, same, 1e-5)
    dropped, _ = step(SearchState(**{**vars(state), "drop_path": jnp.float32(0.9)}), train, valid)
    assert not np.allclose(none.params["stem"]["conv"]["kernel"], dropped.params["stem"]["conv"]["kernel"], atol=1e-7)
    assert step._cache_size() == 1


def test_a_temperature_divides_alpha_and_is_a_value() -> None:
    """alpha at temperature T has the mixing weights of alpha / T at 1, and a gradient smaller by T."""
    step = jax.jit(make().step)
    state = jax.jit(make().init)(jax.random.key(0))
    train, valid = batches(0)
    _, plain = step(state, train, valid)
    losses, norms = [], []
    for temperature in (2.0, 0.25):
        alpha = jax.tree.map(lambda leaf, t=temperature: t * leaf, state.alpha)
        hot = SearchState(**{**vars(state), "alpha": alpha, "temperature": jnp.float32(temperature)})
        new, info = step(hot, train, valid)
        assert float(new.temperature) == temperature
        losses.append(info.alpha_loss)
        norms.append(info.hypergradient_norm * temperature)
    np.testing.assert_allclose(losses, [plain.alpha_loss] * 2, rtol=1e-5)
    np.testing.assert_allclose(norms, [plain.hypergradient_norm] * 2, rtol=1e-4)
    assert step._cache_size() == 2  # without a temperature, and with any


def test_noise_follows_the_key_and_the_step() -> None:
    search = make(space=NOISY)
    step = jax.jit(search.step)
    state = jax.jit(search.init)(jax.random.key(0))
    train, valid = batches(0)
    losses = [
        float(step(start, train, valid)[1].train_loss)
        for start in (state, state, SearchState(**{**vars(state), "step": state.step + 1}))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_first_order_step_is_adam_on_the_outer_gradient_then_sgd_with_the_new_alpha() -> None:
    search = make()
    state = jax.jit(search.init)(jax.random.key(1))
    train, valid = batches(4)
    new, info = jax.jit(search.step)(state, train, valid)

    problem = SearchProblem(SPACE, Supernet(SPACE, num_classes=3, channels=2, num_cells=1), (8, 8, 1))

    def loss(params, alpha, batch):  # type: ignore[no-untyped-def]
        return train_mode_loss(problem, params, alpha, batch, batch_stats=state.batch_stats)[0]

    slope = jax.jit(jax.grad(loss, argnums=1))(state.params, state.alpha, valid)
    optimiser = alpha_optimiser(1e-2)
    updates, _ = optimiser.update(slope, optimiser.init(state.alpha), state.alpha)
    chex.assert_trees_all_close(new.alpha, optax.apply_updates(state.alpha, updates), rtol=1e-3, atol=1e-6)

    train_loss, gradient = jax.jit(jax.value_and_grad(loss))(state.params, new.alpha, train)
    np.testing.assert_allclose(info.train_loss, train_loss, rtol=1e-5)
    optimiser = make_weight_optimiser(0.05)
    updates, _ = optimiser.update(gradient, optimiser.init(state.params), state.params)
    chex.assert_trees_all_close(new.params, optax.apply_updates(state.params, updates), rtol=1e-4, atol=1e-6)
