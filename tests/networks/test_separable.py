"""Do separable convolutions computed together equal the library's one by one, twice differentiated?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.networks import separable
from jaxdarts.networks.separable import Kernels, separable_convs
from tests.networks.test_depthwise import compare

KINDS = ((3, 1, 2), (5, 1, 1), (3, 2, 1))  # size, dilation, edges


def library(x: jax.Array, groups: list[Kernels], stride: int) -> jax.Array:
    outputs, row = [], 0
    for depthwise, pointwise, dilation in groups:
        padding = (dilation * (depthwise.shape[-1] // 2),) * 2
        for taps, mixing in zip(depthwise, pointwise, strict=True):
            y = jax.lax.conv_general_dilated(
                x[min(row, x.shape[0] - 1)],
                taps[:, None],
                (stride, stride),
                (padding, padding),
                rhs_dilation=(dilation, dilation),
                dimension_numbers=("CHWN", "OIHW", "CHWN"),
                feature_group_count=x.shape[1],
            )
            outputs.append(jnp.einsum("dc,chwb->dhwb", mixing, y))
            row += 1
    return jnp.stack(outputs)


@pytest.mark.parametrize("form", ["matrix", "channels last"])
@pytest.mark.parametrize(
    ("rows", "stride", "height", "width"), [(1, 1, 3, 4), (4, 1, 4, 3), (1, 2, 5, 4), (4, 2, 2, 5), (1, 1, 1, 1)]
)
def test_equals_the_library(
    form: str, rows: int, stride: int, height: int, width: int, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separable, "MATRIX_MAX_ENTRIES", 4096 if form == "matrix" else 0)
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(rows, 3, height, width, 2)))
    arrays = [
        (jnp.asarray(random.normal(size=(edges, 3, size, size))), jnp.asarray(random.normal(size=(edges, 2, 3))))
        for size, _, edges in KINDS
    ]

    def groups(arrays: Any) -> list[Kernels]:
        return [Kernels(*pair, dilation) for pair, (_, dilation, _) in zip(arrays, KINDS, strict=True)]

    y = separable_convs(x, groups(arrays), stride)
    assert y.shape == (4, 2, -(-height // stride), -(-width // stride), 2)
    compare(
        lambda x, arrays: separable_convs(x, groups(arrays), stride),
        lambda x, arrays: library(x, groups(arrays), stride),
        (x, arrays),
    )
