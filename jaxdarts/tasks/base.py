"""What is a task? What is learned, whichever network learns it: streams of data, losses, and how they are told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

Batch: TypeAlias = Any  # a pytree of arrays that only the task and its networks understand
Outputs: TypeAlias = Any  # what a network makes of a batch; also a pytree
Totals: TypeAlias = dict[str, tuple[jax.Array, jax.Array]]
"""By name a sum and its weight, scalars. A mean over any number of batches is had by adding both."""


class Metric(NamedTuple):
    """How a mean is told."""

    better: Literal["less", "more"]
    percent: bool = False
    of: tuple[str, Callable[[float], float]] | None = (
        None  # the metric whose mean it follows from, and how; None: itself
    )


class Stream(NamedTuple):
    """One part of the data, on the device. Batches are drawn by pure functions."""

    data: Any  # pytree of arrays, as stored
    size: int  # examples
    steps: int  # whole batches in an epoch
    start: Callable[[jax.Array, int], Any]  # (key, epoch) -> cursor: what an epoch's batches are drawn from
    batch: Callable[[Any, Any, jax.Array, jax.Array], Batch]  # (data, cursor, step of the run, key) -> as trained on
    positions: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]  # -> (position, mask bool[B]): each example once
    plain: Callable[[Any, jax.Array], Batch]  # (data, position) -> the examples there, as they are measured
    held: Callable[[Any, jax.Array], Batch]  # (data, number) -> one of the batches that the curvature is measured on
    num_held: int = 0  # of them
    steps_in: Callable[[int], int] | None = None  # steps of an epoch, where that isn't `steps`, which is about how many
    side_by_side: int = 0  # examples whose memory a network carries from batch to batch as they are measured; 0: none


Loss: TypeAlias = Callable[[Outputs, Batch], tuple[jax.Array, Totals]]
"""(outputs, batch) -> (scalar that is minimised, what is reported of it)"""


class Task(NamedTuple):
    """What is learned. A metric's name in `loss` and `measure` is one of `metrics`."""

    loss: Loss  # the outer objective
    inner_loss: Loss  # the inner one: `loss` itself where it adds nothing, so that both share programs
    measure: Callable[[Outputs, Batch, jax.Array], Totals]  # with a mask bool[B]: sums over the examples where it holds
    metrics: Mapping[str, Metric]  # by name; "loss" is one
    objective: str  # the metric by which architectures are compared
    result: tuple[str, Callable[[Mapping[str, float]], float]]  # what papers report, less is better: name, from metrics
    rate: Callable[[Batch], jax.Array] | None = None  # what a batch multiplies the learning rate of w by; None: nothing
    train: Stream | None = None  # None where research code draws its own batches
    valid: Stream | None = None
    test: Stream | None = None
    facts: Mapping[str, Any] = {}  # of the data, for a run's config.json
    told: str = ""  # of the data, one line for people
    notes: tuple[str, ...] = ()  # what was done to the data, a line each


def steps_until(stream: Stream, epoch: int) -> int:
    """Steps of all epochs before one."""
    return stream.steps * epoch if stream.steps_in is None else sum(map(stream.steps_in, range(epoch)))


def better(metric: Metric, a: float, b: float) -> bool:
    """Whether the mean `a` is better than `b`."""
    return a < b if metric.better == "less" else a > b


def means(totals: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """The mean of every name; not a number where the weight is 0."""
    return {name: float(total) / float(weight) if weight else math.nan for name, (total, weight) in totals.items()}


def with_derived(metrics: Mapping[str, Metric], known: Mapping[str, float], part: str = "") -> dict[str, float]:
    """Means, and what follows from them; `part`: what stands before a metric's name, such as "valid_"."""
    derived = {
        part + name: metric.of[1](known[part + metric.of[0]])
        for name, metric in metrics.items()
        if metric.of is not None and known.get(part + metric.of[0]) is not None
    }
    return {**known, **derived}
