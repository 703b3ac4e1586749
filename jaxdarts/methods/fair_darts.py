"""FairDARTS (Chu et al. 2020): operations don't compete, each has a sigmoid of its own, and weak ones are dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.bilevel import add_penalty
from jaxdarts.checks import Check, at_least
from jaxdarts.methods.base import CLASSIFICATION_ONLY, Derive, Ingredients, Method, MethodEntry, strengths, strongest
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha, Mixing, Relaxation, tempered
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group, Use
from jaxdarts.spaces import Architecture, CellSpace
from jaxdarts.spaces.architecture import Edge
from jaxdarts.spaces.genotype import existing

# Of the absolute value JAX takes the derivative 1 at 0, where alpha starts. As in PyTorch it must be 0 there.
ZERO_ONE_LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {"l2": jnp.square, "l1": lambda x: x * jnp.sign(x)}
"""How a weight's distance from a half counts"""


@dataclass(frozen=True)
class FairDartsSettings(Group):
    """FairDARTS"""

    zero_one_weight: float = 10.0
    """Weight of the zero-one loss, which drives the weights of operations away from a half, to 0 or 1; 0: none."""
    zero_one_loss: str = "l2"
    """Its form: l2 (minus the mean squared distance from a half) or l1 (minus the mean distance)."""
    fair_derivation: str = "threshold"
    """Which edges a genotype has: threshold (of the two strongest that lead to a node those whose operation's weight
    reaches fair_threshold, so two, one or none) or darts (both)."""
    fair_threshold: float = 0.85
    """The least weight that an operation is kept for."""

    checks: ClassVar = [
        *at_least(0, "zero_one_weight"),
        Check("fair_threshold", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
    ]
    uses: ClassVar = [
        Use(("zero_one_loss",), "zero_one_weight greater than 0", lambda s: s.zero_one_weight != 0),
        Use(("fair_threshold",), "fair_derivation threshold", lambda s: s.fair_derivation == "threshold"),
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """Forms of the loss, and derivations."""
        return {"zero_one_loss": ZERO_ONE_LOSSES, "fair_derivation": ("threshold", "darts")}


def sigmoid(space: CellSpace, base: Relaxation) -> Relaxation:
    """`base` at its start; weights are sigmoid(alpha / "temperature"), each by itself; 0 for entries that pad a list.

    An edge's weights don't sum to 1, so its result is larger than with a softmax.
    """
    masks = {cell: space.mask(cell) for cell in space.cell_types}

    def one(cell: str, alpha: jax.Array) -> jax.Array:
        found = jax.nn.sigmoid(alpha)
        return found if masks[cell].all() else jnp.where(jnp.asarray(masks[cell]), found, 0)

    def mean(alpha: Alpha, values: Mapping[str, jax.Array]) -> Weights:
        divided = tempered(alpha, values)
        return Weights({cell: one(cell, divided[cell]) for cell in space.cell_types})

    return base._replace(sample=lambda alpha, values, key: mean(alpha, values), mean=mean)


def zero_one_loss(space: CellSpace, alpha: Alpha, form: str = "l2") -> jax.Array:
    """Minus the mean of (sigmoid(alpha) - 1/2)^2 over all candidates of all cell types together; a scalar.

    It is of alpha as it is, whatever the temperature, and `none` counts like any other.

    Args:
      space: whose alpha; what it holds beside matrices for the cell types doesn't count.
      alpha: float[edges, operations] for each cell type.
      form: a key of `ZERO_ONE_LOSSES`; "l1" has the absolute value in the place of the square.
    """
    distance, sums, count = ZERO_ONE_LOSSES[form], [], 0
    for cell in space.cell_types:
        mask = space.mask(cell)
        sums.append(jnp.where(jnp.asarray(mask), distance(jax.nn.sigmoid(alpha[cell]) - 0.5), 0).sum())
        count += int(mask.sum())
    return -jnp.stack(sums).sum() / count


def above(threshold: float) -> Derive:
    """The derivation by a threshold, FairDARTS' `threshold_sparse`.

    Of the edges that DARTS' derivation keeps those whose operation's own weight reaches the threshold; a weight of
    the edge counts where edges are compared, and not here. A cell of which no concatenated node would be left keeps
    one edge, the strongest that leads from an input to a concatenated node. Where a space keeps all edges, as
    NAS-Bench-201 does, a weaker operation becomes `none` if the edge has it.
    """
    # Differs from FairDARTS, whose network cannot be built where a cell is empty, and which can keep more than two
    # edges a node (`threshold_edge`): those here have two or fewer.

    def derive(space: CellSpace, weights: Weights, alpha: Alpha = None) -> Architecture:
        cells: dict[str, tuple[Edge, ...]] = {}
        counts = {}
        for cell, edges in strong_edges(space, weights, threshold).items():
            if space.edges_kept is not None:
                concatenated = {state - space.num_inputs for state in space.concat}
                if not concatenated & {node for node, _ in existing(edges)}:
                    edges = [_from_an_input(space, strengths(weights)[cell], cell, concatenated)]
                nodes = [node for node, _ in edges]
                counts[cell] = tuple(nodes.count(node) for node in range(space.num_nodes))
            cells[cell] = tuple(edge for _, edge in edges)
        return space.architecture(cells, counts or None)

    return derive


def strong_edges(space: CellSpace, weights: Weights, threshold: float) -> dict[str, list[tuple[int, Edge]]]:
    """What the threshold leaves of DARTS' derivation, (node, edge) in node order for each cell type.

    Edges from nodes that have none are among them. Where a space keeps all edges a weak operation is `none`.

    Raises:
      InputError: a weight that is not a number.
    """
    found, kept = strongest(space, weights), dict[str, list[tuple[int, Edge]]]()
    for cell in space.cell_types:
        own, kept[cell] = np.asarray(weights.operations[cell]), []
        for node, (operation, source) in zip(found.nodes(cell), found.edges(cell), strict=True):
            row = space.incoming(node).start + source
            candidates = space.operations(cell)[row]
            if own[row, candidates.index(operation)] >= threshold:
                kept[cell].append((node, (operation, source)))
            elif space.edges_kept is None:
                kept[cell].append((node, ("none" if "none" in candidates else operation, source)))
    return kept


def _from_an_input(space: CellSpace, strengths: np.ndarray, cell: str, nodes: Collection[int]) -> tuple[int, Edge]:
    """The strongest of a cell's edges from an input to one of the nodes; ties keep the first."""
    choices = [
        (strengths[row, column], (node, (operation, source)))
        for row, ((node, source), names) in enumerate(zip(space.edges, space.operations(cell), strict=True))
        for column, operation in enumerate(names)
        if node in nodes and source < space.num_inputs and operation != "none"
    ]
    return max(choices, key=lambda choice: choice[0])[1]


def build_fair_darts(ingredients: Ingredients) -> Method:
    """DARTS with sigmoids, the zero-one loss as a penalty on alpha, and the derivation that the settings name.

    The loss is a term of the outer objective that depends on alpha alone, so it adds its own gradient to any
    hypergradient.
    """
    # Differs from FairDARTS, which reports the loss with the zero-one term: what is reported here, and whose curvature
    # is measured, is the task's loss alone.
    settings, problem = ingredients.settings, ingredients.problem
    assert problem.space is not None
    space: CellSpace = problem.space
    weight, form = settings.zero_one_weight, settings.zero_one_loss
    penalties = [add_penalty(lambda alpha: zero_one_loss(space, alpha, form), weight)] if weight else []
    method = gradient_method(ingredients, sigmoid(space, problem.relaxation), penalties=penalties)
    return method._replace(derive=above(settings.fair_threshold)) if settings.fair_derivation == "threshold" else method


FAIR_DARTS = MethodEntry(
    build_fair_darts,
    "of the two strongest edges of a node those whose operation's sigmoid of alpha reached the threshold",
    settings=(FairDartsSettings,),
    # `quick` keeps the common learning rate of w, which fits its small batches. That of alpha is ten times the
    # published one, as for other methods: with less no weight reaches the threshold in so few steps.
    defaults={
        "": {"hypergradient": "first_order", "alpha_b1": 0.9, "alpha_init_scale": 0.0},
        "quick": {"alpha_learning_rate": 0.03},
        "paper": {"batch_size": 128, "learning_rate": 0.005, "alpha_learning_rate": 3e-3},
    },
    # As a hyperbolic tangent, which no alpha makes overflow.
    mixing=Mixing("Sigmoid of {}, each operation by itself", lambda alpha, names: 0.5 + 0.5 * np.tanh(0.5 * alpha)),
    tasks=CLASSIFICATION_ONLY,
)
