"""Products and dense Hessians against jax.hessian, closed forms and float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.curvature import batched_hvp, hessian, hvp, hvp_function
from jaxdarts.errors import InputError


def dense(f: Any, x: Any) -> jax.Array:
    flat, unravel = ravel_pytree(x)
    return jax.jit(jax.hessian(lambda vector: f(unravel(vector))))(flat)


def random_like(x: Any, seed: int = 5) -> Any:
    flat, unravel = ravel_pytree(x)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=flat.shape), flat.dtype))


@pytest.mark.parametrize("linearize", [True, False])
def test_products_equal_the_dense_hessian(mixed_network: Any, linearize: bool) -> None:
    f, alpha = mixed_network()
    v = random_like(alpha)
    expected = dense(f, alpha) @ ravel_pytree(v)[0]
    for form in (lambda a, v: hvp(f, a, v), lambda a, v: hvp_function(f, a, linearize=linearize)(v)):
        product = jax.jit(form)(alpha, v)
        assert jax.tree.structure(product) == jax.tree.structure(alpha)
        np.testing.assert_allclose(ravel_pytree(product)[0], expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_batched_products_equal_single_ones(mixed_network: Any, batch_size: int | None) -> None:
    f, alpha = mixed_network()
    vs = [random_like(alpha, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *vs)
    products = jax.jit(lambda v: batched_hvp(f, alpha, v, batch_size))(stacked)
    single = jax.jit(lambda v: hvp(f, alpha, v))
    for i, v in enumerate(vs):
        jax.tree.map(lambda got, want, i=i: np.testing.assert_allclose(got[i], want, atol=1e-6), products, single(v))


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_hessian_equals_jax_hessian(mixed_network: Any, batch_size: int | None, x64: None) -> None:
    f, alpha = mixed_network(dtype=jnp.float64)
    ours = jax.jit(lambda a: hessian(f, a, batch_size))(alpha)
    np.testing.assert_allclose(ours, dense(f, alpha), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(ours, ours.T, atol=1e-15)


def test_rows_are_normal_then_reduce() -> None:
    scale = {"normal": jnp.array([[1.0, 2.0]]), "reduce": jnp.array([3.0])}

    def f(alpha: Any) -> jax.Array:
        return sum(jnp.sum(scale[name] * alpha[name] ** 2) / 2 for name in scale)

    x = {"reduce": jnp.ones(1), "normal": jnp.ones((1, 2))}
    np.testing.assert_array_equal(hessian(f, x), jnp.diag(jnp.array([1.0, 2.0, 3.0])))


def test_product_written_by_hand() -> None:
    """f = a^2 b + sin(b c): its second derivatives on paper, times a vector."""
    a, b, c = 0.7, -0.4, 1.3
    sine, cosine = np.sin(b * c), np.cos(b * c)
    rows = [
        [2 * b, 2 * a, 0],
        [2 * a, -(c**2) * sine, cosine - b * c * sine],
        [0, cosine - b * c * sine, -(b**2) * sine],
    ]
    v = np.array([1.0, -2.0, 0.5])

    def f(x: Any) -> jax.Array:
        return x["a"] ** 2 * x["b"] + jnp.sin(x["b"] * x["c"])

    product = hvp(f, *({"a": x[0], "b": x[1], "c": x[2]} for x in (jnp.array([a, b, c]), jnp.asarray(v))))
    np.testing.assert_allclose([product["a"], product["b"], product["c"]], rows @ v, rtol=1e-5)


def test_a_function_that_gives_more_than_a_scalar() -> None:
    x = jnp.ones(3)
    for ask in (lambda f: hvp(f, x, x), lambda f: hvp_function(f, x), lambda f: hessian(f, x)):
        for f in (lambda x: 2 * x, lambda x: (jnp.sum(x**2), None)):
            with pytest.raises(InputError, match="f must return one scalar"):
                ask(f)


def test_vmap_over_the_point(mixed_network: Any) -> None:
    f, alpha = mixed_network()
    points = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), alpha)
    batched = jax.jit(jax.vmap(lambda a: hessian(f, a)))(points)
    for i in range(2):
        np.testing.assert_allclose(batched[i], dense(f, jax.tree.map(lambda leaf, i=i: leaf[i], points)), atol=1e-6)


def test_half_precision_keeps_its_leaves() -> None:
    product = hvp(lambda x: jnp.sum(x**3), jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.bfloat16))
    assert product.dtype == jnp.bfloat16
    np.testing.assert_array_equal(product.astype(jnp.float32), [6.0, 6.0])


@jax.custom_vjp
def scaled(w: jax.Array, x: jax.Array) -> jax.Array:
    return w * x


scaled.defvjp(lambda w, x: (w * x, (w, x)), lambda kept, g: (g * kept[1], g * kept[0]))


def stem_then_mix(w: jax.Array, alpha: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(scaled(alpha, jnp.tanh(scaled(w, jnp.arange(1.0, 4.0))))) ** 2)


def test_custom_vjp_layers_that_do_not_depend_on_x() -> None:
    """The trap in the module's docstring: products by one argument are safe, a mixed product is not."""
    w, alpha = jnp.full(3, 0.3), jnp.full(3, 0.7)

    def plain(alpha: jax.Array) -> jax.Array:
        return jnp.sum(jnp.tanh(alpha * jnp.tanh(w * jnp.arange(1.0, 4.0))) ** 2)

    np.testing.assert_allclose(hessian(lambda a: stem_then_mix(w, a), alpha), jax.hessian(plain)(alpha), rtol=1e-5)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda w: jax.grad(stem_then_mix, 1)(w, alpha), (w,), (w,))
    both = jax.jvp(lambda w: jax.grad(stem_then_mix, (0, 1))(w, alpha)[1], (w,), (w,))[1]
    together = hvp(lambda pair: stem_then_mix(*pair), (w, alpha), (w, jnp.zeros(3)))[1]
    np.testing.assert_allclose(both, together, rtol=1e-6)


def test_a_vector_of_another_shape_is_refused() -> None:
    def f(x: Any) -> jax.Array:
        return jnp.sum(x["a"] ** 2)

    x = {"a": jnp.ones(3)}
    with pytest.raises(InputError, match=r"v\['a'\] has shape \(2,\)"):
        hvp(f, x, {"a": jnp.ones(2)})
    with pytest.raises(InputError, match="structure"):
        hvp(f, x, {"b": jnp.ones(3)})
    with pytest.raises(InputError, match="after its first axis"):
        batched_hvp(f, x, {"a": jnp.ones(3)})


def test_bad_points_are_refused() -> None:
    for call in (lambda x: hvp(jnp.sum, x, x), lambda x: hvp_function(jnp.sum, x), lambda x: hessian(jnp.sum, x)):
        with pytest.raises(InputError, match="x has dtype int32"):
            call(jnp.ones(2, jnp.int32))
        with pytest.raises(InputError, match="x holds no numbers"):
            call(())
    with pytest.raises(InputError, match="batch_size"):
        hessian(jnp.sum, jnp.ones(2), batch_size=0)
