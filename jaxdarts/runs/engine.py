"""How does a run take its steps, end its epochs and its stages, and survive being stopped anywhere?

One loop serves searches, trainings, and several of them side by side. A checkpoint is saved at the end of every epoch,
after the epoch's line of metrics.jsonl, and by time in between; a run that is continued brings the files back to what
its checkpoint knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax

from jaxdarts.methods import Change, RollBack, SearchState
from jaxdarts.plans.base import Built, Ended, Outcome, Plan, Stage
from jaxdarts.runs.epoch_record import measure, shown_facts, write_records
from jaxdarts.runs.events import RESTART, describe, make_event
from jaxdarts.runs.members import Members
from jaxdarts.runs.not_finite import NotFinite, not_finite
from jaxdarts.runs.processes import SharedInterrupt
from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.runs.stage_checkpoints import Begun, StageCheckpoints
from jaxdarts.runs.steps import accumulate, compiled_ahead, make_steps
from jaxdarts.runs.store import Store
from jaxdarts.runs.surroundings import Surroundings
from jaxdarts.sharding import replicate

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


class StageRun:
    """A stage between its beginning and its end."""

    def __init__(self, stage: Stage, built: Built, store: Store, around: Surroundings) -> None:
        self.stage, self.built, self.store, self.around = stage, built, store, around
        self.interrupt = SharedInterrupt(around.interrupt, built.mesh)
        self.steps = make_steps(built, jax.devices())
        self.members = Members(built, store)
        self.checkpoints = StageCheckpoints(stage, self.members, self.steps.calendar, around)
        self.restarts = 0  # of the present epoch

    @property
    def num_steps(self) -> int:
        """Steps of the whole stage, unless it ends before its last epoch."""
        return self.steps.calendar.start(self.stage.epochs)

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
            while step < self.num_steps and not self.members.have_stopped:
                try:
                    states, step = self._epoch(self.steps.calendar.epoch(step), states, step, began)
                except NotFinite as error:
                    states, step = self._restart(error)
                began = Begun()
            return self._conclude(states, step)

    def _restart(self, error: NotFinite) -> tuple[list[SearchState], int]:
        """The start of the epoch with another key, with which other parts are dropped, if the method allows it."""
        most = min(member.experiment.method.restarts for member in self.members)
        if not (self.members.is_alone and self.stage.is_kept and self.restarts < most):
            raise error
        self.restarts += 1
        (member,) = self.members
        states, step = self.members.fresh(), 0
        if error.epoch:
            states, step = self.checkpoints.end_of(error.epoch - 1)
        states = [dataclasses.replace(state, key=jax.random.fold_in(state.key, self.restarts)) for state in states]
        member.events = [*member.events, {"action": RESTART, "epoch": error.epoch, "times": self.restarts}]
        member.store.write_events(member.events)
        self.progress.rewind(step)
        self.progress.message(describe(member.events[-1]))
        return states, step

    def _start(self) -> tuple[list[SearchState], Begun, int]:
        """Where the stage begins or goes on, its files brought to that and its first step compiled."""
        found = self.checkpoints.newest()
        if found is None:
            self.members.forget(0, [[] for _ in self.members])
            with self._compiled_ahead(self.members.fresh):
                return self.members.fresh(), Begun(), 0
        self.restarts = found.restarts
        self.members.forget(self.steps.calendar.epoch(found.step), found.events)
        if found.step < self.num_steps and not self.members.have_stopped:
            with self._compiled_ahead(lambda: found.states):
                pass
        return found.states, found.begun, found.step

    def _compiled_ahead(self, states: Callable[[], list[SearchState]]) -> AbstractContextManager[None]:
        """At its end all is compiled that a first step from these states needs, and what makes them."""

        def begin() -> tuple[list[SearchState], Any]:
            return self.members.scheduled(states(), 0), self.members.cursors(0)

        return compiled_ahead(self.built, self.steps, begin)

    def _epoch(self, epoch: int, states: list[SearchState], step: int, begun: Begun) -> tuple[list[SearchState], int]:
        """The rest of an epoch from `step` on, its measurements and its checkpoint."""
        began, totals, said = time.monotonic() - begun.seconds, begun.totals, begun.said
        end = self.steps.calendar.end(epoch)
        # What was set or restored is where the rest is, so that no step is compiled anew for it.
        scheduled = self.members.scheduled(states, epoch)
        if said is None:
            scheduled, said = self.members.turned(scheduled, epoch)
        carried, totals = replicate((self.steps.join(scheduled), totals), self.built.mesh)
        drawn = self.members.cursors(epoch)
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
            # Not after the epoch's last step: a checkpoint there says that the epoch has been measured.
            if stop and not self.stage.is_kept:
                raise self.around.interrupted("what has ended is saved", self.store.root)
            if step < end and (stop or self.checkpoints.is_due) and self.stage.is_kept:
                self._check_finite(pending, totals, epoch, step)
                begun = Begun(totals, time.monotonic() - began, said)
                self.checkpoints.save(step, self.steps.split(carried), begun, self.restarts)
                if stop:
                    raise self.around.interrupted(f"saved after step {step}", self.store.root)
        self._check_finite(pending, totals, epoch, step)
        states, last = self.steps.split(carried), epoch == self.stage.epochs - 1
        measured = [
            measure(member, state, own, {"epoch": epoch, "step": step, **told}, last)
            for member, state, own, told in zip(self.members, states, self.steps.split(totals), said, strict=True)
        ]
        seconds = round(time.monotonic() - began, 3)
        records = write_records(self.members, measured, seconds, self.around.tensorboard)
        if self.stage.unit is None:
            self.progress.epoch(epoch, {**shown_facts(self.built, records), "in": format_seconds(seconds)})
        states, step = self._decide(states, step)
        if step < self.num_steps and not self.members.have_stopped and self.interrupt.now():
            raise self.around.interrupted(f"saved after step {step}", self.store.root)
        return states, step

    def _decide(self, states: list[SearchState], step: int) -> tuple[list[SearchState], int]:
        """Asks the methods about the epoch, obeys, and saves the states to continue from; returns them and their step.

        The checkpoint comes before the files are brought to it: a run killed in between does that when it is resumed,
        and one killed before comes to the same verdicts again.
        """
        decided = []
        for index, member in enumerate(self.members):
            if step == self.num_steps or member.stopped is not None:
                continue
            verdict = member.experiment.method.decide(member.store.records)
            if verdict is None:
                continue
            member.events = [*member.events, make_event(verdict, member.store.records, member.experiment.task)]
            decided.append((index, member))
            if isinstance(verdict, RollBack):
                states, step = self.checkpoints.end_of(verdict.epoch)
                states = [set_values(states[0], verdict.changes)]
            elif isinstance(verdict, Change):
                states = [set_values(state, verdict.values) if i == index else state for i, state in enumerate(states)]
        self.restarts = 0
        self.checkpoints.save(step, states, Begun(), self.restarts)
        for index, member in decided:
            member.store.write_events(member.events)
            if member.stopped is None:
                member.forget(self.steps.calendar.epoch(step), member.events)
            self.progress.rewind(step)
            whose = "" if self.members.is_alone else f"member {index}: "
            self.progress.message(f"{whose}{describe(member.events[-1])} (Epochs counted from 0.)")
        return states, step

    def _conclude(self, states: list[SearchState], step: int) -> list[Any]:
        """Makes the experiments' results of the states at the ends of the epochs that are returned."""
        results = []
        for index, (member, state) in enumerate(zip(self.members, states, strict=True)):
            records, stopped = member.store.records, member.stopped
            record = records[-1]
            if stopped is not None and stopped != record["epoch"]:
                record = next(one for one in records if one["epoch"] == stopped)
                state = self.checkpoints.end_of(stopped)[0][index]
            outcome = Outcome(
                member.experiment, state, record, records, step, member.store.path, member.store.write_json
            )
            known = None if self.members.is_alone else self.built.recall(outcome)
            results.append(self.built.conclude(outcome) if known is None else known)
            if self.stage.is_kept and not (self.members.is_alone and not self.stage.name):
                self.around.on_result(member.store.path)
        return results

    def _check_finite(self, value: jax.Array | None, totals: Any, epoch: int, step: int) -> None:
        if value is not None and not math.isfinite(float(value)):
            own = self.steps.split(totals)
            raise not_finite(self.stage, self.built, own, epoch, step, self.checkpoints.kept)

    def _advance(self, step: int, epoch: int) -> None:
        number, _ = self.stage.unit or (0, 0)
        self.progress.advance(number * self.num_steps + step, number if self.stage.unit else epoch)
        first = self.progress.steps_here == _ESTIMATE_AFTER_STEPS
        left = self.progress.seconds_left
        if first and left is not None and not self.progress.is_interactive:
            self.progress.message(f"about {format_seconds(left)} of steps left")
