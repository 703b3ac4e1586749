"""Does every registered hypergradient keep the common contract? Whoever registers one is tested here."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS, InnerStep, virtual_step_optimiser, weight_optimiser

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
