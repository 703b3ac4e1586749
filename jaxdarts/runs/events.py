"""What did a method decide during a run, and how is that kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdarts.methods import Change, History, RollBack, Stop
from jaxdarts.tasks.base import Task

STOP, ROLL_BACK, CHANGE, RESTART = "stop", "roll back", "change", "restart"
Event = Mapping[str, Any]
"""`action`, `decided_at` (epoch), `epoch` (returned to) and its `genotype`; of a roll back also `l2`, `l2_before` and
the `abandoned` epochs' numbers. The genotype of a run's first event is what DARTS-ES returns.

Of a change `action`, `decided_at` and the values; of a restart `action`, the `epoch` in which a loss was not finite,
and how many `times` it has begun again."""


def make_event(verdict: Stop | RollBack | Change, history: History, task: Task) -> Event:
    """The JSON object that records a verdict, given the records up to the epoch in which it fell."""
    if isinstance(verdict, Change):
        return {"action": CHANGE, "decided_at": history[-1]["epoch"], **verdict.values}
    returned = next(record for record in history if record["epoch"] == verdict.epoch)
    event: dict[str, Any] = {
        "action": STOP if isinstance(verdict, Stop) else ROLL_BACK,
        "decided_at": history[-1]["epoch"],
        "epoch": verdict.epoch,
        "genotype": returned["genotype"],
    }
    if isinstance(verdict, RollBack):
        for full, value in verdict.changes.items():
            name = full.rpartition("/")[2]
            event |= {f"{name}_before": history[-1][name], name: value}
        abandoned = [record for record in history if record["epoch"] > verdict.epoch]
        kept = ("epoch", "dominant_eigenvalue", f"valid_{task.objective}")
        event["abandoned"] = [{name: record[name] for name in kept} for record in abandoned]
    return event


def stopped_at(events: Sequence[Event]) -> int | None:
    """The epoch that an ended search returns, if a verdict ended it."""
    return events[-1]["epoch"] if events and events[-1]["action"] == STOP else None


def describe(event: Event) -> str:
    """One sentence, for people."""
    if event["action"] == RESTART:
        return f"A loss was not finite in epoch {event['epoch']}, which begins again with other masks."
    decided = event["decided_at"]
    if event["action"] == CHANGE:
        values = {name: value for name, value in event.items() if name not in ("action", "decided_at")}
        return f"From after epoch {decided} on: {', '.join(f'{name} {value:g}' for name, value in values.items())}."
    epoch = event["epoch"]
    if event["action"] == STOP and decided == epoch:
        return f"Stopped after epoch {decided}."
    if event["action"] == STOP:
        return f"Stopped after epoch {decided}; the genotype of epoch {epoch} is returned."
    return f"Went back from epoch {decided} to the end of epoch {epoch}, L2 from {event['l2_before']} to {event['l2']}."
