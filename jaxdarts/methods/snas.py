"""SNAS (Xie et al. 2019): mixing weights are samples of a concrete distribution, which alpha learns through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdarts.checks import at_least, positive
from jaxdarts.methods.base import CLASSIFICATION_ONLY, Ingredients, Method, MethodEntry, Problem
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha, Relaxation, tempered
from jaxdarts.methods.sampling import Draw, drawn_as, soft_sample, standard_gumbel
from jaxdarts.networks.cost import LayerCost, candidate_costs
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group, Use
from jaxdarts.spaces import CellSpace

TEMPERATURE = "snas_temperature"  # the scheduled value
CostTable = Sequence[tuple[str, Any]]
"""For each cell of the network its type, and what its candidates cost, float[edges, operations]"""

RESOURCES: dict[str, Callable[[LayerCost], int]] = {
    "parameters": lambda layer: layer.weights + layer.others,
    "multiply_adds": lambda layer: layer.multiply_adds,
}


@dataclass(frozen=True)
class SnasSettings(Group):
    """SNAS."""

    snas_temperature_start: float = 1.0
    """Temperature of the samples before the first epoch."""
    snas_temperature_end: float = 0.03
    """Temperature in the last epoch; it goes there linearly."""
    snas_resource_weight: float = 0.0
    """Weight of the resource loss: the logarithm of what the sampled operations cost, summed over the edges of a cell,
    and over its types the mean of their cells. The authors' is 1.5e-3; 0: none."""
    snas_resource: str = "parameters"
    """What the sampled operations cost: CHOICES."""
    checks: ClassVar = [
        *positive("snas_temperature_start", "snas_temperature_end"),
        *at_least(0, "snas_resource_weight"),
    ]
    uses: ClassVar = [
        Use(("snas_resource",), "snas_resource_weight above 0", lambda settings: settings.snas_resource_weight > 0)
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The resources."""
        return {"snas_resource": RESOURCES}


def concrete(space: CellSpace, base: Relaxation, draw: Draw | None = None) -> Relaxation:
    """`base` at its start and in the mean; a step has one soft sample, for all cells of a type and the whole batch.

    The value "snas_temperature" is the sample's; a "temperature" divides alpha beforehand.

    Args:
      space: whose alpha.
      base: DARTS' relaxation.
      draw: standard Gumbel numbers; None: from the key.
    """
    numbers = draw or standard_gumbel(space)

    def sample(alpha: Alpha, values: Mapping[str, jax.Array], key: jax.Array | None) -> Weights:
        logits = tempered({cell: alpha[cell] for cell in space.cell_types}, values)
        return Weights(soft_sample(space, logits, drawn_as(numbers, logits, key), values[TEMPERATURE]))

    return base._replace(sample=sample, uses_key=True)


def log_costs(tables: Sequence[CostTable], weights: Weights) -> dict[str, jax.Array]:
    """By cell type the logarithm of what an edge costs, a scalar: summed over edges and cells.

    An edge costs the sum of its operations' costs times their weights, at least 1. Of several tables (parameters,
    multiply-adds) it is the mean of the logarithms.
    """
    found = {cell: jnp.zeros((), value.dtype) for cell, value in weights.operations.items()}
    for table in tables:
        for cell, costs in table:
            edges = (jnp.asarray(costs, weights.operations[cell].dtype) * weights.operations[cell]).sum(axis=-1)
            found[cell] += jnp.log(jnp.maximum(edges, 1)).sum() / len(tables)
    return found


def resource_loss(weight: float, table: CostTable) -> Callable[[Weights], jax.Array]:
    """`weight` times `log_costs`, of each cell type divided by the number of its cells, and summed."""
    types = [cell for cell, _ in table]

    def loss(weights: Weights) -> jax.Array:
        costs = log_costs([table], weights)
        return weight * sum((value / types.count(cell) for cell, value in costs.items()), jnp.zeros(()))

    return loss


def _with_resources(problem: Problem, settings: Any) -> Problem:
    if not settings.snas_resource_weight:
        return problem
    assert problem.space is not None
    module, count = problem.network.module, RESOURCES[settings.snas_resource]
    height, width, channels = problem.network.example_shape
    costs = candidate_costs(problem.space, module.channels, module.num_cells, (height, width, channels))
    table = [(cell, [[sum(map(count, layers)) for layers in edge] for edge in own]) for cell, own in costs]
    return dataclasses.replace(problem, weights_loss=resource_loss(settings.snas_resource_weight, table))


def build_snas(ingredients: Ingredients, draw: Draw | None = None, **options: Any) -> Method:
    """One gradient for w and alpha through soft samples. `draw`: of `concrete`; `options`: of `gradient_method`."""
    # Differs from SNAS-Series: drop path rises over the search, where it is constant there; alpha's optimiser is Adam,
    # as in the paper and there in several processes, where a single one has plain SGD; costs are those of the papers'
    # tables, parameters or multiply-adds, where memory accesses are also counted there.
    settings, problem = ingredients.settings, _with_resources(ingredients.problem, ingredients.settings)
    assert problem.space is not None
    start, end, epochs = settings.snas_temperature_start, settings.snas_temperature_end, settings.epochs
    return gradient_method(
        ingredients._replace(problem=problem),
        concrete(problem.space, problem.relaxation, draw),
        values=(TEMPERATURE,),
        schedules={TEMPERATURE: lambda epoch: end + (start - end) * (1 - (epoch + 1) / epochs)},
        **options,
    )


SNAS = MethodEntry(
    build_snas,
    "the likeliest operations of alpha, which learned through soft samples that grew hard",
    settings=(SnasSettings,),
    defaults={
        "": {
            "hypergradient": "first_order",
            "single_level": True,
            "alpha_init_scale": 0.01,
            "alpha_clip_norm": 10.0,
        },
        # Half of a batch of 64 from each part of the data.
        "paper": {"epochs": 150, "batch_size": 32, "drop_path": 0.3},
    },
    draws={TEMPERATURE: "Temperature of the samples"},
    tasks=CLASSIFICATION_ONLY,
)
