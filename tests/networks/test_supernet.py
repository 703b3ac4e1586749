"""Is the relaxed network the references': size, drop path, any image, any space?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS, Supernet, init_alpha, softmax_weights, supernet
from jaxdarts.spaces import CELL_TYPES, SPACES, SearchSpace
from tests.images import IMAGE_SPACES

KEY = jax.random.key(3)
PAIR = SearchSpace.uniform("pair", ("skip_connect", "avg_pool_3x3"), num_nodes=1)
RAGGED = SearchSpace(
    "ragged",
    1,
    (("skip_connect",), ("none", "avg_pool_3x3", "dil_conv_3x3")),
    (("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)),
    (2,),
)
QUICKLY = {"xla_backend_optimization_level": 0}


def network(space: SearchSpace) -> Supernet:
    return Supernet(space, num_classes=3, channels=2, num_cells=3)


def images(batch: int = 4, height: int = 8, width: int = 8, channels: int = 3) -> jax.Array:
    random = np.random.default_rng(0)
    return jnp.asarray(random.normal(size=(batch, height, width, channels)), jnp.float32)


def uniform_weights(space: SearchSpace) -> dict[str, jax.Array]:
    return softmax_weights(space, {cell: jnp.zeros(space.alpha_shape(cell)) for cell in CELL_TYPES})


def initial(space: SearchSpace, x: jax.Array) -> Any:
    """Variables of the right shapes, without compiling the initialisation."""
    random = np.random.default_rng(1)
    shapes = jax.eval_shape(network(space).init, KEY, x, uniform_weights(space))
    params = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), shapes["params"])
    return {"params": params, "batch_stats": jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes["batch_stats"])}


def scores(space: SearchSpace, variables: Any, x: jax.Array, weights: Any, **options: Any) -> jax.Array:
    """Of the network in training, anew traced."""
    apply = jax.jit(lambda v, x, w: network(space).apply(v, x, w, train=True, **options), compiler_options=QUICKLY)
    return apply(variables, x, weights)


@pytest.mark.parametrize(("name", "millions"), [("s1", 0.405), ("s3", 0.665)])
def test_parameter_counts_of_the_shipped_logs(name: str, millions: float) -> None:
    space = SPACES[name]
    shapes = jax.eval_shape(Supernet(space, num_classes=10).init, KEY, images(1, 32, 32), uniform_weights(space))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert round(count / 1e6, 3) == millions


@pytest.mark.parametrize("name", sorted(IMAGE_SPACES))
def test_every_space(name: str) -> None:
    space = SPACES[name]
    alpha = init_alpha(space, KEY)
    assert set(alpha) == set(space.cell_types)
    for cell in space.cell_types:
        assert alpha[cell].shape == space.alpha_shape(cell)
        assert alpha[cell].dtype == jnp.float32
        assert 0.5e-3 < float(jnp.std(alpha[cell])) < 2e-3
    shapes = jax.eval_shape(partial(network(space).init, key=KEY), KEY, images(), softmax_weights(space, alpha))
    outputs = jax.eval_shape(partial(network(space).apply, key=KEY, train=True), shapes, images(), alpha)
    assert (outputs.shape, outputs.dtype) == ((4, 3), jnp.float32)


@pytest.mark.parametrize(("height", "width", "channels"), [(9, 11, 1), (17, 8, 5)])
def test_any_image(height: int, width: int, channels: int) -> None:
    space = SearchSpace.uniform("all", sorted(OPERATIONS), num_nodes=1)
    x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    weights = uniform_weights(space)
    shapes = jax.eval_shape(partial(network(space).init, key=KEY), KEY, x, weights)
    train = partial(network(space).apply, train=True, key=KEY, mutable=["batch_stats"])
    outputs, updated = jax.eval_shape(train, shapes, x, weights)
    assert outputs.shape == (2, 3)
    assert str(jax.tree.structure(updated["batch_stats"])) == str(jax.tree.structure(shapes["batch_stats"]))


def test_parameters_do_not_depend_on_the_image_size() -> None:
    found = [jax.eval_shape(network(PAIR).init, KEY, images(1, n, n), uniform_weights(PAIR)) for n in (8, 13)]
    shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in found]
    assert shapes[0] == shapes[1]


def test_unknown_operation() -> None:
    space = SearchSpace.uniform("wrong", ("skip_conect",), num_nodes=1)
    with pytest.raises(InputError, match="unknown operation 'skip_conect'.*did you mean 'skip_connect'"):
        jax.eval_shape(network(space).init, KEY, images(), uniform_weights(space))


def test_relaxation_of_a_ragged_space() -> None:
    alpha = init_alpha(RAGGED, KEY, scale=1.0)
    weights = softmax_weights(RAGGED, alpha)
    for cell in CELL_TYPES:
        mask = RAGGED.mask(cell)
        assert not alpha[cell][~mask].any()
        assert not weights[cell][~mask].any()
        np.testing.assert_allclose(weights[cell].sum(axis=1), 1, rtol=1e-6)
    # Single candidates have weight 1 and no slope; nothing flows to padding, and nothing is NaN.
    slopes = jax.grad(lambda a: jnp.sum(jnp.sin(3 * softmax_weights(RAGGED, a)["normal"])))(alpha)
    assert jnp.isfinite(slopes["normal"]).all()
    assert not slopes["normal"][~RAGGED.mask("normal")].any()
    np.testing.assert_allclose(slopes["normal"][0], 0, atol=1e-6)


def test_ragged_space_has_finite_gradients() -> None:
    x = images()
    variables = initial(RAGGED, x)

    def loss(variables: Any, alpha: Any) -> jax.Array:
        weights = softmax_weights(RAGGED, alpha)
        found: Any = network(RAGGED).apply(variables, x, weights, train=True, key=KEY)
        return jnp.sum(found**2)

    gradient = jax.jit(jax.grad(loss, (0, 1)), compiler_options=QUICKLY)
    found = gradient(variables, init_alpha(RAGGED, KEY))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    for cell in CELL_TYPES:
        assert not found[1][cell][~RAGGED.mask(cell)].any()
    assert found[1]["reduce"].any()


def test_noise_needs_a_key_in_training_only() -> None:
    space = SearchSpace.uniform("noisy", ("noise", "skip_connect"), num_nodes=1)
    x, weights = images(), uniform_weights(space)
    variables = jax.eval_shape(network(space).init, KEY, x, weights)
    with pytest.raises(InputError, match="noise.*key"):
        jax.eval_shape(partial(network(space).apply, train=True), variables, x, weights)
    assert jax.eval_shape(network(space).apply, variables, x, weights).shape == (4, 3)


def test_drop_path_is_drawn_per_image() -> None:
    x = jnp.tile(images(1), (8, 1, 1, 1))
    variables, weights = initial(PAIR, x), uniform_weights(PAIR)
    plain = scores(PAIR, variables, x, weights, drop_path=0.5)  # without a key nothing is dropped
    np.testing.assert_allclose(plain, np.tile(plain[:1], (8, 1)), rtol=1e-4, atol=1e-4)
    dropping = jax.jit(
        lambda drop_path, key: network(PAIR).apply(variables, x, weights, train=True, drop_path=drop_path, key=key),
        compiler_options=QUICKLY,
    )
    dropped = dropping(0.5, KEY)
    assert jnp.isfinite(dropped).all()
    assert len(np.unique(np.round(dropped, 3), axis=0)) > 2
    np.testing.assert_array_equal(dropping(0.5, KEY), dropped)
    assert not np.allclose(dropping(0.5, jax.random.key(4)), dropped, rtol=1e-2)
    np.testing.assert_allclose(dropping(0.0, KEY), plain, rtol=1e-4, atol=1e-4)


def test_drop_path_scales_whole_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates of an edge share the factor, which is the same as scaling that edge's mixing weights."""
    factors = jnp.array([0.0, 2.5])
    monkeypatch.setattr(
        supernet, "keep_mask", lambda key, drop, shape, dtype: jnp.broadcast_to(factors[:, None], shape)
    )
    x, weights = images(), uniform_weights(PAIR)
    variables = initial(PAIR, x)
    masked = scores(PAIR, variables, x, weights, drop_path=0.3, key=KEY)
    scaled = scores(PAIR, variables, x, {cell: factors[:, None] * w for cell, w in weights.items()})
    np.testing.assert_allclose(masked, scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("drop", [0.0, 0.25, 0.6])
def test_keep_mask(drop: float) -> None:
    mask = supernet.keep_mask(KEY, drop, (50, 100), jnp.float32)
    values = np.unique(mask)
    np.testing.assert_allclose(values[values > 0], 1 / (1 - drop), rtol=1e-6)
    assert float(np.mean(mask == 0)) == pytest.approx(drop, abs=0.03)
    assert float(mask.mean()) == pytest.approx(1, abs=0.06)


def test_weights_are_used_as_they_are() -> None:
    """Zero weight on an edge's operation removes it: its parameters get no gradient."""
    x = images()
    variables = initial(PAIR, x)
    only_skip = {cell: jnp.array([[1.0, 0.0]] * 2) for cell in CELL_TYPES}
    doubled = {cell: 2 * w for cell, w in only_skip.items()}
    first = scores(PAIR, variables, x, only_skip)
    assert jnp.isfinite(first).all()
    assert not np.allclose(first, scores(PAIR, variables, x, doubled), rtol=1e-3)


def test_rematerialised_cells_change_nothing(x64: None) -> None:
    space = SearchSpace.uniform("some", ("skip_connect", "max_pool_3x3", "sep_conv_3x3"), num_nodes=1)
    x = images().astype(jnp.float64)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), initial(space, x))
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), uniform_weights(space))

    def products(remat: int) -> Any:
        net = Supernet(space, 3, 2, 3, remat)

        def loss(params: Any, weights: Any) -> jax.Array:
            found: Any = net.apply({**variables, "params": params}, x, weights, train=True, drop_path=0.3, key=KEY)
            return jnp.sum(found**2)

        gradient = jax.grad(loss, (0, 1))
        point = (variables["params"], weights)
        return jax.jit(lambda p: jax.jvp(gradient, p, p), compiler_options=QUICKLY)(point)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), products(0), products(2))


@pytest.mark.parametrize("choice", ["off", "on"])
def test_rematerialised_cells_need_less_memory(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXDARTS_KERNELS", choice)
    space = SearchSpace.uniform("some", ("skip_connect", "dil_conv_3x3"), num_nodes=2)
    x = jnp.ones((16, 16, 16, 3))
    weights = uniform_weights(space)

    def temporaries(remat: int) -> int:
        net = Supernet(space, 3, 4, 6, remat)
        variables = jax.eval_shape(net.init, KEY, x, weights)

        def loss(variables: Any) -> jax.Array:
            found, _ = net.apply(variables, x, weights, train=True, mutable=["batch_stats"])
            return jnp.sum(found**2)

        return jax.jit(jax.grad(loss)).lower(variables).compile().memory_analysis().temp_size_in_bytes

    none, some, every = (temporaries(remat) for remat in (0, 2, 6))
    assert every < some < none
    assert choice == "on" or every < 0.6 * none  # with kernels there is less to save
