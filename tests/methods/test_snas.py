"""Are the samples of SNAS and DSNAS those of alpha, and does alpha learn through them as the papers say?"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods.base import View
from jaxdarts.methods.dsnas import rewarded
from jaxdarts.methods.relaxations import as_given, softmax
from jaxdarts.methods.sampling import log_probabilities, one_hot_largest, soft_sample, standard_gumbel
from jaxdarts.methods.snas import TEMPERATURE, concrete, log_costs, resource_loss
from jaxdarts.networks import Weights, network_cost
from jaxdarts.networks.cost import candidate_costs
from jaxdarts.spaces import DARTS, NASBENCH201, CellSpace, discretise
from tests.methods import making, toy
from tests.methods.making import RAGGED, batches, settings_of, started
from tests.methods.toy import SPACE

ALPHA = {"normal": jnp.asarray([[0.5, -1.0, 7.0], [0.0, 1.0, 2.0]]), "reduce": jnp.asarray([[1.0, 0, 2], [3.0, 0, 7]])}


def test_samples_are_those_of_softmax_and_padding_is_never_sampled() -> None:
    draw, count = standard_gumbel(SPACE), 4000

    def one(key: jax.Array) -> Any:
        return one_hot_largest(soft_sample(SPACE, ALPHA, draw(key), jnp.asarray(0.5)))

    samples = jax.vmap(one)(jax.random.split(jax.random.key(0), count))
    for cell, logs in log_probabilities(SPACE, ALPHA).items():
        expected = np.exp(logs)
        found = samples[cell].mean(axis=0)
        deviation = np.sqrt(expected * (1 - expected) / count)
        assert (np.abs(found - expected) < 4.5 * deviation + 1e-9).all()
        assert (found[~SPACE.mask(cell)] == 0).all()


def test_soft_samples_by_hand() -> None:
    noise = {cell: jnp.ones_like(value).at[0, 0].set(2.0) for cell, value in ALPHA.items()}
    relaxation = concrete(SPACE, softmax(SPACE), lambda key: noise)
    found = relaxation.sample(ALPHA, {TEMPERATURE: jnp.asarray(2.0)}, jax.random.key(0)).operations["normal"]
    raw = np.exp([(0.5 + 2) / 2, (-1 + 1) / 2])
    np.testing.assert_allclose(found[0], [*(raw / raw.sum()), 0], rtol=1e-6)
    mean = relaxation.mean(ALPHA, {TEMPERATURE: jnp.asarray(2.0)}).operations["normal"]
    np.testing.assert_allclose(mean[1], np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum(), rtol=1e-6)


@pytest.mark.parametrize("entropy", [False, True])
def test_the_reward_of_an_edge_multiplies_the_score(entropy: bool) -> None:
    """Gradient of alpha: R (z - p), R the derivative in the sampled weight; with the entropy's gradient as well."""
    relaxation = rewarded(SPACE, softmax(SPACE), entropy)
    key, slopes = jax.random.key(3), {cell: jnp.asarray([[2.0, -3, 5], [7.0, 11, -13]]) for cell in ALPHA}
    weights, pull = jax.vjp(lambda a: relaxation.sample(a, {}, key).operations, ALPHA)
    (found,) = pull(slopes)
    for cell, z in weights.items():
        assert set(np.unique(z)) == {0.0, 1.0} and (z.sum(axis=-1) == 1).all()
        p = np.exp(log_probabilities(SPACE, ALPHA)[cell])
        reward = (slopes[cell] * z).sum(axis=-1, keepdims=True)
        score = z - p
        if entropy:
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.where(p > 0, np.log(p), 0)
            score += -p * (logs - (p * logs).sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(found[cell], reward * score, rtol=1e-4, atol=1e-6)
        assert (found[cell][~SPACE.mask(cell)] == 0).all()


@pytest.mark.parametrize("name", ["snas", "dsnas"])
def test_one_gradient_of_both_batches(name: str) -> None:
    """w and alpha move by the mean loss of the two batches together, under one sample."""
    method = toy.make(name)
    state = started(method)
    train, valid = batches(2)
    _, totals = method.step(state, train, valid)
    key = jax.random.split(jax.random.fold_in(state.key, state.step))[0]
    own_key = jax.random.split(key)[0]
    weights = method.problem.relaxation.sample(state.alpha, state.values, own_key)
    given = dataclasses.replace(method.problem, relaxation=as_given())
    halves = [given.outer(state.params, weights.operations, View(batch, state.stats)) for batch in (train, valid)]
    together = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), train, valid)
    loss, seen = given.outer(state.params, weights.operations, View(together, state.stats))
    np.testing.assert_allclose(totals["train_loss"][0], loss, rtol=1e-6)
    assert int(totals["train_accuracy"][1]) == 8
    assert float(loss) != pytest.approx(float(halves[0][0]), rel=1e-6)


@pytest.mark.parametrize("space", [DARTS, RAGGED, NASBENCH201], ids=lambda space: space.name)
def test_costs_of_a_genotypes_operations_add_up_to_its_networks(space: CellSpace) -> None:
    """Two genotypes that differ in their operations differ by these operations' costs."""
    channels, cells, shape = 4, 3, (9, 8, 3)
    costs = candidate_costs(space, channels, cells, shape)
    for resource in ("weights", "multiply_adds"):
        totals, own = [], []
        for seed in (0, 1):
            weights = {
                cell: np.asarray(jax.random.uniform(jax.random.key(seed), space.alpha_shape(cell)))
                for cell in space.cell_types
            }
            genotype = discretise(space, weights)
            network = network_cost(genotype, 5, channels, cells, shape)
            totals.append(sum(getattr(layer, resource) for layer in network.layers))
            count = 0
            for cell, edges in costs:
                for node, (operation, source) in zip(genotype.nodes(cell), genotype.edges(cell), strict=True):
                    edge = space.incoming(node).start + source
                    column = space.operations(cell)[edge].index(operation)
                    count += sum(getattr(layer, resource) for layer in edges[edge][column])
            own.append(count)
        assert totals[0] - totals[1] == own[0] - own[1]


def test_the_resource_loss_by_hand() -> None:
    """ln of each edge's expected cost, at least 1; the mean over cells of a type, the sum over types."""
    table = [("normal", np.array([[0, 4], [2, 8]])), ("reduce", np.array([[1, 1], [1, 1]])), ("normal", np.eye(2))]
    weights = Weights({"normal": jnp.asarray([[0.5, 0.5], [0.0, 1.0]]), "reduce": jnp.ones((2, 2)) / 2})
    normal = np.log(2) + np.log(8) + 0 + 0
    np.testing.assert_allclose(log_costs([table], weights)["normal"], normal, rtol=1e-6)
    np.testing.assert_allclose(resource_loss(3.0, table)(weights), 3 * normal / 2, rtol=1e-6)


def test_resources_are_part_of_what_alpha_minimises() -> None:
    """Of equally good operations the cheap ones win."""
    space = making.SPACE.uniform("costly", ("skip_connect", "sep_conv_3x3"), num_nodes=1)
    slopes = []
    for weight in (0.0, 100.0):
        method = making.make("snas", space, snas_resource_weight=weight)
        state = started(method)
        view = View(batches()[0], state.stats, (), state.values, jax.random.key(0))
        slope = jax.jit(jax.grad(lambda a, m=method, s=state, v=view: m.problem.outer(s.params, a, v)[0]))(state.alpha)
        slopes.append(slope["normal"])
    extra = slopes[1] - slopes[0]
    assert (extra[:, 1] > 1).all() and (extra[:, 0] < -1).all()


def test_published_settings_and_wrong_ones() -> None:
    schedule = toy.make("snas", epochs=150).schedules[TEMPERATURE]
    np.testing.assert_allclose([schedule(0), schedule(149)], [0.03 + 0.97 * 149 / 150, 0.03])
    for name in ("snas", "dsnas"):
        settings = settings_of(name, preset="paper")
        assert settings.single_level and settings.alpha_clip_norm == 10 and settings.alpha_init_scale == 0.01
    assert not settings_of("snas", single_level=False, hypergradient="unrolled").single_level
    for wrong, message in (
        ({"snas_temperature_end": 0.0}, "snas_temperature_end must be greater than 0; got 0"),
        ({"snas_temperature_start": -1.0}, "snas_temperature_start must be greater than 0; got -1"),
        ({"snas_resource_weight": -1.0}, "snas_resource_weight must be at least 0; got -1"),
        ({"snas_resource": "size", "snas_resource_weight": 1.0}, "unknown snas_resource 'size'"),
        ({"snas_resource": "multiply_adds"}, "snas_resource 'multiply_adds' is only for snas_resource_weight above 0"),
        ({"hypergradient": "unrolled"}, "hypergradient must be first_order with single_level"),
    ):
        with pytest.raises(InputError, match=message):
            settings_of("snas", **wrong)
