"""What is a run made of? Stages: epochs of one problem by one method; a plan says which comes next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from jax.sharding import Mesh

from jaxdarts.keys import RunKeys
from jaxdarts.methods.base import Method, Schedule, SearchState
from jaxdarts.tasks.base import Task

Record: TypeAlias = Mapping[str, Any]  # a line of metrics.jsonl


Turn: TypeAlias = Callable[[SearchState, int], tuple[SearchState, Mapping[str, Any]]]
"""(state, epoch) -> the state with which the epoch's steps begin, and what its record says of that"""


class Moment(NamedTuple):
    """The end of an epoch, when it is measured."""

    state: SearchState
    epoch: int  # counted from 0
    step: int  # steps done since the start
    last: bool  # whether it is the last epoch, unless a verdict ends the stage before
    record: Record  # what is known of the epoch so far
    history: Sequence[Record]  # of the epochs before


Observer: TypeAlias = Callable[[Moment], Mapping[str, Any]]
"""Adds numbers to an epoch's record; those of earlier observers are in `moment.record`."""


@dataclass(frozen=True)
class Experiment:
    """One search or training as a stage runs it. Functions are jitted, and compile when first called."""

    method: Method
    task: Task  # with the streams that its steps draw from
    keys: RunKeys
    start: Callable[[], SearchState]
    schedules: Mapping[str, Schedule]  # the method's, or of one of several experiments its own
    observers: Sequence[Observer]
    settings: Mapping[str, Any]  # for its own config.json
    turn: Turn | None = None  # what happens before an epoch's first step, a pure function; None: nothing


class Outcome(NamedTuple):
    """An experiment that has ended, before anything is made of it."""

    experiment: Experiment
    state: SearchState  # at the end of the epoch that is returned
    record: Record  # of that epoch
    records: Sequence[Record]  # of all epochs
    step: int  # steps done
    path: Path  # of its folder
    write_json: Callable[[str, Any], None]  # (name, value): a file in its folder


class Built(NamedTuple):
    """A stage that is ready to run: one experiment, or several side by side that share data and programs."""

    experiments: tuple[Experiment, ...]
    conclude: Callable[[Outcome], Any]  # writes an experiment's result, and returns it
    banner: (
        Callable[[SearchState], tuple[str, dict[str, str]]] | None
    )  # None: nothing is said; first state -> title and facts, before the first step
    shown: Sequence[tuple[str, int]]  # numbers of a record that are shown, with their digits
    tell: Callable[[Record], dict[str, str]]  # what else is shown; of a stage with a unit: of its result
    facts: Mapping[str, Any]  # for config.json
    data: Any = None  # of the task, on the device, for later stages
    recall: Callable[[Outcome], Any] = lambda outcome: None  # the result of one of several that was concluded earlier
    watched: str = "gradient"  # what must stay finite beside the loss
    rates: str = "learning_rate"  # the settings that may help where it doesn't
    mesh: Mesh | None = None  # of the devices that batches are split over
    whole: bool = True  # whether a step is one program
    together: bool = False  # several experiments: a step of all is computed at once, instead of one after another


class Stage(NamedTuple):
    """Epochs of one problem by one method, or of several side by side. Building compiles nothing."""

    build: Callable[[], Built]
    epochs: int
    name: str = ""  # of its folder below the run's; empty: the run's own
    settings: Mapping[str, Any] | None = None  # for its own config.json, of a stage with a name
    recall: Callable[[Path], Any] = lambda path: None  # the result of a stage that ended earlier; None: it has not
    is_kept: bool = True  # whether it has files and checkpoints; else a stage that was stopped is repeated
    unit: tuple[int, int] | None = None  # which of how many like stages it is, of those that share a progress bar


class Ended(NamedTuple):
    """A stage that has run, or had before."""

    stage: Stage
    results: list[Any]  # of each experiment, as `Built.conclude` or `Stage.recall` gave them
    path: Path


Plan: TypeAlias = Callable[[Sequence[Ended]], Stage | None]
"""What has ended -> the next stage; None: the run is over. Pure: a continued run comes to the same stage."""
