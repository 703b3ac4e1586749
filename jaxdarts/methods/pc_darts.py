"""PC-DARTS (Xu et al. 2020): operations get a part of the channels, and edges have weights of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.bilevel import resting
from jaxdarts.errors import InputError
from jaxdarts.methods.base import Ingredients, Method, MethodEntry
from jaxdarts.methods.parts import architecture, gradient_method
from jaxdarts.methods.relaxations import Alpha, Relaxation, tempered
from jaxdarts.networks.supernet import Weights
from jaxdarts.spaces import CellSpace

EDGES = "edges"  # the name in alpha beside the cell types


@dataclass(frozen=True)
class PcDartsSettings:
    """PC-DARTS"""

    partial_channels: int = 4
    """K: the first 1/K of a state's channels go through an edge's operations and the others pass by; divides the
    channels. 1: all go through operations."""
    edge_normalisation: bool = True
    """Edges have weights too: a softmax over the edges that lead to a node."""
    alpha_warm_up: float = 0.3
    """Part of the epochs, at the start, in which alpha rests; 0.3 is 15 of 50."""

    def __post_init__(self) -> None:
        if self.partial_channels < 1:
            raise InputError(f"partial_channels must be at least 1; got {self.partial_channels!r}")
        if not 0 <= self.alpha_warm_up < 1:
            raise InputError(f"alpha_warm_up must be at least 0 and less than 1; got {self.alpha_warm_up!r}")


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


def _network(settings: Any) -> Mapping[str, Any]:
    """What the supernet has beside. Raises InputError where K does not divide the channels."""
    if settings.channels % settings.partial_channels:
        raise InputError(f"partial_channels must divide channels, {settings.channels}; got {settings.partial_channels}")
    return {"partial_channels": settings.partial_channels}


def build_pc_darts(ingredients: Ingredients) -> Method:
    """DARTS on a part of the channels, with weights of edges, and an alpha that rests at the start.

    Cost: in the epochs in which alpha rests its gradient is computed all the same.
    """
    settings, problem = ingredients.settings, ingredients.problem
    assert problem.space is not None
    relaxation = problem.relaxation
    if settings.edge_normalisation:
        relaxation = with_edges(problem.space, relaxation, settings.alpha_init_scale)
    options: dict[str, Any] = {}
    if settings.alpha_warm_up:
        first = round(settings.alpha_warm_up * settings.epochs)  # epoch in which alpha moves
        options["alpha_optimiser"] = resting(architecture(settings, problem.space))
        options["schedules"] = {"alpha/moves": lambda epoch: float(epoch >= first)}
    return gradient_method(ingredients, relaxation, **options)


PC_DARTS = MethodEntry(
    build_pc_darts,
    "the strongest operations by alpha's weights of operations times those of edges",
    settings=(PcDartsSettings,),
    # `quick` keeps the common learning rates, which fit its small batches.
    defaults={
        "": {"hypergradient": "first_order"},
        "paper": {
            "batch_size": 256,
            "learning_rate": 0.1,
            "learning_rate_min": 0.0,
            "alpha_learning_rate": 6e-4,
        },
    },
    network=_network,
)
