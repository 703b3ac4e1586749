"""Which mixing weights did the alpha stand for that a run has recorded, and how far apart are they?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxdarts.methods.relaxations import SOFTMAX, Mixing, numpy_softmax
from jaxdarts.spaces import CellSpace

SKIP = "skip_connect"

Strengths = Sequence[np.ndarray]  # of every edge, float64[candidates]


def operation_strengths(
    alpha: Sequence[Sequence[float | None]] | None,
    candidates: Sequence[Sequence[str]],
    temperature: float = 1.0,
    weights: Callable[[np.ndarray, Sequence[str]], np.ndarray] = SOFTMAX.weights,
) -> list[np.ndarray]:
    """The mixing weights of alpha / temperature on every edge: float64[number of candidates]; NaN if alpha is missing.

    Args:
      alpha: [edges, operations], rows padded to the longest list of candidates.
      candidates: the names of each row's candidates; entries beyond them are left out.
      temperature: positive.
      weights: of one edge, see `Mixing`.
    """
    strengths = []
    for edge, names in enumerate(candidates):
        count = len(names)
        row = np.array(alpha[edge][:count] if alpha else [math.nan] * count, dtype=np.float64) / temperature
        if len(row) < count:
            raise ValueError(f"edge {edge} has {len(row)} of {count} entries")
        strengths.append(weights(row, names))
    return strengths


def edge_strengths(
    space: CellSpace, alpha: Sequence[float | None] | None, temperature: float = 1.0, mixing: Mixing = SOFTMAX
) -> np.ndarray:
    """The weights of edges, float64[edges]; NaN where alpha is missing.

    By default the softmax of alpha / temperature over those that lead to the same node.

    Args:
      space: whose edges.
      alpha: what the weights are made of; by default one entry an edge.
      temperature: positive.
      mixing: says how.
    """
    if not alpha:
        return np.full(space.num_edges, math.nan)
    row = np.array(alpha, dtype=np.float64) / temperature
    if mixing.edge_weights is not None:
        return mixing.edge_weights(space, row)
    if len(row) != space.num_edges:
        raise ValueError(f"there are {len(row)} entries for {space.num_edges} edges")
    return np.concatenate([numpy_softmax(row[space.incoming(node)]) for node in range(space.num_nodes)])


def spread(strengths: Strengths, operations: Sequence[Sequence[str]]) -> float:
    """The mean over edges of the standard deviation of an edge's weights."""
    return float(np.mean([np.std(edge) for edge in strengths]))


def entropy(strengths: Strengths, operations: Sequence[Sequence[str]]) -> float:
    """The mean over edges of the entropy, in nats, of an edge's weights as parts of their sum."""
    parts = [edge / edge.sum() for edge in strengths]
    return 0.0 - float(np.mean([(part * np.log(np.where(part == 0, 1, part))).sum() for part in parts]))


def skip_share(strengths: Strengths, operations: Sequence[Sequence[str]]) -> float:
    """The mean weight of skip connections, over the edges that have one to choose; NaN where none has."""
    skips = [edge[names.index(SKIP)] for edge, names in zip(strengths, operations, strict=True) if SKIP in names]
    return float(np.mean(skips)) if skips else math.nan


MEASURES: dict[str, Callable[[Strengths, Sequence[Sequence[str]]], float]] = {
    "spread": spread,
    "entropy": entropy,
    "skip_share": skip_share,
}
"""(strengths, each edge's candidates) -> one number of a cell; as quantities of an epoch `spread_normal` and so on."""
