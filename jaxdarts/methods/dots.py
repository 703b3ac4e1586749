"""DOTS (Gu et al. 2021): first which operations, in two groups, then which edges, by weights of their combinations."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.checks import Check, at_least, positive
from jaxdarts.errors import InputError
from jaxdarts.methods.base import CLASSIFICATION_ONLY, Derive, Ingredients, Method, MethodEntry, Schedule
from jaxdarts.methods.parts import gradient_method, warm_up_epochs
from jaxdarts.methods.relaxations import Alpha, Mixing, Relaxation, numpy_softmax, tempered
from jaxdarts.methods.schedules import TEMPERATURE_SCHEDULES
from jaxdarts.networks import OPERATIONS, softmax_weights
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group
from jaxdarts.spaces import Architecture, CellSpace, SearchSpace
from jaxdarts.spaces.architecture import Edge

COMBINATIONS = "combinations"  # where alpha holds weights of combinations of edges, beside the cell types
BALANCE_SCALE = 1e-3  # of the temperature of the operations that the first stage has left
_TEMPERATURE = "temperature"


@dataclass(frozen=True)
class DotsSettings(Group):
    """DOTS"""

    node_edges: int = 2
    """Edges that a node of the genotype has, or as many as there are."""
    topology_start: float = 3 / 7
    """Part of the epochs after which the search for edges begins, with new weights."""
    topology_single_level: bool = True
    """In the search for edges alpha and w have one gradient, as published."""
    topology_temperature_start: float = 10.0
    """Temperature of the weights of combinations of edges when they begin to move."""
    topology_temperature_end: float = 0.02
    """The same in the last epoch; in between it falls exponentially."""

    checks: ClassVar = [
        *at_least(2, "node_edges"),
        *positive("topology_temperature_start", "topology_temperature_end"),
        Check("topology_start", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    ]


def is_parametric(operation: str) -> bool:
    """Whether an operation has weights at stride 1: the second of DOTS' groups."""
    return bool(OPERATIONS[operation](1).layers)


def group_masks(space: CellSpace, cell: str) -> np.ndarray:
    """bool[2, edges, operations]: the candidates of each edge without weights, and those with."""
    found = np.zeros((2, *space.alpha_shape(cell)), bool)
    for edge, names in enumerate(space.operations(cell)):
        for column, name in enumerate(names):
            found[int(is_parametric(name)), edge, column] = True
    return found


def grouped(space: CellSpace, base: Relaxation) -> Relaxation:
    """`base` at its start; weights are a softmax within each of an edge's two groups (eq. 5), so a row sums to 2.

    A group without candidates adds nothing.
    """
    masks = {cell: group_masks(space, cell) for cell in space.cell_types}

    def one(cell: str, alpha: jax.Array) -> jax.Array:
        return sum(_within(jnp.asarray(mask), alpha) for mask in masks[cell])  # type: ignore[return-value]

    def mean(alpha: Alpha, values: Mapping[str, jax.Array]) -> Weights:
        divided = tempered(alpha, values)
        return Weights({cell: one(cell, divided[cell]) for cell in space.cell_types})

    return base._replace(sample=lambda alpha, values, key: mean(alpha, values), mean=mean)


def _within(mask: jax.Array, alpha: jax.Array) -> jax.Array:
    # A finite number, not minus infinity: a row without candidates would be NaN, and its derivative.
    return jnp.where(mask, jax.nn.softmax(jnp.where(mask, alpha, -1e30), axis=-1), 0)


def _groups(names: Sequence[str]) -> list[list[int]]:
    """The columns of an edge's candidates without weights, and of those with; empty groups are left out."""
    found = [[column for column, name in enumerate(names) if is_parametric(name) == own] for own in (False, True)]
    return [columns for columns in found if columns]


def _numpy_grouped(alpha: np.ndarray, names: Sequence[str]) -> np.ndarray:
    found = np.zeros(len(names))
    for columns in _groups(names):
        found[columns] = numpy_softmax(alpha[columns])
    return found


def decided_operations(space: SearchSpace, alpha: Mapping[str, Any]) -> SearchSpace:
    """The space in which an edge has the strongest operation of either group, that without weights first.

    Of equal ones the first. `none` may be the strongest, but not where nothing else would be left.
    """
    cells = {}
    for cell in space.cell_types:
        edges = []
        for names, row in zip(space.operations(cell), np.asarray(alpha[cell], np.float64), strict=True):
            kept = [columns[int(np.argmax(row[columns]))] for columns in _groups(names)]
            if all(names[column] == "none" for column in kept):
                others = [column for column, name in enumerate(names) if name != "none"]
                kept = [others[int(np.argmax(row[others]))]]
            edges.append(tuple(names[column] for column in kept))
        cells[cell] = tuple(edges)
    return dataclasses.replace(space, normal=cells["normal"], reduce=cells["reduce"])


def combinations(space: CellSpace, count: int) -> list[tuple[int, tuple[int, ...]]]:
    """(node, sources) of every way in which a node can have `count` edges, or all that it has, in order."""
    return [
        (node, sources)
        for node in range(space.num_nodes)
        for sources in itertools.combinations(range(node + space.num_inputs), min(count, node + space.num_inputs))
    ]


def combination_weights(space: CellSpace, count: int, beta: jax.Array) -> jax.Array:
    """float[combinations]: softmax over those of a node."""
    return jnp.concatenate([jax.nn.softmax(beta[rows]) for rows in _rows(combinations(space, count))])


def _rows(ways: Sequence[tuple[int, tuple[int, ...]]]) -> list[slice]:
    """Where each node's combinations stand among all."""
    counts = [len(list(own)) for _, own in itertools.groupby(ways, key=lambda way: way[0])]
    ends = list(itertools.accumulate(counts))
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]


def membership(space: CellSpace, count: int) -> np.ndarray:
    """[combinations, edges]: 1 where a combination holds an edge."""
    found = combinations(space, count)
    table = np.zeros((len(found), space.num_edges))
    for row, (node, sources) in enumerate(found):
        table[row, [space.incoming(node).start + source for source in sources]] = 1
    return table


def topology(space: CellSpace, base: Relaxation, count: int, dtype: Any) -> Relaxation:
    """Weights of edges are sums of those of the combinations that hold them (eq. 7), weights of operations a softmax.

    Alpha holds float[edges, operations] for each cell type and float[combinations] at `alpha["combinations"][cell]`,
    all 0 at the start. Both are divided by the value "temperature", those of operations by a thousandth of it.
    """
    size = len(combinations(space, count))
    holds = jnp.asarray(membership(space, count), dtype)

    def init(key: jax.Array) -> Alpha:
        return {**base.init(key), COMBINATIONS: {cell: jnp.zeros(size, dtype) for cell in space.cell_types}}

    def mean(alpha: Alpha, values: Mapping[str, jax.Array]) -> Weights:
        divided = tempered(alpha, values)
        operations = softmax_weights(space, {cell: divided[cell] / BALANCE_SCALE for cell in space.cell_types})
        # Exact: weights of two pairs, of which one is large, would lose the other's digits.
        edges = {
            cell: jnp.einsum(
                "c,ce->e",
                combination_weights(space, count, divided[COMBINATIONS][cell]),
                holds,
                precision=jax.lax.Precision.HIGHEST,
            )
            for cell in space.cell_types
        }
        return Weights(operations, edges)

    return Relaxation(init, lambda alpha, values, key: mean(alpha, values), mean)


def by_combinations(count: int) -> Derive:
    """The combination of edges with the largest alpha for every node, and the stronger operation of each edge.

    Of equal ones the first. `none` is left out, and edges are listed by source.
    """

    def derive(space: CellSpace, weights: Weights, alpha: Alpha) -> Architecture:
        found: dict[str, tuple[Edge, ...]] = {}
        counts: dict[str, tuple[int, ...]] = {}
        ways = combinations(space, count)
        for cell in space.cell_types:
            # By alpha itself, as weights at a low temperature are 0 and 1 to rounding.
            balance, beta = np.asarray(alpha[cell]), np.asarray(alpha[COMBINATIONS][cell])
            edges: list[Edge] = []
            numbers: list[int] = []
            for node, rows in enumerate(_rows(ways)):
                _, sources = ways[rows][int(np.argmax(beta[rows]))]
                numbers.append(len(sources))
                edges += [(_stronger(space, cell, node, source, balance), source) for source in sources]
            found[cell], counts[cell] = tuple(edges), tuple(numbers)
        return space.architecture(found, counts)

    return derive


def _stronger(space: CellSpace, cell: str, node: int, source: int, balance: np.ndarray) -> str:
    row = space.incoming(node).start + source
    names = space.operations(cell)[row]
    columns = [column for column, name in enumerate(names) if name != "none"]
    return names[columns[int(np.argmax(balance[row, columns]))]]


def topology_temperature(settings: Any) -> Schedule:
    """1 while alpha rests, then exponentially from the start to the end, which the last epoch has."""
    resting, last = warm_up_epochs(settings), settings.epochs - 1
    start, end = settings.topology_temperature_start, settings.topology_temperature_end
    between = TEMPERATURE_SCHEDULES["exponential"]
    return lambda epoch: 1.0 if epoch < resting else between(start, end, (epoch - resting) / max(last - resting, 1))


def build_operations(ingredients: Ingredients, learning_rate: Schedule | None = None) -> Method:
    """The search for operations: DARTS with a softmax within each group.

    `learning_rate`: of w, in the place of the settings'.
    """
    space = ingredients.problem.space
    assert space is not None
    relaxation = grouped(space, ingredients.problem.relaxation)
    return gradient_method(ingredients, relaxation, schedules=_rate(learning_rate))


def build_topology(ingredients: Ingredients, learning_rate: Schedule | None = None) -> Method:
    """The search for edges, in a space that has at most two operations on each. `learning_rate`: as before."""
    settings, problem = ingredients.settings, ingredients.problem
    assert problem.space is not None
    relaxation = topology(problem.space, problem.relaxation, settings.node_edges, problem.network.dtype)
    method = gradient_method(
        ingredients,
        relaxation,
        values=(_TEMPERATURE,),
        schedules={**_rate(learning_rate), _TEMPERATURE: topology_temperature(settings)},
    )
    return method._replace(derive=by_combinations(settings.node_edges))


def _rate(schedule: Schedule | None) -> dict[str, Schedule]:
    return {} if schedule is None else {"weights/learning_rate": schedule}


def _numpy_edges(space: CellSpace, beta: np.ndarray) -> np.ndarray:
    """The part of a node's weights of combinations that falls on each edge, float64[edges]."""
    count = next(
        (count for count in range(2, space.num_nodes + 2) if len(combinations(space, count)) == len(beta)), None
    )
    if count is None:
        raise ValueError(f"there are {len(beta)} entries for combinations of {space.num_edges} edges")
    weights = np.concatenate([numpy_softmax(beta[rows]) for rows in _rows(combinations(space, count))])
    holds = membership(space, count)
    return weights @ (holds / holds.sum(axis=1, keepdims=True))


def _check_space(settings: Any, space: CellSpace) -> None:
    if not isinstance(space, SearchSpace):
        raise InputError(f"method dots cannot be used in space {space.name!r}, whose cells keep all their edges")
    if settings.edge_normalisation:
        raise InputError("edge_normalisation cannot be used by method dots, which has weights of edges of its own")
    first = operation_epochs(settings)
    if not 1 <= first < settings.epochs:
        raise InputError(
            f"topology_start {settings.topology_start:g} of epochs {settings.epochs} leaves one of the two stages "
            "without an epoch; choose more epochs"
        )


def operation_epochs(settings: Any) -> int:
    """Epochs of the search for operations."""
    return round(settings.topology_start * settings.epochs)


_NETWORK: Callable[[Any], Mapping[str, Any]] = lambda settings: {"final_norm": True}  # noqa: E731
_SAYS = "the strongest combination of edges of every node, and on each the stronger of two operations"
OPERATION_STAGE = MethodEntry(
    build_operations,
    _SAYS,
    mixing=Mixing("Softmax of {} over an edge's candidates with weights, and over those without", _numpy_grouped),
    network=_NETWORK,
    tasks=CLASSIFICATION_ONLY,
)
TOPOLOGY_STAGE = MethodEntry(
    build_topology,
    _SAYS,
    mixing=Mixing(
        "Softmax of a thousand times {} over an edge's two candidates",
        lambda alpha, names: numpy_softmax(alpha / BALANCE_SCALE),
        COMBINATIONS,
        "Part of the weights of a node's combinations of edges, a softmax of their {}, that falls on an edge",
        _numpy_edges,
    ),
    network=_NETWORK,
    tasks=CLASSIFICATION_ONLY,
)
STAGES = {"operations": OPERATION_STAGE, "topology": TOPOLOGY_STAGE}
BUILDERS: Mapping[str, Callable[..., Method]] = {"operations": build_operations, "topology": build_topology}
"""Of the stages, with a learning rate that goes on from one to the next"""
DOTS = OPERATION_STAGE._replace(
    settings=(DotsSettings,),
    # `quick` keeps the common learning rates and sizes.
    defaults={
        "": {
            "hypergradient": "first_order",
            "alpha_init_scale": 0.0,
            "alpha_warm_up": 0.5,
            "learning_rate_min": 0.0,
        },
        "quick": {"epochs": 14},
        "paper": {"epochs": 70, "alpha_learning_rate": 3e-4},
    },
    stages=STAGES,
    check_space=_check_space,
    in_stages=True,
)
