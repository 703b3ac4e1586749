"""What do runs that differ in their seed say together?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdarts.reports.measure import Measure
from jaxdarts.reports.sweep_record import SweepRun

_NORMAL_975 = 1.959963984540054  # quantile of the normal distribution that leaves 2.5 % above it


class Estimate(NamedTuple):
    """Mean and sample standard deviation (n - 1), which one value does not have."""

    mean: float
    std: float | None
    runs: int


class Best(NamedTuple):
    """The run that validation would choose."""

    run: SweepRun
    by: str  # the quantity that it was chosen by


class Group(NamedTuple):
    """Finished runs with the same values of all fields but the seed."""

    values: Mapping[str, Any]  # of the grid's fields but the seed
    runs: tuple[SweepRun, ...]  # at least one
    planned: int  # runs that the sweep asks for
    estimates: Mapping[str, Estimate | None]  # of the runs' quantities; None where no run has a value
    best: Best | None

    @property
    def measure(self) -> Measure | None:
        """By what its architectures are compared."""
        return self.runs[0].measure


class Correlation(NamedTuple):
    """Pearson's coefficient with its 95 % confidence interval."""

    value: float
    low: float
    high: float
    runs: int


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Of the values that are there; None if there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Estimate(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def group_runs(runs: Sequence[SweepRun], fields: Sequence[str]) -> list[Group]:
    """The groups with a finished run, in the order of their first runs. `fields` are the grid's."""
    kept = [field for field in fields if field != "seed"]
    sorted_runs: dict[tuple[Any, ...], list[SweepRun]] = {}
    for run in runs:
        sorted_runs.setdefault(tuple(run.values[field] for field in kept), []).append(run)
    groups = []
    names = dict.fromkeys(name for run in runs for name in run.quantities)
    for key, members in sorted_runs.items():
        finished = tuple(run for run in members if run.result is not None)
        if finished:
            found = {name: estimate([run.value(name) for run in finished]) for name in names}
            values = dict(zip(kept, key, strict=True))
            groups.append(Group(values, finished, len(members), found, best_by_validation(finished)))
    return groups


def best_by_validation(runs: Sequence[SweepRun]) -> Best | None:
    """The run with the best objective on validation data, the first of equals; None where one has none.

    That of the retrained networks on held-out images, if all runs have it (as in Zela et al. 2020, table 3, after a
    shorter training); else the supernets'.
    """
    measure = runs[0].measure if runs else None
    if measure is None:
        return None
    for name in (f"held_out_{measure.objective}", f"valid_{measure.objective}"):
        known = [value for value in (run.value(name) for run in runs) if value is not None]
        if len(known) == len(runs):
            return Best(runs[known.index(measure.best(known))], name)
    return None


def correlation(first: Sequence[float], second: Sequence[float]) -> Correlation | None:
    """Pearson's coefficient of two quantities, with the interval of Fisher's z: tanh(artanh r +- 1.96 / sqrt(n - 3)).

    None for fewer than 4 pairs, for which there is no interval, and where a quantity does not vary.
    """
    count = len(first)
    if count < 4 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    value = max(-1.0, min(1.0, statistics.correlation(first, second)))
    if abs(value) == 1:
        return Correlation(value, value, value, count)
    centre, reach = math.atanh(value), _NORMAL_975 / math.sqrt(count - 3)
    return Correlation(value, math.tanh(centre - reach), math.tanh(centre + reach), count)


def curvature_and_result(runs: Sequence[SweepRun], measure: Measure) -> Correlation | None:
    """Of the dominant eigenvalue and the test error (Zela et al. 2020, section 4.2), over the runs that have both.

    Of another task than classification it is what papers report of that. Less is better in any case.
    """
    pairs = [(run.value("dominant_eigenvalue"), run.value(f"test_{measure.result}")) for run in runs]
    known = [(eigenvalue, result) for eigenvalue, result in pairs if eigenvalue is not None and result is not None]
    return correlation([eigenvalue for eigenvalue, _ in known], [result for _, result in known])
