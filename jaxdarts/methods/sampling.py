"""How is an edge's operation sampled from alpha, and how does alpha learn through the sample?"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxdarts.spaces import CellSpace

Draw = Callable[[jax.Array], Mapping[str, jax.Array]]
"""key -> random numbers float[edges, operations] for each cell type"""


def standard_gumbel(space: CellSpace) -> Draw:
    """Independent numbers for every entry of alpha."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, len(space.cell_types))
        return {
            cell: jax.random.gumbel(own, space.alpha_shape(cell))
            for cell, own in zip(space.cell_types, keys, strict=True)
        }

    return draw


def log_probabilities(space: CellSpace, alpha: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """log softmax of alpha over an edge's candidates; -inf for entries that pad a list."""
    masks = {cell: jnp.asarray(space.mask(cell)) for cell in space.cell_types}
    return {cell: jax.nn.log_softmax(jnp.where(mask, alpha[cell], -jnp.inf), axis=-1) for cell, mask in masks.items()}


def soft_sample(
    space: CellSpace, alpha: Mapping[str, jax.Array], noise: Mapping[str, jax.Array], temperature: jax.Array
) -> dict[str, jax.Array]:
    """A sample of the concrete distribution: softmax of (log softmax(alpha) + noise) / temperature.

    Maddison et al. 2017 and Jang et al. 2017; Dong and Yang 2019, eq. 6. Its largest entry is a sample of
    softmax(alpha), whatever the temperature.

    Args:
      space: whose alpha; entries that pad a list are 0.
      alpha, noise: float[edges, operations] for each cell type; standard Gumbel numbers.
      temperature: scalar.
    """
    logs = log_probabilities(space, alpha)
    return {cell: jax.nn.softmax((logs[cell] + noise[cell]) / temperature, axis=-1) for cell in space.cell_types}


def one_hot_largest(soft: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """1 at an edge's largest entry, the first of equals, and 0 elsewhere; without a gradient."""
    return {
        cell: jax.nn.one_hot(value.argmax(axis=-1), value.shape[-1], dtype=value.dtype) for cell, value in soft.items()
    }


def drawn_as(draw: Draw, alpha: Mapping[str, jax.Array], key: jax.Array | None) -> dict[str, jax.Array]:
    """Random numbers in alpha's precision."""
    assert key is not None
    return {cell: value.astype(alpha[cell].dtype) for cell, value in draw(key).items()}
