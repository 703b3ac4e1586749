"""How does alpha become the mixing weights that a relaxed network takes?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.networks import init_alpha, softmax_weights
from jaxdarts.networks.supernet import Weights
from jaxdarts.spaces import CellSpace

EDGES = "edges"  # where alpha holds weights of edges, beside the cell types
Alpha: TypeAlias = Any  # a pytree of float arrays; of DARTS float[edges, operations] by cell type


class Relaxation(NamedTuple):
    """Alpha is any pytree. `values` are what schedules set, such as "temperature"; see `Problem`."""

    init: Callable[[jax.Array], Alpha]  # key -> alpha at the start
    sample: Callable[[Alpha, Mapping[str, jax.Array], jax.Array | None], Weights]
    """(alpha, values, key) -> what a step's loss mixes by: the mean weights, or a sample of them"""
    mean: Callable[[Alpha, Mapping[str, jax.Array]], Weights]
    """(alpha, values) -> what is measured and discretised"""
    uses_key: bool = False  # whether `sample` is random: its key is its own


class Mixing(NamedTuple):
    """How a relaxation's mean weights follow from alpha, for whoever reads alpha in a run's records."""

    says: str  # with {} for what they are made of, which is alpha or alpha / temperature
    weights: Callable[[np.ndarray, Sequence[str]], np.ndarray]
    """(alpha / temperature of an edge, float64[candidates], their names) -> its weights"""
    edges: str = EDGES  # where alpha holds what weights of edges are made of, if there are any
    edges_say: str = "Softmax of the edges' {} over those that lead to a node"
    edge_weights: Callable[[CellSpace, np.ndarray], np.ndarray] | None = (
        None  # (space, what is there) -> float64[edges]
    )


def numpy_softmax(alpha: np.ndarray) -> np.ndarray:
    """Of a vector, by the host."""
    exponentials = np.exp(alpha - alpha.max())
    return exponentials / exponentials.sum()


SOFTMAX = Mixing("Softmax of {} over an edge's candidates", lambda alpha, names: numpy_softmax(alpha))


def tempered(alpha: Alpha, values: Mapping[str, jax.Array]) -> Alpha:
    """Alpha divided by the value "temperature", if there is one: what a softmax is taken of."""
    if "temperature" not in values:
        return alpha
    return jax.tree.map(lambda leaf: leaf / values["temperature"], alpha)


def softmax(space: CellSpace, scale: float = 1e-3, dtype: Any = jnp.float32) -> Relaxation:
    """DARTS' relaxation (Liu et al. 2019, eq. 2): softmax over an edge's candidates of alpha / "temperature" (if any).

    `scale`: standard deviation of alpha at the start.
    """

    def init(key: jax.Array) -> Alpha:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), init_alpha(space, key, scale))

    def mean(alpha: Alpha, values: Mapping[str, jax.Array]) -> Weights:
        return Weights(softmax_weights(space, tempered(alpha, values)))

    return Relaxation(init, lambda alpha, values, key: mean(alpha, values), mean)


def as_given(init: Callable[[jax.Array], Alpha] = lambda key: {}) -> Relaxation:
    """No relaxation: what stands for alpha are mixing weights already, of which `init` makes the first."""
    weights = lambda alpha, values: Weights(alpha)  # noqa: E731
    return Relaxation(init, lambda alpha, values, key: Weights(alpha), weights)


def with_edges(space: CellSpace, base: Relaxation, scale: float = 1e-3) -> Relaxation:
    """`base` with weights of edges: a softmax over those that lead to a node (Xu et al. 2020, eq. 4).

    Alpha has a leaf more for each cell type, float[edges] at `alpha["edges"][cell]`. A "temperature" divides it too.
    `scale`: standard deviation of these at the start.
    """

    def init(key: jax.Array) -> Alpha:
        alpha_key, edges_key = jax.random.split(key)
        alpha = base.init(alpha_key)
        keys = jax.random.split(edges_key, len(space.cell_types))
        drawn = {
            cell: scale * jax.random.normal(own, (space.num_edges,), alpha[cell].dtype)
            for cell, own in zip(space.cell_types, keys, strict=True)
        }
        return {**alpha, EDGES: drawn}

    def edges(alpha: Alpha, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {cell: edge_softmax(space, value) for cell, value in tempered(alpha[EDGES], values).items()}

    def operations(alpha: Alpha) -> Alpha:
        return {cell: alpha[cell] for cell in space.cell_types}

    def sample(alpha: Alpha, values: Mapping[str, jax.Array], key: jax.Array | None) -> Weights:
        return base.sample(operations(alpha), values, key)._replace(edges=edges(alpha, values))

    def mean(alpha: Alpha, values: Mapping[str, jax.Array]) -> Weights:
        return base.mean(operations(alpha), values)._replace(edges=edges(alpha, values))

    return Relaxation(init, sample, mean, base.uses_key)


def edge_softmax(space: CellSpace, beta: jax.Array) -> jax.Array:
    """float[edges]: softmax over the edges that lead to the same node."""
    return jnp.concatenate([jax.nn.softmax(beta[space.incoming(node)]) for node in range(space.num_nodes)])
