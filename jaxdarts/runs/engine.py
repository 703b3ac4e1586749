"""How does a run take its steps, end its epochs and its stages, and survive being stopped anywhere?

One loop serves searches, trainings, and several of them side by side. A checkpoint is the state of every experiment of
a stage and the totals over the epoch so far, so that an epoch can be taken up in its middle. It is saved at the end of
every epoch, after the epoch's line of metrics.jsonl, and by time in between; a run that is continued brings the files
back to what its checkpoint knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.bilevel import Ahead, run_program
from jaxdarts.errors import RunError
from jaxdarts.json_files import as_json
from jaxdarts.methods import Change, RollBack, SearchState
from jaxdarts.plans.base import Built, Ended, Experiment, Moment, Outcome, Plan, Stage
from jaxdarts.runs.events import RESTART, Event, describe, make_event, stopped_at
from jaxdarts.runs.processes import SharedInterrupt, from_first
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.runs.steps import accumulate, cursors, make_steps
from jaxdarts.runs.store import Store
from jaxdarts.runs.surroundings import Surroundings
from jaxdarts.sharding import replicate
from jaxdarts.tasks.base import means

_ESTIMATE_AFTER_STEPS = 5  # steps after which the time left is first told


def run_plan(plan: Plan, store: Store, around: Surroundings, built: Built | None = None) -> list[Ended]:
    """Runs the stages of a plan, from wherever the newest checkpoint stands.

    `built`: the first stage's, if it is there already, such as for a check before the folder was made.

    Raises:
      RunInterrupted: SIGINT or SIGTERM came; the state was saved first.
      RunError: a loss was not finite, or a file could not be written.
    """
    ended: list[Ended] = []
    with contextlib.ExitStack() as stack:
        shared: RunProgress | None = None
        while (stage := plan(ended)) is not None:
            own = store
            if not stage.is_kept:
                own = Store.in_memory(store)
            elif stage.name:
                own = store.part(stage.name, stage.settings or {})
            results = stage.recall(own.path)
            if results is None:
                run = StageRun(stage, built or stage.build(), own, around)
                if stage.unit is not None and shared is None:
                    shared = stack.enter_context(run.shared_progress())
                results = run.finish(shared)
                if stage.unit is not None and shared is not None:
                    store.append(results[0])
                    shared.epoch(stage.unit[0], run.built.tell(results[0]))
            ended.append(Ended(stage, results, own.path))
            built = None
            if around.interrupt.requested and plan(ended) is not None:
                raise around.interrupted(f"{stage.name} has ended", store.root)
    return ended


class NotFinite(RunError):
    """A loss, or what is watched beside it, was not finite."""

    def __init__(self, epoch: int, message: str) -> None:
        super().__init__(message)
        self.epoch = epoch  # counted from 0


class _Begun(NamedTuple):
    """What is known of an epoch that has begun."""

    totals: Any = None  # over its steps so far
    seconds: float = 0.0  # that it took so far
    said: Sequence[Mapping[str, Any]] | None = None  # for its record, of each experiment; None: it has not begun


class _Member:
    """An experiment of a stage, its files, and what its method has decided."""

    def __init__(self, experiment: Experiment, store: Store) -> None:
        self.experiment, self.store = experiment, store
        self.events: list[Event] = []

    def forget(self, epoch: int, events: Sequence[Event]) -> None:
        """Brings its files to what a checkpoint knows: nothing of this epoch and later ones, and these events."""
        self.events = list(events)
        self.store.forget(epoch)
        self.store.write_events(self.events)


class StageRun:
    """A stage between its beginning and its end."""

    def __init__(self, stage: Stage, built: Built, store: Store, around: Surroundings) -> None:
        self.stage, self.built, self.store, self.around = stage, built, store, around
        self.interrupt = SharedInterrupt(around.interrupt, built.mesh)
        self.steps = make_steps(built, jax.devices())
        self.is_alone = len(built.experiments) == 1
        self.members = [
            _Member(one, store if self.is_alone else store.part(f"member_{index}", one.settings))
            for index, one in enumerate(built.experiments)
        ]
        self.last_save, self.saved_at = time.monotonic(), "none"
        self.restarts = 0  # of the present epoch

    @property
    def num_steps(self) -> int:
        """Steps of the whole stage, unless it ends before its last epoch."""
        return self.steps.calendar.start(self.stage.epochs)

    @property
    def has_stopped(self) -> bool:
        """Whether verdicts have ended every experiment."""
        return all(stopped_at(member.events) is not None for member in self.members)

    def shared_progress(self) -> RunProgress:
        """Of all stages like this one, which is the first of them to run."""
        assert self.stage.unit is not None
        number, count = self.stage.unit
        first, unit = number * self.num_steps, self.around.unit
        return RunProgress(count * self.num_steps, count, first_step=first, stream=self.around.stream, unit=unit)

    def finish(self, shared: RunProgress | None = None) -> list[Any]:
        """Steps until the end, from wherever the newest checkpoint stands; returns the experiments' results.

        `shared`: the progress of all stages like this one.
        """
        states, began, step = self._start()
        if self.built.banner is not None:
            title, facts = self.built.banner(states[0])
            facts |= {"device": self.around.device, "folder": str(self.store.path)} if not self.stage.name else {}
            if step:
                facts["resumed"] = f"after {step} of {self.num_steps} steps"
            print_banner(title, facts, self.around.stream)
        own = RunProgress(self.num_steps, self.stage.epochs, first_step=step, stream=self.around.stream)
        with contextlib.nullcontext(shared) if shared is not None else own as self.progress:
            while step < self.num_steps and not self.has_stopped:
                try:
                    states, step = self._epoch(self.steps.calendar.epoch(step), states, step, began)
                    began = _Begun()
                except NotFinite as error:
                    states, step = self._restart(error)
                    began = _Begun()
            return self._conclude(states, step)

    def _restart(self, error: NotFinite) -> tuple[list[SearchState], int]:
        """The start of the epoch with another key, with which other parts are dropped, if the method allows it."""
        most = min(member.experiment.method.restarts for member in self.members)
        if not (self.is_alone and self.stage.is_kept and self.restarts < most):
            raise error
        self.restarts += 1
        (member,) = self.members
        states, step = [member.experiment.start()], 0
        if error.epoch:
            states, step = self._restore(error.epoch - 1)
        states = [dataclasses.replace(state, key=jax.random.fold_in(state.key, self.restarts)) for state in states]
        member.events = [*member.events, {"action": RESTART, "epoch": error.epoch, "times": self.restarts}]
        member.store.write_events(member.events)
        self.progress.rewind(step)
        self.progress.message(describe(member.events[-1]))
        return states, step

    def _start(self) -> tuple[list[SearchState], _Begun, int]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            restored = self.store.restore_latest(self._like())
        for warning in caught:
            print_banner(f"warning: {warning.message}", {}, self.around.stream)
        if restored is None:
            self._forget(0, [[] for _ in self.members])
            with self._compiled_ahead(self._fresh):
                return self._fresh(), _Begun(), 0
        self.saved_at = f"step {restored.step}"
        self.restarts = restored.extra.get("restarts", 0)
        self._forget(self.steps.calendar.epoch(restored.step), restored.extra["events"])
        totals, said = _totals_from_json(restored.extra["totals"]), restored.extra.get("said")
        if restored.step < self.num_steps and not self.has_stopped:
            with self._compiled_ahead(lambda: list(restored.state)):
                pass
        return list(restored.state), _Begun(totals, float(restored.extra["seconds"]), said), restored.step

    def _fresh(self) -> list[SearchState]:
        return [member.experiment.start() for member in self.members]

    @contextlib.contextmanager
    def _compiled_ahead(self, states: Callable[[], list[SearchState]]) -> Iterator[None]:
        """Threads compile what a first step from these states needs; everything is compiled by the end of the context.

        What makes the states is compiled with it.
        """
        if self.built.mesh is not None or len(jax.devices()) > 1 or (self.built.together and not self.built.whole):
            # Arguments that are split over devices, or have an axis more than is traced, need other programs.
            yield
            return

        def first_step() -> Any:
            carried = self.steps.join(self._scheduled(states(), 0))
            step = partial(run_program, self.steps.step) if self.built.whole and self.is_alone else self.steps.step
            _, new = step(carried, self.steps.data, self._cursors(0))
            return accumulate(accumulate(None, new)[0], new)

        with Ahead() as ahead:
            ahead.trace(first_step)
            yield

    def _forget(self, epoch: int, events: Sequence[Sequence[Event]]) -> None:
        if not self.is_alone:
            self.store.forget(epoch)
        for member, own in zip(self.members, events, strict=True):
            member.forget(epoch, own)

    def _like(self) -> Any:
        return jax.eval_shape(self._fresh)

    def _epoch(self, epoch: int, states: list[SearchState], step: int, begun: _Begun) -> tuple[list[SearchState], int]:
        """The rest of an epoch from `step` on, its measurements and its checkpoint."""
        began, totals, said = time.monotonic() - begun.seconds, begun.totals, begun.said
        end = self.steps.calendar.end(epoch)
        # What was set or restored is where the rest is, so that no step is compiled anew for it.
        scheduled = self._scheduled(states, epoch)
        if said is None:
            scheduled, said = self._turn(scheduled, epoch)
        carried, totals = replicate((self.steps.join(scheduled), totals), self.built.mesh)
        drawn = self._cursors(epoch)
        pending: jax.Array | None = None
        while step < end:
            carried, new = self.steps.step(carried, self.steps.data, drawn)
            totals, finite = accumulate(totals, new)
            step += 1
            # Looks at the step before, so that the device never waits for the host.
            self._check_finite(pending, totals, epoch, step - 1)
            pending = finite
            self._advance(step, epoch)
            stop = self.interrupt.between_steps()
            is_due = time.monotonic() - self.last_save > 60 * self.around.checkpoint_every_minutes
            # Not after the epoch's last step: a checkpoint there says that the epoch has been measured.
            if stop and not self.stage.is_kept:
                raise self.around.interrupted("what has ended is saved", self.store.root)
            if step < end and (stop or is_due) and self.stage.is_kept:
                self._check_finite(pending, totals, epoch, step)
                self._save(step, self.steps.split(carried), _Begun(totals, time.monotonic() - began, said))
                if stop:
                    raise self.around.interrupted(f"saved after step {step}", self.store.root)
        self._check_finite(pending, totals, epoch, step)
        states = self.steps.split(carried)
        records = [
            self._measure(member, state, own, {"epoch": epoch, "step": step, **told})
            for member, state, own, told in zip(self.members, states, self.steps.split(totals), said, strict=True)
        ]
        self._record(epoch, step, records, round(time.monotonic() - began, 3))
        states, step = self._decide(states, step)
        if step < self.num_steps and not self.has_stopped and self.interrupt.now():
            raise self.around.interrupted(f"saved after step {step}", self.store.root)
        return states, step

    def _scheduled(self, states: Sequence[SearchState], epoch: int) -> list[SearchState]:
        return [
            set_values(state, {name: schedule(epoch) for name, schedule in member.experiment.schedules.items()})
            for state, member in zip(states, self.members, strict=True)
        ]

    def _cursors(self, epoch: int) -> Any:
        drawn = [cursors(member.experiment, epoch, self.built.mesh) for member in self.members]
        return drawn[0] if self.is_alone else drawn

    def _turn(self, states: list[SearchState], epoch: int) -> tuple[list[SearchState], list[Mapping[str, Any]]]:
        """The states with which an epoch's steps begin, and what its records say of that."""
        turned, said = [], []
        for state, member in zip(states, self.members, strict=True):
            turn = member.experiment.turn
            new, told = (state, {}) if turn is None else turn(state, epoch)
            turned.append(new)
            said.append(as_json(told))
        return turned, said

    def _measure(self, member: _Member, state: SearchState, totals: Any, begun: Mapping[str, Any]) -> dict[str, Any]:
        """The epoch's line of metrics.jsonl, its duration excepted. `begun`: what is known of it already."""
        record: dict[str, Any] = {**begun, **means(totals)}
        epoch, step = record["epoch"], record["step"]
        last = epoch == self.stage.epochs - 1
        for observe in member.experiment.observers:
            # As files say it, so that all see the same of it: what is not finite is None.
            record.update(as_json(observe(Moment(state, epoch, step, last, record, member.store.records))))
        return record

    def _record(self, epoch: int, step: int, records: list[dict[str, Any]], seconds: float) -> None:
        """Writes what was measured, and shows it."""
        # From the first process, so that verdicts are the same everywhere.
        records = from_first(lambda: [{**record, "seconds": seconds} for record in records])
        for member, record in zip(self.members, records, strict=True):
            member.store.append(record)
            if self.around.tensorboard:
                member.store.write_scalars(record)
            if "genotype" in record:
                member.store.write_json(f"genotypes/epoch_{epoch:04d}.json", record["genotype"])
        if not self.is_alone:
            names = [name for name, _ in self.built.shown]
            summary = {name: [record.get(name) for record in records] for name in names}
            own = {"epoch": epoch, "step": step, "member_epoch": [epoch] * len(records)}
            self.store.append({**own, **summary, "seconds": seconds})
        facts: dict[str, str] = {}
        for name, digits in self.built.shown:
            values = [record.get(name) for record in records]
            if any(value is not None for value in values):
                texts = ["-" if value is None else f"{value:.{digits}f}" for value in values]
                facts[name.replace("_", " ")] = " ".join(texts)
        if self.stage.unit is None:
            told = [self.built.tell(record) for record in records]
            facts |= {name: " ".join(own[name] for own in told) for name in told[0]}
            self.progress.epoch(epoch, {**facts, "in": format_seconds(seconds)})

    def _decide(self, states: list[SearchState], step: int) -> tuple[list[SearchState], int]:
        """Asks the methods about the epoch, obeys, and saves the states to continue from; returns them and their step.

        The checkpoint comes before the files are brought to it: a run killed in between does that when it is resumed,
        and one killed before comes to the same verdicts again.
        """
        decided = []
        for index, member in enumerate(self.members):
            if step == self.num_steps or stopped_at(member.events) is not None:
                continue
            verdict = member.experiment.method.decide(member.store.records)
            if verdict is None:
                continue
            member.events = [*member.events, make_event(verdict, member.store.records, member.experiment.task)]
            decided.append((index, member))
            if isinstance(verdict, RollBack):
                states, step = self._restore(verdict.epoch)
                states = [set_values(states[0], verdict.changes)]
            elif isinstance(verdict, Change):
                states = [set_values(state, verdict.values) if i == index else state for i, state in enumerate(states)]
        self.restarts = 0
        self._save(step, states, _Begun())
        for index, member in decided:
            member.store.write_events(member.events)
            if stopped_at(member.events) is None:
                member.forget(self.steps.calendar.epoch(step), member.events)
            self.progress.rewind(step)
            whose = "" if self.is_alone else f"member {index}: "
            self.progress.message(f"{whose}{describe(member.events[-1])} (Epochs counted from 0.)")
        return states, step

    def _restore(self, epoch: int) -> tuple[list[SearchState], int]:
        """The states at the end of an earlier epoch, and their step."""
        step = self.steps.calendar.end(epoch)
        return list(replicate(self.store.restore(step, self._like()).state, self.built.mesh)), step

    def _conclude(self, states: list[SearchState], step: int) -> list[Any]:
        """Makes the experiments' results of the states at the ends of the epochs that are returned."""
        results = []
        for member, state in zip(self.members, states, strict=True):
            records, stopped = member.store.records, stopped_at(member.events)
            record = records[-1]
            if stopped is not None and stopped != record["epoch"]:
                record = next(one for one in records if one["epoch"] == stopped)
                state = self._restore(stopped)[0][self.members.index(member)]
            outcome = Outcome(
                member.experiment, state, record, records, step, member.store.path, member.store.write_json
            )
            known = None if self.is_alone else self.built.recall(outcome)
            results.append(self.built.conclude(outcome) if known is None else known)
            if self.stage.is_kept and not (self.is_alone and not self.stage.name):
                self.around.on_result(member.store.path)
        return results

    def _check_finite(self, value: jax.Array | None, totals: Any, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            kept = str(self.store.path / "checkpoints")
            good = f"there is no checkpoint in {kept!r} yet" if self.stage.is_kept else "what ended before is kept"
            if self.saved_at != "none":
                good = f"the last good checkpoint is at {self.saved_at} in {kept!r}"
            raise NotFinite(
                epoch,
                f"the loss or its {self.built.watched}{self._not_finite(totals)} is not finite "
                f"in epoch {epoch} (counted from 0), step {step}"
                f"{'' if self.stage.is_kept else f' of {self.stage.name}'}; "
                f"{good}; a smaller {self.built.rates} may help",
            )

    def _not_finite(self, totals: Any) -> str:
        """Which of several experiments these totals are not finite in."""
        if self.is_alone:
            return ""
        every = [member.experiment.settings for member in self.members]
        varied = [name for name in every[0] if len({settings[name] for settings in every}) > 1]
        texts = []
        for index, (settings, own) in enumerate(zip(every, self.steps.split(totals), strict=True)):
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(own))):
                own_values = ", ".join(f"{name} {settings[name]}" for name in varied)
                texts.append(f"member {index} ({own_values})")
        return f" in {' and '.join(texts)}" if texts else ""

    def _save(self, step: int, states: list[SearchState], begun: _Begun) -> None:
        extra = {
            "seconds": begun.seconds,
            "events": [member.events for member in self.members],
            "totals": _totals_to_json(begun.totals),
            "said": begun.said,
            "restarts": self.restarts,
        }
        if not self.stage.is_kept:
            return
        calendar = self.steps.calendar
        kept = {epoch for member in self.members if (epoch := stopped_at(member.events)) is not None}
        for member in self.members:
            kept |= set(member.experiment.method.returnable(member.store.records[: calendar.epoch(step)]))
            if member.experiment.method.restarts and calendar.epoch(step):
                kept.add(calendar.epoch(step) - 1)  # from whose end the present epoch may begin again
        self.store.save(step, states, extra, [calendar.end(epoch) for epoch in kept])
        self.last_save, self.saved_at = time.monotonic(), f"step {step}"

    def _advance(self, step: int, epoch: int) -> None:
        number, _ = self.stage.unit or (0, 0)
        self.progress.advance(number * self.num_steps + step, number if self.stage.unit else epoch)
        first = self.progress.steps_here == _ESTIMATE_AFTER_STEPS
        left = self.progress.seconds_left
        if first and left is not None and not self.progress.is_interactive:
            self.progress.message(f"about {format_seconds(left)} of steps left")


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
