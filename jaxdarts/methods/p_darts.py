"""P-DARTS (Chen et al. 2019): the network grows from stage to stage, and edges keep fewer and fewer operations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from jaxdarts.checks import at_least
from jaxdarts.errors import InputError
from jaxdarts.methods.base import CLASSIFICATION_ONLY, Derive, Ingredients, Method, MethodEntry, Schedule, strengths
from jaxdarts.methods.parts import gradient_method, warm_up_epochs
from jaxdarts.methods.relaxations import Alpha, numpy_softmax
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group, Use
from jaxdarts.spaces import Architecture, CellSpace, SearchSpace
from jaxdarts.spaces.architecture import Edge

SKIP = "skip_connect"
SKIP_DROPOUT = "skip_dropout"
PUBLISHED_PARTS = (1, 5 / 8, 3 / 8)  # of an edge's operations that are left in each of three stages: 8, 5, 3
_DECAY = 5.0  # the dropout's logarithm falls by so much in as many epochs as a stage has, 0.2 in each of 25

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Stages(Group):
    """Stages of P-DARTS"""

    stage_cells: str = "5,11,17"
    """Cells of the network in each stage, which has new weights, with commas."""
    stage_operations: str | None = None
    """Most operations of an edge in each stage, with commas; None: all, 5/8 and 3/8 of its own."""
    stage_dropout: str = "0.1,0.4,0.7"
    """Dropout of elements that pass an identity, at the start of each stage, with commas."""
    dropout_jump: bool = True
    """The dropout, which falls, is back at its start when alpha begins to move."""
    most_skips: int | None = 2
    """Most skip connections in the normal cell of the genotype; None: any."""

    checks: ClassVar = at_least(0, "most_skips")
    uses: ClassVar = [
        Use(
            ("dropout_jump",),
            "a stage_dropout other than 0",
            lambda s: any(part.strip(" 0.") for part in str(s.stage_dropout).split(",")),
        ),
    ]

    def check(self) -> None:
        """Refuses lists that cannot be read or differ in length, and values that are not possible."""
        cells = numbers("stage_cells", self.stage_cells, int)
        dropout = numbers("stage_dropout", self.stage_dropout, float)
        lists = {"stage_cells": cells, "stage_dropout": dropout}
        if self.stage_operations is not None:
            lists["stage_operations"] = kept = numbers("stage_operations", self.stage_operations, int)
            if min(kept) < 2 or list(kept) != sorted(kept, reverse=True):
                raise InputError(
                    f"stage_operations must be at least 2 and must not grow; got {self.stage_operations!r}"
                )
        for name, values in lists.items():
            if len(values) != len(cells):
                raise InputError(
                    f"{name} must have as many numbers as stage_cells, {len(cells)}; got {getattr(self, name)!r}"
                )
        if self.stage_operations is None and len(cells) not in (1, len(PUBLISHED_PARTS)):
            raise InputError(
                f"stage_operations must be given for other than {len(PUBLISHED_PARTS)} stages; stage_cells "
                f"{self.stage_cells!r} has {len(cells)}"
            )
        if min(cells) < 3:
            raise InputError(f"stage_cells must be at least 3 each; got {self.stage_cells!r}")
        if not all(0 <= value < 1 for value in dropout):
            raise InputError(f"stage_dropout must be at least 0 and less than 1 each; got {self.stage_dropout!r}")


def numbers(name: str, text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Numbers with commas between them. Raises InputError that names the setting."""
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(value) for value in found):
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{name} must be {what} with commas between them; got {text!r}")
    return found


def stage_settings(settings: Any) -> list[Any]:
    """The settings of each stage: those of a P-DARTS with this stage only."""
    cells = numbers("stage_cells", settings.stage_cells, int)
    dropout = settings.stage_dropout.split(",")
    found = []
    for number, own in enumerate(cells):
        change = {"cells": own, "stage_cells": str(own), "stage_dropout": dropout[number].strip()}
        if settings.stage_operations is not None:
            change["stage_operations"] = settings.stage_operations.split(",")[number].strip()
        kind = type(settings)
        found.append(kind(**kind.used(settings.flat(), change)))
    return found


def stage_counts(space: CellSpace, settings: Any, number: int) -> dict[str, list[int]]:
    """How many operations each edge of each cell type has in a stage, counted from 0."""
    if settings.stage_operations is not None:
        most = numbers("stage_operations", settings.stage_operations, int)[number]
        return {cell: [min(most, len(names)) for names in space.operations(cell)] for cell in space.cell_types}
    part = PUBLISHED_PARTS[number]
    return {
        cell: [min(len(names), max(2, math.ceil(part * len(names)))) for names in space.operations(cell)]
        for cell in space.cell_types
    }


def pruned(space: SearchSpace, alpha: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> SearchSpace:
    """The space in which every edge has only its strongest operations left, in their order.

    Of equal ones the later is kept, as in the published code. `none` counts like any other, but an edge keeps at least
    one that isn't `none`.

    Args:
      space: that alpha belongs to.
      alpha: float[edges, operations] for each cell type.
      counts: how many to keep on each edge.
    """
    cells = {}
    for cell in space.cell_types:
        edges = []
        for names, row, count in zip(space.operations(cell), np.asarray(alpha[cell]), counts[cell], strict=True):
            kept = strongest_operations(names, row, count)
            if all(names[column] == "none" for column in kept):
                kept = strongest_operations(names, row, count, without_none=True)
            edges.append(tuple(names[column] for column in kept))
        cells[cell] = tuple(edges)
    return dataclasses.replace(space, normal=cells["normal"], reduce=cells["reduce"])


def strongest_operations(names: Sequence[str], alpha: np.ndarray, count: int, without_none: bool = False) -> list[int]:
    """Columns of an edge's `count` operations with the largest alpha, in order; of equal ones the later.

    `without_none`: `none` goes first, however strong.
    """
    weights = numpy_softmax(np.asarray(alpha[: len(names)], np.float64))
    if without_none and "none" in names:
        weights[list(names).index("none")] = -1
    return sorted(int(column) for column in np.argsort(weights, kind="stable")[len(names) - count :])


def sparing(most_skips: int | None) -> Derive:
    """P-DARTS' derivation: DARTS', with as few skip connections in the first cell type as is asked for.

    Of equal operations of an edge the later is kept, of equal edges of a node the later, and edges are listed by
    source. While there are too many skip connections the weakest of them loses its weight, and operations and edges
    are derived anew; it stays where an edge has nothing else.
    """

    def derive(space: CellSpace, weights: Weights, alpha: Alpha = None) -> Architecture:
        found = {}
        for number, (cell, own) in enumerate(strengths(weights).items()):
            limit = most_skips if number == 0 else None
            found[cell] = tuple(edge for _, edge in _spared(space, cell, np.array(own, np.float64), limit))
        return space.architecture(found)

    return derive


def _spared(space: CellSpace, cell: str, own: np.ndarray, most_skips: int | None) -> list[tuple[int, Edge]]:
    while True:
        edges = _strongest(space, cell, own)
        skips = [row for row, (name, _) in edges if name == SKIP]
        if most_skips is None or len(skips) <= most_skips:
            return edges
        columns = {row: space.operations(cell)[row].index(SKIP) for row in skips}
        left = [row for row in skips if own[row, columns[row]] > 0]
        if not left:
            return edges
        weakest = min(left, key=lambda row: own[row, columns[row]])
        own[weakest, columns[weakest]] = 0


def _strongest(space: CellSpace, cell: str, own: np.ndarray) -> list[tuple[int, Edge]]:
    """(row of alpha, edge) of the edges that are kept."""
    best = []
    for row, names in enumerate(space.operations(cell)):
        eligible = [column for column, name in enumerate(names) if name != "none" or space.chooses_none]
        best.append(max(eligible, key=lambda column: (own[row, column], column)))  # noqa: B023
    found: list[tuple[int, Edge]] = []
    for node in range(space.num_nodes):
        rows = range(space.num_edges)[space.incoming(node)]
        kept = sorted(rows, key=lambda row: (own[row, best[row]], row))[-space.num_kept(node) :]
        found += [(row, (space.operations(cell)[row][best[row]], row - rows.start)) for row in sorted(kept)]
    return found


def dropout_schedule(start: float, epochs: int, resting: int, jump: bool) -> Schedule:
    """The published dropout of a stage's identities: a line towards 0 while alpha rests, then an exponential decay.

    `jump`: the decay begins at `start` again, and not where the line would go on.
    """
    # Differs from P-DARTS' code for other than 25 epochs: the decay is by the stage's length.
    first = start if jump else start * (epochs - resting - 1) / epochs

    def dropout(epoch: int) -> float:
        if epoch < resting:
            return start * (epochs - epoch - 1) / epochs
        return first * math.exp(-_DECAY * (epoch - resting) / epochs)

    return dropout


def first_dropout(settings: Any) -> float:
    """Of a stage: at its start."""
    return numbers("stage_dropout", settings.stage_dropout, float)[0]


def build_p_darts(ingredients: Ingredients) -> Method:
    """A stage of P-DARTS: DARTS with dropout of identities, and its own derivation."""
    settings, start = ingredients.settings, first_dropout(ingredients.settings)
    own: dict[str, Any] = {}
    if start:
        schedule = dropout_schedule(start, settings.epochs, warm_up_epochs(settings), settings.dropout_jump)
        own = {"values": (SKIP_DROPOUT,), "schedules": {SKIP_DROPOUT: schedule}}
    return gradient_method(ingredients, **own)._replace(derive=sparing(settings.most_skips))


def _check_space(settings: Any, space: CellSpace) -> None:
    if not isinstance(space, SearchSpace):
        raise InputError(f"method p-darts cannot be used in space {space.name!r}, whose edges share their operations")
    if settings.stage_operations is None or "," not in settings.stage_operations:
        return
    first = numbers("stage_operations", settings.stage_operations, int)[0]
    most = max(space.alpha_shape(cell)[1] for cell in space.cell_types)
    if first != most:
        raise InputError(
            f"stage_operations must begin with {most}, the most operations that an edge of space {space.name!r} has; "
            f"got {settings.stage_operations!r}"
        )


P_DARTS = MethodEntry(
    build_p_darts,
    "the strongest operations of alpha after stages of growing networks with fewer operations",
    settings=(Stages,),
    defaults={
        "": {
            "hypergradient": "first_order",
            "alpha_warm_up": 0.4,
            "alpha_clip_norm": 5.0,
            "learning_rate_min": 0.0,
        },
        "quick": {"stage_cells": "3,4,5", "epochs": 6},
        "paper": {"epochs": 25, "batch_size": 96, "alpha_learning_rate": 6e-4},
    },
    draws={SKIP_DROPOUT: "Dropout of identities"},
    network=lambda settings: {"skip_dropout": True} if first_dropout(settings) else {},
    instead={"cells": "stage_cells"},
    check_space=_check_space,
    in_stages=True,
    tasks=CLASSIFICATION_ONLY,
)
