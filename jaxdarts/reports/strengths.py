"""Which mixing weights did the alpha stand for that a run has recorded, and how far apart are they?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jaxdarts.methods.relaxations import SOFTMAX
from jaxdarts.spaces import CellSpace

SKIP = "skip_connect"

Strengths = Sequence[np.ndarray]  # of every edge, float64[candidates]


def operation_strengths(
    alpha: Sequence[Sequence[float | None]] | None,
    candidates: Sequence[int],
    temperature: float = 1.0,
    weights: Callable[[np.ndarray], np.ndarray] = SOFTMAX.weights,
) -> list[np.ndarray]:
    """The mixing weights of alpha / temperature on every edge: float64[number of candidates]; NaN if alpha is missing.

    Args:
      alpha: [edges, operations], rows padded to the longest list of candidates.
      candidates: how many entries of each row belong to a candidate; the others are left out.
      temperature: positive.
      weights: of one edge, see `Mixing`.
    """
    strengths = []
    for edge, count in enumerate(candidates):
        row = np.array(alpha[edge][:count] if alpha else [math.nan] * count, dtype=np.float64) / temperature
        if len(row) < count:
            raise ValueError(f"edge {edge} has {len(row)} of {count} entries")
        strengths.append(weights(row))
    return strengths


def edge_strengths(space: CellSpace, alpha: Sequence[float | None] | None, temperature: float = 1.0) -> np.ndarray:
    """The weights of edges, float64[edges]: the softmax of alpha / temperature over those that lead to the same node.

    Args:
      space: whose edges.
      alpha: one entry an edge.
      temperature: positive.
    """
    row = np.array(alpha or [math.nan] * space.num_edges, dtype=np.float64) / temperature
    if len(row) != space.num_edges:
        raise ValueError(f"there are {len(row)} entries for {space.num_edges} edges")
    return np.concatenate([SOFTMAX.weights(row[space.incoming(node)]) for node in range(space.num_nodes)])


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
