"""Do the fast forms of depthwise and separable convolutions equal the library's, twice differentiated?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.networks import depthwise
from jaxdarts.networks.depthwise import depthwise_conv, depthwise_conv_reference, separable_conv, separable_conv_folded

# (kernel size, stride, dilation, edges of the input, edges, height, width)
CASES = [
    (3, 1, 1, 1, 2, 5, 6),
    (3, 2, 1, 1, 2, 5, 6),
    (3, 1, 1, 2, 2, 1, 4),
    (3, 2, 2, 2, 2, 5, 4),
    (5, 1, 2, 1, 1, 3, 4),
]


def arrays(size: int, edges_in: int, edges: int, height: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    shapes = ((edges_in, 2, height, width, 3), (edges, size, size, 3), (edges, 3, 2))
    x, kernel, pointwise = (jnp.asarray(random.normal(size=shape)) for shape in shapes)
    return x, kernel, pointwise


def derivatives(function: Callable[..., jax.Array], arguments: Any) -> Any:
    """Value, gradient, and forward-over-reverse derivative of a nonlinear function of the result."""

    def objective(arguments: Any) -> jax.Array:
        return jnp.sum(jnp.sin(function(*arguments)))

    along = jax.tree.map(jnp.cos, arguments)
    gradient = jax.grad(objective)
    return function(*arguments), gradient(arguments), jax.jvp(gradient, (arguments,), (along,))[1]


def compare(ours: Callable[..., jax.Array], reference: Callable[..., jax.Array], arguments: Any) -> None:
    # Compiling takes all the time here, so optimise little.
    options = {"xla_backend_optimization_level": 0}
    found, expected = (
        jax.jit(lambda a, f=f: derivatives(f, a), compiler_options=options)(arguments) for f in (ours, reference)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), found, expected)


@pytest.mark.parametrize(("size", "stride", "dilation", "edges_in", "edges", "height", "width"), CASES)
def test_depthwise(
    size: int, stride: int, dilation: int, edges_in: int, edges: int, height: int, width: int, x64: None
) -> None:
    x, kernel, _ = arrays(size, edges_in, edges, height, width)
    y = depthwise_conv_reference(x, kernel, stride=stride, dilation=dilation)
    assert y.shape == (edges, 2, -(-height // stride), -(-width // stride), 3)
    compare(
        lambda x, k: depthwise_conv(x, k, stride=stride, dilation=dilation),
        lambda x, k: depthwise_conv_reference(x, k, stride=stride, dilation=dilation),
        (x, kernel),
    )


@pytest.mark.parametrize(("size", "stride", "dilation", "edges_in", "edges", "height", "width"), CASES[1:4:2])
def test_separable(
    size: int, stride: int, dilation: int, edges_in: int, edges: int, height: int, width: int, x64: None
) -> None:
    compare(
        lambda x, k, p: separable_conv_folded(x, k, p, stride=stride, dilation=dilation),
        lambda x, k, p: jnp.einsum(
            "ebhwc,ecd->ebhwd", depthwise_conv_reference(x, k, stride=stride, dilation=dilation), p
        ),
        arrays(size, edges_in, edges, height, width),
    )


def test_separable_form_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    arguments = arrays(3, 1, 2, 5, 4)
    folded = separable_conv(*arguments, stride=2)
    monkeypatch.setattr(depthwise, "FOLD_MAX_CHANNELS", 0)
    np.testing.assert_allclose(separable_conv(*arguments, stride=2), folded, rtol=1e-12)


def test_naive_depthwise(x64: None) -> None:
    """The library form itself, against loops."""
    x, kernel, _ = arrays(3, 1, 2, 4, 5)
    y = depthwise_conv_reference(x, kernel, stride=2, dilation=2)
    padded = np.pad(np.asarray(x), ((0, 0), (0, 0), (2, 2), (2, 2), (0, 0)))
    for edge, i, j in np.ndindex(2, 2, 3):
        window = padded[0, :, 2 * i : 2 * i + 5 : 2, 2 * j : 2 * j + 5 : 2]
        np.testing.assert_allclose(y[edge, :, i, j], np.einsum("bijc,ijc->bc", window, kernel[edge]), rtol=1e-12)
