"""Is a step of training from scratch what the papers say, traced once, and the same under vmap?"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.bilevel import set_hyperparameters, weight_optimiser
from jaxdarts.methods import Method, Problem, SearchState, View, retraining
from jaxdarts.methods.relaxations import as_given
from jaxdarts.networks import DiscreteNetwork, Weights
from jaxdarts.networks.functional import discrete_network
from jaxdarts.spaces import Genotype
from jaxdarts.tasks.base import means
from jaxdarts.tasks.classification import Batch, bare_task
from tests.methods.test_methods import assert_same

GENOTYPE = Genotype((("sep_conv_3x3", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("sep_conv_3x3", 1)), (2,))
NOISY = Genotype((("noise", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("noise", 1)), (2,))

quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def problem(
    genotype: Genotype = GENOTYPE, auxiliary: bool = True, auxiliary_weight: float = 0.4, compute_dtype: Any = None
) -> Problem:
    module = DiscreteNetwork(genotype, 3, 2, 3, auxiliary)
    network = discrete_network(module, (8, 8, 1), compute_dtype=compute_dtype)
    return Problem(None, network, bare_task(auxiliary_weight), as_given())


def make(one: Problem, drop_path: bool = True, **options: Any) -> Method:
    values = ("drop_path",) if drop_path else ()
    return retraining(one, optimiser=weight_optimiser(0.05, **options), values=values)


def batch(seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    images = jnp.asarray(generator.normal(size=(6, 8, 8, 1)), jnp.float32)
    return Batch(images, jnp.asarray(generator.integers(0, 3, 6), jnp.int32))


def with_drop(state: SearchState, value: float) -> SearchState:
    return dataclasses.replace(state, values={"drop_path": jnp.asarray(value, jnp.float32)})


def test_a_loss_of_float64_arguments_is_float64(x64: None) -> None:
    one = problem()

    def loss(key: jax.Array, data: Batch) -> Any:
        double = lambda leaf: leaf.astype(jnp.float64)  # noqa: E731
        params, stats = jax.tree.map(double, one.init_network(key))
        return one.inner(params, {}, View(Batch(double(data.images), data.labels), stats))

    total, seen = jax.eval_shape(loss, jax.random.key(0), batch())
    for value in (total, seen.totals["loss"][0], seen.totals["auxiliary_loss"][0]):
        assert value.dtype == jnp.float64


@pytest.mark.parametrize("genotype", [GENOTYPE, NOISY])
def test_steps_move_everything_and_trace_once(genotype: Genotype) -> None:
    method = make(problem(genotype))
    traces = 0

    @quickly
    def step(state: SearchState, batch: Batch) -> Any:
        nonlocal traces
        traces += 1
        return method.step(state, batch)

    first = state = quickly(method.init)(jax.random.key(0))
    for seed in range(2):
        state, info = step(state, batch(seed))
        told = means(info)
        assert all(np.isfinite(value) for value in told.values()) and told["auxiliary_loss"] > 0
        # Neither another learning rate nor another drop path may compile again.
        state = dataclasses.replace(state, **{"opt_state": set_hyperparameters(state.opt_state, learning_rate=0.01)})
        state = with_drop(state, 0.1)
    assert traces == 1
    assert int(state.step) == 2
    for name in ("params", "stats"):
        before, after = jax.tree.leaves(getattr(first, name)), jax.tree.leaves(getattr(state, name))
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)), name


def test_a_step_is_one_of_sgd_on_both_losses() -> None:
    """Clipped gradient of loss + 0.4 auxiliary loss, then L2, in the first step of SGD with momentum."""
    one = problem(auxiliary_weight=0.4)
    rate, l2, clip = 0.05, 3e-4, 0.5
    method = make(one, drop_path=False, momentum=0.9, l2=l2, clip_norm=clip)
    state = quickly(method.init)(jax.random.key(0))
    data = batch()

    def total(params: Any) -> tuple[jax.Array, list[jax.Array]]:
        variables = {"params": params, "batch_stats": state.stats}
        heads, _ = one.network.module.apply(variables, data.images, train=True, mutable=["batch_stats"])
        losses = [-jax.nn.log_softmax(scores)[jnp.arange(6), data.labels].mean() for scores in heads]
        return losses[0] + 0.4 * losses[1], losses

    gradient, both = quickly(jax.grad(total, has_aux=True))(state.params)
    norm = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(gradient)))
    assert norm > clip
    expected = jax.tree.map(lambda w, g: w - rate * (g * clip / norm + l2 * w), state.params, gradient)
    new, info = quickly(method.step)(state, data)
    told = means(info)
    assert_same(new.params, expected, 1e-5)
    np.testing.assert_allclose((told["train_loss"], told["auxiliary_loss"]), both, rtol=1e-5)
    np.testing.assert_allclose(told["gradient_norm"], norm, rtol=1e-4)


def test_no_drop_path_is_drop_path_of_probability_zero() -> None:
    data, one = batch(), problem()
    state = quickly(make(one).init)(jax.random.key(0))
    without, _ = quickly(make(one, drop_path=False).step)(dataclasses.replace(state, values={}), data)
    step = quickly(make(one).step)
    zero, _ = step(state, data)
    assert_same(without, dataclasses.replace(zero, values={}), 1e-5)
    dropped, _ = step(with_drop(state, 0.5), data)
    stems = [after.params["stem"]["conv"]["kernel"] for after in (zero, dropped)]
    assert not np.allclose(*stems, rtol=1e-3)


def test_seeds_under_vmap_equal_seeds_one_by_one() -> None:
    method = make(problem())
    keys = jax.random.split(jax.random.key(3), 2)
    together = quickly(jax.vmap(method.init))(keys)
    together, _ = quickly(jax.vmap(method.step, in_axes=(0, None)))(together, batch())
    alone = quickly(method.step)
    for index, key in enumerate(keys):
        state, _ = alone(quickly(method.init)(key), batch())
        assert_same(jax.tree.map(lambda leaf, i=index: leaf[i], together), state, 1e-4)


def test_without_the_head_its_loss_is_zero_and_the_weight_nothing() -> None:
    one = problem(auxiliary=False, auxiliary_weight=9.0)
    state = quickly(make(one).init)(jax.random.key(0))
    total, seen = quickly(one.inner)(state.params, {}, View(batch(), state.stats))
    told = means(seen.totals)
    assert told["auxiliary_loss"] == 0 and float(total) == told["loss"]


def test_bfloat16_keeps_float32_weights_and_is_near() -> None:
    narrow, wide = problem(compute_dtype=jnp.bfloat16), problem()
    state = quickly(make(wide).init)(jax.random.key(0))
    (after, info), (_, expected) = (quickly(make(one).step)(state, batch()) for one in (narrow, wide))
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(info["train_loss"], expected["train_loss"], rtol=0.05)


def test_sums_leave_masked_examples_out() -> None:
    one, data = problem(), batch()
    state = quickly(make(one).init)(jax.random.key(0))
    sums = quickly(lambda mask: one.measured(state.params, state.stats, Weights({}), {}, data, mask)[0])
    masks = jnp.eye(6, dtype=bool)
    each = [sums(mask) for mask in masks]
    everything = sums(jnp.ones(6, bool))
    for name, (total, count) in everything.items():
        np.testing.assert_allclose(total, sum(float(one[name][0]) for one in each), rtol=1e-5)
        assert int(count) == 6 and all(int(one[name][1]) == 1 for one in each)
