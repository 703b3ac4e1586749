"""What does a checkpoint of a stage hold besides states, when is it due, and how long does it stay?

It holds the totals over the epoch so far as well, so that an epoch can be taken up in its middle.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.methods import SearchState
from jaxdarts.plans.base import Stage
from jaxdarts.runs.events import Event
from jaxdarts.runs.members import Members
from jaxdarts.runs.progress import print_banner
from jaxdarts.runs.steps import Calendar
from jaxdarts.runs.store import CHECKPOINT_FOLDER
from jaxdarts.runs.surroundings import Surroundings
from jaxdarts.sharding import replicate


class Begun(NamedTuple):
    """What is known of an epoch that has begun."""

    totals: Any = None  # over its steps so far
    seconds: float = 0.0  # that it took so far
    said: Sequence[Mapping[str, Any]] | None = None  # for its record, of each experiment; None: it has not begun


class Found(NamedTuple):
    """What a run goes on from."""

    states: list[SearchState]  # of each experiment
    step: int  # steps done
    begun: Begun
    events: Sequence[Sequence[Event]]  # what methods had decided, of each experiment
    restarts: int  # of the epoch that has begun


class StageCheckpoints:
    """The checkpoints of a stage."""

    def __init__(self, stage: Stage, members: Members, calendar: Calendar, around: Surroundings) -> None:
        self._stage, self._members, self._calendar, self._around = stage, members, calendar, around
        self._saved_at = time.monotonic()
        self._last_step: int | None = None  # of the newest checkpoint; None: there is none

    @property
    def is_due(self) -> bool:
        """Whether the time has come for one in the middle of an epoch."""
        return time.monotonic() - self._saved_at > 60 * self._around.checkpoint_every_minutes

    @property
    def kept(self) -> str:
        """What is there to go on from, for people."""
        if not self._stage.is_kept:
            return "what ended before is kept"
        folder = str(self._members.store.path / CHECKPOINT_FOLDER)
        if self._last_step is None:
            return f"there is no checkpoint in {folder!r} yet"
        return f"the last good checkpoint is at step {self._last_step} in {folder!r}"

    def save(self, step: int, states: list[SearchState], begun: Begun, restarts: int) -> None:
        """Saves the states after a step, if the stage is kept, and removes what no method may go back to."""
        if not self._stage.is_kept:
            return
        extra = {
            "seconds": begun.seconds,
            "events": [member.events for member in self._members],
            "totals": _totals_to_json(begun.totals),
            "said": begun.said,
            "restarts": restarts,
        }
        epoch = self._calendar.epoch(step)
        wanted = {member.stopped for member in self._members if member.stopped is not None}
        for member in self._members:
            wanted |= set(member.experiment.method.returnable(member.store.records[:epoch]))
            if member.experiment.method.restarts and epoch:
                wanted.add(epoch - 1)  # from whose end the present epoch may begin again
        self._members.store.save(step, states, extra, [self._calendar.end(one) for one in wanted])
        self._saved_at, self._last_step = time.monotonic(), step

    def newest(self) -> Found | None:
        """What to go on from, or None if nothing was saved. Says which checkpoints are damaged."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            restored = self._members.store.restore_latest(self._like())
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self._around.stream)
        if restored is None:
            return None
        self._last_step = restored.step
        extra = restored.extra
        begun = Begun(_totals_from_json(extra["totals"]), float(extra["seconds"]), extra.get("said"))
        return Found(list(restored.state), restored.step, begun, extra["events"], extra.get("restarts", 0))

    def end_of(self, epoch: int) -> tuple[list[SearchState], int]:
        """The states at the end of an earlier epoch, and their step."""
        step = self._calendar.end(epoch)
        restored = self._members.store.restore(step, self._like())
        return list(replicate(restored.state, self._members.built.mesh)), step

    def _like(self) -> Any:
        return jax.eval_shape(self._members.fresh)


def _totals_to_json(totals: Any) -> Any:
    """A pytree of scalars, and its structure, as JSON: a float32 is a float, and comes back to the same bits."""
    if isinstance(totals, Mapping):
        return {name: _totals_to_json(value) for name, value in totals.items()}
    if isinstance(totals, list | tuple):
        return [_totals_to_json(value) for value in totals]
    return None if totals is None else {"dtype": str(totals.dtype), "value": np.asarray(totals).tolist()}


def _totals_from_json(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"dtype", "value"}:
        return jnp.asarray(np.asarray(value["value"], value["dtype"]))
    if isinstance(value, Mapping):
        return {name: _totals_from_json(entry) for name, entry in value.items()}
    if isinstance(value, list):
        entries = [_totals_from_json(entry) for entry in value]
        return entries if entries and isinstance(entries[0], dict) else tuple(entries)
    return value
