"""Does every registered hypergradient keep the common contract? Whoever registers one is tested here."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS, Bilevel, InnerStep, virtual_step_optimiser, weight_optimiser
from jaxdarts.errors import InputError

CASES = [(name, {}) for name in HYPERGRADIENTS] + [("unrolled", {"steps": 3})]
IDS = [name + "".join(f" {key}={value}" for key, value in options.items()) for name, options in CASES]


def whole(name: str, options: Any, problem: Any) -> Any:
    """Everything that varies is an argument, the optimiser's state too."""
    hypergradient = HYPERGRADIENTS[name](**options)

    def run(state: Any, params: Any, alpha: Any, train_batch: Any, valid_batch: Any) -> Any:
        inner = InnerStep(virtual_step_optimiser(0.1), state)
        return hypergradient(problem, inner, params, alpha, train_batch, valid_batch)

    return run


def arguments(n: Any, learning_rate: float = 0.1) -> tuple[Any, ...]:
    return weight_optimiser(learning_rate).init(n.params), n.params, n.alpha, n.train_batch, n.valid_batch


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_contract(x64: None, make_network: Any, name: str, options: Any) -> None:
    # Their first layer, which alpha does not reach, brings its own reverse rule.
    networks = [make_network(seed, custom_vjp=True) for seed in (1, 2)]
    run = whole(name, options, networks[0].problem)
    # Members of a population differ in everything, the learning rate too.
    singles = [arguments(n, rate) for n, rate in zip(networks, (0.1, 0.03), strict=True)]
    with jax.checking_leaks():
        compiled = jax.jit(run)
        results = [compiled(*single) for single in singles]

    gradient, info = results[0]
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, networks[0].alpha)
    assert info.valid_loss.shape == ()
    assert info.aux["batch_stats"].shape == (5,)
    chex.assert_tree_all_finite(results)
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradient))

    # Conjugate gradients away from a minimum amplify rounding by the condition of the system.
    population = jax.tree.map(lambda *leaves: np.stack(leaves), *singles)
    together = jax.jit(jax.vmap(run))(*population)
    chex.assert_trees_all_close(together, jax.tree.map(lambda *leaves: np.stack(leaves), *results), rtol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_precision_is_alphas(make_network: Any, name: str, options: Any, dtype: Any) -> None:
    """Alpha stays float32 beside weights of half the precision."""
    n = make_network(2)
    n = n._replace(params=jax.tree.map(lambda leaf: leaf.astype(dtype), n.params))
    gradient, _ = jax.eval_shape(whole(name, options, n.problem), *arguments(n))
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, n.alpha)


class Model:
    """A problem whose losses are methods, as of a class that carries its data and settings."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def train(self, w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        return self.weight * jnp.sum((w - alpha) ** 4), None

    def valid(self, w: jax.Array, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        return self.weight * jnp.sum(w**2 * alpha), None


W, ALPHA = jnp.array([0.3, -0.2]), jnp.array([1.3, 0.8])
SGD = weight_optimiser(0.1)
STATE = SGD.init(W)


def ask(name: str, options: Any, problem: Bilevel) -> jax.Array:
    return HYPERGRADIENTS[name](**options)(problem, InnerStep(SGD, STATE), W, ALPHA, None, None)[0]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_a_loss_that_has_changed_is_asked_again(name: str, options: Any) -> None:
    """As under `jax.grad`: the object is the same, what it holds is not."""
    model, found = Model(1.0), []
    for model.weight in (1.0, 3.0):
        found.append(ask(name, options, Bilevel(model.train, model.valid)))
        fresh = Model(model.weight)
        np.testing.assert_array_equal(found[-1], ask(name, options, Bilevel(fresh.train, fresh.valid)))
    assert not np.allclose(*found)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_outside_jit_is_what_it_is_inside(name: str, options: Any) -> None:
    problem = Bilevel(Model(1.0).train, Model(1.0).valid)
    np.testing.assert_allclose(
        ask(name, options, problem),
        jax.jit(lambda: ask(name, options, problem))(),
        rtol=2e-4 if "finite" in name else 1e-5,
    )


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_what_a_loss_closes_over_is_let_go(name: str, options: Any) -> None:
    kept = []
    for _ in range(3):
        model = Model(1.0)
        kept.append(weakref.ref(model))
        ask(name, options, Bilevel(model.train, lambda *arguments, model=model: model.valid(*arguments)))
    del model
    gc.collect()
    assert [reference() for reference in kept] == [None] * 3


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_nothing_is_compiled_for_a_loss_made_anew(name: str, options: Any) -> None:
    """What is compiled for the first call, operation by operation, serves the second."""
    count = 0

    def listen(event: str, *_: Any, **__: Any) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for weight in (1.0, 1.0, 2.0):
            before, model = count, Model(weight)
            ask(name, options, Bilevel(model.train, model.valid))
        assert count == before
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("params", [{}, jnp.zeros(0)], ids=["no leaf", "no number"])
def test_a_problem_without_weights(name: str, options: Any, params: Any) -> None:
    """There is nothing to differentiate through; the outer objective's own gradient is left."""
    problem = Bilevel(lambda w, a, b: (jnp.sum(a), None), lambda w, a, b: (jnp.sum(a**2), None))

    def gradient() -> Any:
        inner = InnerStep(SGD, SGD.init(params))
        return HYPERGRADIENTS[name](**options)(problem, inner, params, ALPHA, None, None)[0]

    for found in (gradient(), jax.jit(gradient)()):
        np.testing.assert_allclose(found, 2 * ALPHA, rtol=1e-6)


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_under_guards_against_promotion(make_network: Any, name: str, options: Any, dtype: Any) -> None:
    n = make_network(1)
    n = n._replace(params={**n.params, "stem": n.params["stem"].astype(dtype)})
    given = arguments(n)  # optax' own init does not pass the guards with weights of two precisions
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(whole(name, options, Bilevel(guarded, guarded)), *given)


def guarded(params: Any, alpha: Any, batch: Any) -> tuple[jax.Array, Any]:
    """A loss that minds the guards itself."""
    hidden = jnp.tanh(batch["x"] @ params["stem"].astype(jnp.float32)) @ params["layers"][0] @ params["head"]["kernel"]
    return jnp.mean((jnp.exp(alpha["cell"][1]) * alpha["cell"][0][0] * hidden - batch["y"]) ** 2), None


@pytest.mark.parametrize(
    ("name", "argument"),
    [("neumann", "learning_rate"), ("finite_difference", "radius"), ("conjugate_gradient", "damping")],
)
def test_numbers_may_be_traced(name: str, argument: str) -> None:
    problem = Bilevel(Model(1.0).train, Model(1.0).valid)
    traced = jax.jit(lambda value: ask(name, {argument: value}, problem))(0.05)
    np.testing.assert_allclose(traced, ask(name, {argument: 0.05}, problem), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "argument"), [("unrolled", "steps"), ("neumann", "terms"), ("conjugate_gradient", "max_steps")]
)
@pytest.mark.parametrize("value", [1.5, 2.0, 0, -1, True, "2", None])
def test_counts_are_whole_numbers(name: str, argument: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{argument} must be .*at least 1, got"):
        HYPERGRADIENTS[name](**{argument: value})
    HYPERGRADIENTS[name](**{argument: np.int64(2)})


@pytest.mark.parametrize("optimiser", [optax.lbfgs(), optax.polyak_sgd()], ids=["lbfgs", "polyak_sgd"])
@pytest.mark.parametrize("name", ["unrolled", "finite_difference"])
def test_optimisers_that_need_the_loss_are_refused(name: str, optimiser: Any) -> None:
    inner = InnerStep(optimiser, optimiser.init(W))
    with pytest.raises(InputError, match="the optimiser needs .*'value'"):
        HYPERGRADIENTS[name]()(Bilevel(Model(1.0).train, Model(1.0).valid), inner, W, ALPHA, None, None)
