"""Do separable convolutions computed together equal the library's one by one, twice differentiated?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxdarts.networks import DiscreteNetwork, Supernet, separable
from jaxdarts.networks.separable import Kernels, separable_convs
from jaxdarts.spaces import SearchSpace, discretise

SPACE = SearchSpace.uniform("one", ("sep_conv_3x3",), num_nodes=1)
GENOTYPE = discretise(SPACE, {cell: np.ones(SPACE.alpha_shape(cell)) for cell in SPACE.cell_types})

KINDS = ((3, 1, 2), (5, 1, 1), (3, 2, 1))  # size, dilation, edges


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


def convolved(x: jax.Array, groups: list[Kernels], stride: int) -> np.ndarray:
    """By loops over taps: the definition."""
    outputs, row = [], 0
    for depthwise, pointwise, dilation in groups:
        size = depthwise.shape[-1]
        padding = dilation * (size // 2)
        for taps, mixing in zip(np.asarray(depthwise), np.asarray(pointwise), strict=True):
            image = np.asarray(x[min(row, x.shape[0] - 1)])
            padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
            total = np.zeros_like(image)
            for i in range(size):
                for j in range(size):
                    window = padded[:, i * dilation :, j * dilation :][:, : image.shape[1], : image.shape[2]]
                    total += taps[:, i, j][:, None, None, None] * window
            outputs.append(np.einsum("dc,chwb->dhwb", mixing, total[:, ::stride, ::stride]))
            row += 1
    return np.stack(outputs)


@pytest.mark.parametrize(
    ("rows", "stride", "height", "width"),
    [(1, 1, 3, 4), (4, 1, 4, 3), (1, 2, 5, 4), (4, 2, 2, 5), (1, 1, 1, 1), (4, 2, 9, 7)],
)
def test_forms_equal_the_library_and_it_the_definition(
    rows: int, stride: int, height: int, width: int, x64: None
) -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(rows, 3, height, width, 2)))
    arrays = [
        (jnp.asarray(random.normal(size=(edges, 3, size, size))), jnp.asarray(random.normal(size=(edges, 2, 3))))
        for size, _, edges in KINDS
    ]

    def groups(arrays: Any) -> list[Kernels]:
        return [Kernels(*pair, dilation) for pair, (_, dilation, _) in zip(arrays, KINDS, strict=True)]

    y = separable_convs(x, groups(arrays), stride)
    np.testing.assert_allclose(y, convolved(x, groups(arrays), stride), rtol=1e-10, atol=1e-12)
    for form in (separable.matrix, separable.columns):
        compare(
            lambda x, arrays, form=form: form(x, groups(arrays), stride),
            lambda x, arrays: separable.library(x, groups(arrays), stride),
            (x, arrays),
        )


def test_large_images_take_columns(monkeypatch: pytest.MonkeyPatch, x64: None) -> None:
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(1, 2, 5, 6, 3)))
    kernels = [Kernels(jnp.asarray(random.normal(size=(2, 2, 3, 3))), jnp.asarray(random.normal(size=(2, 2, 2))), 1)]
    small = separable_convs(x, kernels, 1)
    monkeypatch.setattr(separable, "MATRIX_MAX_ENTRIES", 0)
    np.testing.assert_allclose(separable_convs(x, kernels, 1), small, rtol=1e-11)


@pytest.mark.parametrize(("platform", "grouped"), [("cuda", True), ("cpu", False), (None, False)])
def test_the_form_is_that_of_the_platform_asked_for(platform: str | None, grouped: bool) -> None:
    """Exported on a CPU for a GPU, a program has the GPU's form; asked for nothing, the host's own."""
    kernels = Kernels(jnp.ones((2, 4, 3, 3)), jnp.ones((2, 4, 4)), 1)
    one = jax.jit(lambda x: separable_convs(x, [kernels], 1, platform))
    x = jax.ShapeDtypeStruct((1, 4, 8, 8, 2), jnp.float32)
    text = export.export(one, platforms=[platform or "cpu"])(x).mlir_module()
    assert ("stablehlo.convolution" in text) == grouped


@pytest.mark.parametrize(
    "build",
    [
        lambda p: Supernet(SPACE, 3, 2, 3, platform=p),
        lambda p: Supernet(SPACE, 3, 2, 3, remat=1, platform=p),
        lambda p: DiscreteNetwork(GENOTYPE, 3, 2, 3, platform=p),
    ],
)
def test_networks_pass_the_platform_on(build: Callable[[str | None], Any]) -> None:
    """Three cells of one separable convolution that reads each input: six, of two layers each."""
    ones = [{cell: jnp.ones(SPACE.alpha_shape(cell)) for cell in SPACE.cell_types}]

    def grouped(platform: str | None) -> int:
        network = build(platform)
        arguments = (jnp.zeros((2, 8, 8, 3)), *(ones if isinstance(network, Supernet) else []))
        shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)
        apply = lambda v, a: network.apply(v, *a, train=True, mutable=["batch_stats"])[0]  # noqa: E731
        return str(jax.make_jaxpr(apply)(shapes, arguments)).count("conv_general_dilated[") - 1  # the stem's

    assert [grouped(platform) for platform in (None, "cpu", "cuda")] == [0, 0, 12]
