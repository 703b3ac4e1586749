"""Which experiments does a stage run, where are the files of each, and with what does each begin an epoch?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxdarts.json_files import as_json
from jaxdarts.methods import SearchState
from jaxdarts.plans.base import Built, Experiment
from jaxdarts.runs.events import Event, stopped_at
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.runs.steps import cursors
from jaxdarts.runs.store import Store


class Member:
    """An experiment of a stage, its files, and what its method has decided."""

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self.experiment, self.store = experiment, store
        self.events: list[Event] = []

    @property
    def stopped(self) -> int | None:
        """The epoch that it returns, if a verdict has ended it."""
        return stopped_at(self.events)

    def forget(self, epoch: int, events: Sequence[Event]) -> None:
        """Brings its files to what a checkpoint knows: nothing of this epoch and later ones, and these events."""
        self.events = list(events)
        self.store.forget(epoch)
        self.store.write_events(self.events)


class Members:
    """The experiments of a stage in their order: one, whose files are the stage's, or several with folders below."""

    def __init__(self, built: Built, store: Store) -> None:
        self.built, self.store = built, store
        self.is_alone = len(built.experiments) == 1
        self._all = [
            Member(one, store if self.is_alone else store.part(f"member_{index}", one.settings))
            for index, one in enumerate(built.experiments)
        ]

    def __iter__(self) -> Iterator[Member]:
        return iter(self._all)

    @property
    def have_stopped(self) -> bool:
        """Whether verdicts have ended every experiment."""
        return all(member.stopped is not None for member in self)

    def fresh(self) -> list[SearchState]:
        """The states before the first step."""
        return [member.experiment.start() for member in self]

    def forget(self, epoch: int, events: Sequence[Sequence[Event]]) -> None:
        """Brings all files to what a checkpoint knows; see `Member.forget`."""
        if not self.is_alone:
            self.store.forget(epoch)
        for member, own in zip(self, events, strict=True):
            member.forget(epoch, own)

    def scheduled(self, states: Sequence[SearchState], epoch: int) -> list[SearchState]:
        """The states with the scheduled values of an epoch."""
        return [
            set_values(state, {name: schedule(epoch) for name, schedule in member.experiment.schedules.items()})
            for state, member in zip(states, self, strict=True)
        ]

    def turned(self, states: Sequence[SearchState], epoch: int) -> tuple[list[SearchState], list[Mapping[str, Any]]]:
        """The states with which an epoch's steps begin, and what its records say of that."""
        turned, said = [], []
        for state, member in zip(states, self, strict=True):
            turn = member.experiment.turn
            new, told = (state, {}) if turn is None else turn(state, epoch)
            turned.append(new)
            said.append(as_json(told))
        return turned, said

    def cursors(self, epoch: int) -> Any:
        """What an epoch's steps draw from."""
        drawn = [cursors(member.experiment, epoch, self.built.mesh) for member in self]
        return drawn[0] if self.is_alone else drawn
