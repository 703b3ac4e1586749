"""What may a method decide when an epoch has ended? To go on, perhaps otherwise, to stop or go back: the run obeys."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

History = Sequence[Mapping[str, Any]]
"""The lines of metrics.jsonl so far, one an epoch: `epoch`, `dominant_eigenvalue` (None: not measured), `l2`, ..."""


class Stop(NamedTuple):
    """End the search here, and return the genotype of an earlier epoch."""

    epoch: int  # counted from 0


class RollBack(NamedTuple):
    """Forget what came after an epoch, and continue from its end with other values."""

    epoch: int  # counted from 0
    changes: Mapping[str, float]  # by the names of `Method.schedules`, such as "weights/l2"


class Change(NamedTuple):
    """Go on from here with other values, which no schedule sets."""

    values: Mapping[str, float]  # by their names in `SearchState.values`


Verdict = Stop | RollBack | Change | None  # None: go on


def go_on(history: History) -> Verdict:
    """Never stops and never goes back."""
    return None


def nowhere(history: History) -> Collection[int]:
    """No epoch that could be gone back to."""
    return ()
