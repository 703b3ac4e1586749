"""DARTS+PT (Wang et al. 2021): an operation is worth what the supernet loses without it, whatever its alpha.

A supernet that has been searched is made discrete edge by edge, and trained a little between the decisions. What has
been decided is a value of the state, so that no decision compiles anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.checks import Check, at_least
from jaxdarts.errors import InputError
from jaxdarts.methods.base import Derive, MethodEntry, strongest
from jaxdarts.methods.fair_darts import above
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha, Relaxation
from jaxdarts.methods.sdarts import SDARTS_RS
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group, Use
from jaxdarts.spaces import CellSpace
from jaxdarts.tasks.base import Metric

CRITERIA = ("objective", "loss", "alpha", "random")
PROJECTION = "projection"  # the stage's name, and in a record what was decided
_NOTHING = 1e-30  # less than the weight of anything that was not removed


@dataclass(frozen=True)
class Projection(Group):
    """Selection by perturbation (DARTS+PT)"""

    from_run: str | None = None
    """Folder of an ended search whose supernet is made discrete, whatever its method; None: a search comes first."""
    projection_criterion: str = "objective"
    """What is decided by: objective (that on the validation part, such as accuracy, is worst without the operation),
    loss (the loss there is greatest without it), or for comparison alpha (the largest weight) or random."""
    projection_interval: int = 5
    """Epochs of training after each decision but the last, which has one."""
    projection_rate: float = 0.1
    """Learning rate of w between the decisions, as a part of the search's first; it stays the same."""
    projection_batches: int | None = None
    """Validation batches that a decision is measured on; None: all."""
    projection_none: bool = False
    """An edge may be given `none`, as in the published code; it is left out of the genotype then."""

    checks: ClassVar = [
        *at_least(1, "projection_interval", "projection_batches"),
        Check("projection_rate", lambda value: 0 < value <= 1, "greater than 0 and at most 1"),
    ]
    uses: ClassVar = [
        Use(
            ("projection_batches",),
            "projection_criterion objective or loss",
            lambda s: s.projection_criterion in ("objective", "loss"),
        )
    ]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The criteria."""
        return {"projection_criterion": CRITERIA}


def decided_name(cell: str) -> str:
    """Of the value that says which edges of a cell are decided: float[edges], 1 where they are."""
    return f"decided_{cell}"


def kept_name(cell: str) -> str:
    """Of the value that says what they were decided to be: float[edges, operations], a one-hot row, or zeros."""
    return f"kept_{cell}"


def undecided(space: CellSpace, dtype: Any) -> dict[str, jax.Array]:
    """The values at the start."""
    found = {}
    for cell in space.cell_types:
        found[decided_name(cell)] = jnp.zeros(space.num_edges, dtype)
        found[kept_name(cell)] = jnp.zeros(space.alpha_shape(cell), dtype)
    return found


def projected(space: CellSpace, base: Relaxation) -> Relaxation:
    """`base` where nothing has been decided; a decided edge has the weights that it was given."""

    def fixed(weights: Weights, values: Mapping[str, jax.Array]) -> Weights:
        operations = {
            cell: jnp.where(values[decided_name(cell)][:, None] > 0, values[kept_name(cell)], own)
            for cell, own in weights.operations.items()
        }
        return weights._replace(operations=operations)

    def sample(alpha: Alpha, values: Mapping[str, jax.Array], key: jax.Array | None) -> Weights:
        return fixed(base.sample(alpha, values, key), values)

    return base._replace(sample=sample, mean=lambda alpha, values: fixed(base.mean(alpha, values), values))


class Decision(NamedTuple):
    """What is decided at one time in one type of cell."""

    cell: str
    edge: int | None  # whose operation
    node: int | None = None  # or which edges it keeps


def decisions(space: CellSpace, key: jax.Array) -> list[list[Decision]]:
    """All decisions in order, of every type of cell one at a time: first all operations, then edges.

    The order is drawn for each type of cell. A node that has no more edges than it keeps has none to decide.
    """
    edges_key, nodes_key = jax.random.split(key)
    columns = []
    for number, cell in enumerate(space.cell_types):
        order = jax.random.permutation(jax.random.fold_in(edges_key, number), space.num_edges)
        own = [Decision(cell, int(edge)) for edge in order]
        nodes = [n for n in range(space.num_nodes) if n + space.num_inputs > space.num_kept(n)]
        if nodes:
            shuffled = jax.random.permutation(jax.random.fold_in(nodes_key, number), np.array(nodes))
            own += [Decision(cell, None, int(node)) for node in shuffled]
        columns.append(own)
    return [list(row) for row in zip(*columns, strict=True)]


def num_decisions(space: CellSpace) -> int:
    """Times at which something is decided: 17 in the space of DARTS, 6 in that of NAS-Bench-201."""
    return space.num_edges + sum(n + space.num_inputs > space.num_kept(n) for n in range(space.num_nodes))


class Outcome(NamedTuple):
    """A decision that was taken."""

    decided: dict[str, np.ndarray]  # the new values of its cell type
    told: dict[str, Any]  # for the record


Score = Callable[[Weights], Mapping[str, float]]
"""mixing weights -> the means of the metrics on the validation part"""


@dataclass(frozen=True)
class Rule:
    """How decisions are taken."""

    space: CellSpace
    criterion: str  # one of CRITERIA
    objective: str  # the metric that "objective" stands for
    metrics: Mapping[str, Metric]
    may_be_none: bool  # whether `none` is a candidate

    def candidates(self, cell: str, edge: int) -> list[int]:
        """The columns that an edge may be given; all where there is nothing but `none`."""
        names = self.space.operations(cell)[edge]
        may = self.may_be_none or self.space.chooses_none
        found = [column for column, name in enumerate(names) if may or name != "none"]
        return found or list(range(len(names)))

    def decide(
        self,
        decision: Decision,
        weights: Weights,
        values: Mapping[str, np.ndarray],
        score: Score,
        key: jax.Array,
    ) -> Outcome:
        """One decision.

        Args:
          decision: about what.
          weights: the present mixing weights, in which what was decided is fixed.
          values: the present values of the cell type, `decided` and `kept`.
          score: of mixing weights.
          key: where chance decides.
        """
        take = self._operation if decision.edge is not None else self._edges
        return take(decision, weights, values, score, key)

    def _operation(
        self, decision: Decision, weights: Weights, values: Mapping[str, np.ndarray], score: Score, key: jax.Array
    ) -> Outcome:
        cell, edge = decision.cell, decision.edge
        assert edge is not None
        columns = self.candidates(cell, edge)
        names = self.space.operations(cell)[edge]
        own = np.asarray(weights.operations[cell])[edge]
        # Not scaled up again: the rest keep their weights.
        means = self._without(weights, cell, [(edge, column) for column in columns], score)
        worth = self._worth(means, own[columns], key)
        chosen = columns[int(np.argmax(worth))]  # of equals the first
        decided, kept = values[decided_name(cell)].copy(), values[kept_name(cell)].copy()
        decided[edge], kept[edge] = 1, 0
        kept[edge, chosen] = 1
        told = {
            "cell": cell,
            "edge": edge,
            "candidates": [names[column] for column in columns],
            "weights": [float(own[column]) for column in columns],
            **means,
            "chosen": names[chosen],
        }
        return Outcome({decided_name(cell): decided, kept_name(cell): kept}, told)

    def _edges(
        self, decision: Decision, weights: Weights, values: Mapping[str, np.ndarray], score: Score, key: jax.Array
    ) -> Outcome:
        cell, node = decision.cell, decision.node
        assert node is not None
        rows = list(range(self.space.num_edges))[self.space.incoming(node)]
        own = np.asarray(weights.operations[cell])
        edges = None if weights.edges is None else np.asarray(weights.edges[cell])
        strengths = np.array([own[row].max() * (1 if edges is None else edges[row]) for row in rows])
        means = self._without(weights, cell, [(row, slice(None)) for row in rows], score)
        worth = self._worth(means, strengths, key)
        # Each edge is measured with all others there, as in the published code, where a removed one comes back for it.
        # So those that are worth least go; of equals the later.
        order = sorted(range(len(rows)), key=lambda i: (-worth[i], i))
        left = sorted(order[: self.space.num_kept(node)])
        kept = values[kept_name(cell)].copy()
        for position, row in enumerate(rows):
            if position not in left:
                kept[row] = 0
        told = {
            "cell": cell,
            "node": node,
            "sources": list(range(len(rows))),
            "weights": strengths.tolist(),
            **means,
            "kept": left,
        }
        return Outcome({decided_name(cell): values[decided_name(cell)].copy(), kept_name(cell): kept}, told)

    def _without(
        self, weights: Weights, cell: str, places: Sequence[tuple[int, Any]], score: Score
    ) -> dict[str, list[float]]:
        """Every metric's means where what is at each place has no weight, if that is looked at."""
        if self.criterion not in ("objective", "loss"):
            return {}
        found: dict[str, list[float]] = {name: [] for name in self.metrics}
        for place in places:
            masked = np.array(weights.operations[cell])
            masked[place] = 0
            means = score(weights._replace(operations={**weights.operations, cell: jnp.asarray(masked)}))
            for name in found:
                found[name].append(means[name])
        return found

    def _worth(self, means: Mapping[str, Sequence[float]], strengths: np.ndarray, key: jax.Array) -> np.ndarray:
        """How much each candidate is worth."""
        if self.criterion == "random":
            return np.asarray(jax.random.uniform(key, (len(strengths),)))
        if self.criterion == "alpha":
            return strengths
        name = self.objective if self.criterion == "objective" else "loss"
        # What is not a number says that the network broke down without it.
        values = np.array(means[name], np.float64)
        worth = -values if self.metrics[name].better == "more" else values
        return np.where(np.isnan(worth), np.inf, worth)


def derivation(may_be_none: bool, space: CellSpace) -> Derive:
    """DARTS' derivation of what was decided; an edge that was given `none` is left out."""
    # Differs from DARTS+PT's code, which lists such an edge with its first other operation, or a removed edge for it.
    return above(_NOTHING) if may_be_none and not space.chooses_none else strongest


SAYS = (
    "on every edge the operation without which the supernet does worst on the validation part, edges decided one by one"
)
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "": {"hypergradient": "first_order"},
    "quick": {"projection_interval": 1},
    "paper/nasbench201": {"epochs": 100},
}


def _check_space(settings: Any, space: CellSpace) -> None:
    """A node that reads one state needs one that gives something."""
    if settings.projection_none and space.edges_kept == 1:
        raise InputError(
            f"projection_none cannot be used in space {space.name!r}, whose nodes keep one edge, which `none` would "
            "leave out"
        )


DARTS_PT = MethodEntry(
    gradient_method,
    SAYS,
    settings=(Projection,),
    defaults=_DEFAULTS,
    in_stages=True,
    check_space=_check_space,
)
SDARTS_RS_PT = SDARTS_RS._replace(
    says=SAYS,
    settings=(*SDARTS_RS.settings, Projection),
    defaults=_DEFAULTS,
    in_stages=True,
    check_space=_check_space,
)
BASES = {"darts-pt": "darts", "sdarts-rs-pt": "sdarts-rs"}
"""Which method searches first, by the name of the one with the selection."""
