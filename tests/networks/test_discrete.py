"""Is the discrete network the references': size, auxiliary head, drop path, any genotype?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import MACROS, DiscreteNetwork, discrete, init_alpha, softmax_weights
from jaxdarts.spaces import SPACES, Genotype, discretise
from tests.images import IMAGE_SPACES

KEY = jax.random.key(3)
QUICKLY = {"xla_backend_optimization_level": 0}
DARTS_V2 = Genotype.from_text(
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    " ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6),"
    " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),"
    " ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)


def genotype(normal: str, reduce: str) -> Genotype:
    """One node a cell."""
    return Genotype(((normal, 0), (normal, 1)), (2,), ((reduce, 0), (reduce, 1)), (2,))


def network(genotype: Genotype, auxiliary: bool = False) -> DiscreteNetwork:
    return DiscreteNetwork(genotype, num_classes=3, channels=2, num_cells=3, auxiliary=auxiliary)


def images(height: int = 8, width: int = 8, channels: int = 3) -> jax.Array:
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(4, height, width, channels)), jnp.float32)


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_count_of_the_published_network() -> None:
    def params(auxiliary: bool) -> Any:
        net = DiscreteNetwork(DARTS_V2, num_classes=10, auxiliary=auxiliary)
        return jax.eval_shape(net.init, KEY, images(32, 32))["params"]

    # 3.3 million in Liu et al. 2019; its code logs 3.349342 and leaves the auxiliary head out.
    assert count(params(auxiliary=False)) == 3_349_342
    head = 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert count(params(auxiliary=True)) == 3_349_342 + head


@pytest.mark.parametrize("name", sorted(IMAGE_SPACES))
def test_every_space_down_to_its_discrete_network(name: str) -> None:
    space = SPACES[name]
    found = discretise(space, softmax_weights(space, init_alpha(space, KEY)))
    net, x = network(found, auxiliary=True), images()
    shapes = jax.eval_shape(partial(net.init, key=KEY), KEY, x)
    train = partial(net.apply, train=True, key=KEY, drop_path=0.2, mutable=["batch_stats"])
    (scores, auxiliary), _ = jax.eval_shape(train, shapes, x)
    assert scores.shape == (4, 3)
    assert (auxiliary is None) != MACROS[space.macro].auxiliary
    scores, auxiliary = jax.eval_shape(net.apply, shapes, x)
    assert scores.shape == (4, 3)
    assert auxiliary is None


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (9, 11, 2), (17, 13, 5), (40, 36, 3)])
def test_any_image(height: int, width: int, channels: int) -> None:
    net, x = network(DARTS_V2, auxiliary=True), images(height, width, channels)
    shapes = jax.eval_shape(net.init, KEY, x)
    scores, auxiliary = jax.eval_shape(partial(net.apply, train=True), shapes, x)
    assert scores.shape == auxiliary.shape == (4, 3)


def test_no_auxiliary_head() -> None:
    net = network(DARTS_V2, auxiliary=False)
    shapes = jax.eval_shape(net.init, KEY, images())
    assert jax.eval_shape(partial(net.apply, train=True), shapes, images())[1] is None
    assert "auxiliary" not in str(jax.tree_util.tree_structure(shapes))


def test_operations_that_compute_nothing() -> None:
    """A published genotype may hold `none`; a node without any input is zero, in the size of its cell's outputs."""
    net, x = network(genotype("none", "none")), images(9, 9)
    shapes = jax.eval_shape(net.init, KEY, x)
    assert jax.eval_shape(partial(net.apply, train=True), shapes, x)[0].shape == (4, 3)
    mixed = Genotype((("none", 0), ("none", 1), ("skip_connect", 2), ("skip_connect", 0)), (2, 3),
                     (("none", 0), ("none", 1), ("skip_connect", 2), ("max_pool_3x3", 0)), (2, 3))  # fmt: skip
    net = network(mixed)
    shapes = jax.eval_shape(net.init, KEY, x)
    assert jax.eval_shape(partial(net.apply, train=True), shapes, x)[0].shape == (4, 3)


def test_unknown_operation() -> None:
    with pytest.raises(InputError, match="unknown operation 'sep_conv_9x9'; choose from"):
        jax.eval_shape(network(genotype("sep_conv_9x9", "skip_connect")).init, KEY, images())


@pytest.mark.parametrize(
    ("normal", "reduce", "cell", "changes"),
    [
        ("skip_connect", "max_pool_3x3", 0, False),  # an identity is never dropped
        ("sep_conv_3x3", "max_pool_3x3", 0, True),
        ("skip_connect", "skip_connect", 1, True),  # with stride 2 it is no identity
    ],
)
def test_drop_path_spares_identities(
    monkeypatch: pytest.MonkeyPatch, normal: str, reduce: str, cell: int, changes: bool
) -> None:
    """Factors that differ between images and edges in one cell alone show in the scores, or don't."""
    calls: list[tuple[int, ...]] = []

    def keep_mask(key: Any, drop: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        calls.append(shape)
        mask = 1 + jnp.arange(shape[0] * shape[1], dtype=dtype).reshape(shape)
        return mask if len(calls) == cell + 1 else jnp.ones(shape, dtype)

    net, x = network(genotype(normal, reduce)), images()
    variables = jax.jit(net.init, compiler_options=QUICKLY)(KEY, x)
    plain = jax.jit(lambda v, x: net.apply(v, x, train=True)[0], compiler_options=QUICKLY)(variables, x)
    monkeypatch.setattr(discrete, "keep_mask", keep_mask)
    dropping = jax.jit(lambda v, x: net.apply(v, x, train=True, drop_path=0.5, key=KEY)[0], compiler_options=QUICKLY)
    dropped = dropping(variables, x)
    assert calls == [(2, 4)] * 3
    assert np.allclose(dropped, plain, rtol=1e-4, atol=1e-5) != changes


def test_evaluation_ignores_drop_path_and_the_other_images() -> None:
    net, x = network(genotype("sep_conv_3x3", "max_pool_3x3")), images()
    variables = jax.jit(net.init, compiler_options=QUICKLY)(KEY, x)
    apply = jax.jit(partial(net.apply, drop_path=0.5, key=KEY), compiler_options=QUICKLY)
    scores, _ = apply(variables, x)
    other, _ = apply(variables, x.at[1:].set(0.0))
    np.testing.assert_allclose(scores[0], other[0], rtol=1e-4, atol=1e-5)


def test_a_node_that_does_not_exist_is_one_less_and_not_zero() -> None:
    """State 3 doesn't exist: the same as with `none` on its edges and on that from it, and concatenated without it."""
    edge = ("sep_conv_3x3", 0)
    sparse = Genotype(
        (edge, ("skip_connect", 3), ("max_pool_3x3", 2)), (2, 3, 4),
        (edge, ("skip_connect", 1), ("avg_pool_3x3", 2)), (2, 3, 4), (1, 0, 2), (2, 1, 0),
    )  # fmt: skip
    nothing = ("none", 0)
    whole = Genotype(
        (edge, nothing, nothing, nothing, ("max_pool_3x3", 2), nothing), (2, 4),
        (edge, ("skip_connect", 1), ("avg_pool_3x3", 2), nothing, nothing, nothing), (2, 3),
    )  # fmt: skip
    x, networks = images(), [network(genotype, auxiliary=True) for genotype in (sparse, whole)]
    variables = jax.jit(networks[0].init, compiler_options=QUICKLY)(KEY, x)
    shapes = jax.eval_shape(networks[1].init, KEY, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    found = []
    for net in networks:
        run = jax.jit(lambda v, x, net=net: net.apply(v, x, train=True, mutable=["batch_stats"])[0])
        found.append(jax.tree.leaves(run(variables, x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)


def test_both_types_of_cell_have_channels_of_their_own() -> None:
    """By hand: cells of 2, 4 and 8 channels with two nodes, one and one; the classifier reads 8."""
    edge = ("skip_connect", 0)
    net = network(Genotype((edge, edge), (2, 3), (edge,), (2, 3), (1, 1), (0, 1)))
    params = jax.eval_shape(net.init, KEY, images())["params"]
    assert params["classifier"]["linear"]["kernel"].shape == (8, 3)
    read = [params[f"cell_{cell}"][f"preprocess_{i}"]["kernel"].shape for cell, i in ((1, 0), (1, 1), (2, 1))]
    assert read == [(1, 4, 6), (1, 4, 4), (1, 8, 4)]
    assert params["cell_2"]["preprocess_0"]["conv_1"]["kernel"].shape == (1, 4, 4)
