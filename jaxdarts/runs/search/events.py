"""What did a method decide during a run, and how is that kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.methods import History, RollBack, Stop
from jaxdarts.runs import forms
from jaxdarts.runs.forms import NUMBER

EVENTS_FILE = "events.json"
STOP, ROLL_BACK = "stop", "roll back"
Event = Mapping[str, Any]
"""`action`, `decided_at` (epoch), `epoch` (returned to) and its `genotype`; of a roll back also `l2`, `l2_before` and
the `abandoned` epochs' numbers. The genotype of a run's first event is what DARTS-ES returns."""
_STOP = {"action": (STOP, ROLL_BACK), "decided_at": int, "epoch": int, "genotype": forms.genotype}
_ABANDONED = {"epoch": int, "dominant_eigenvalue": NUMBER, "valid_accuracy?": NUMBER}
_ROLL_BACK = {**_STOP, "l2": float, "l2_before": NUMBER, "abandoned?": [_ABANDONED]}
_KEPT = ("epoch", "dominant_eigenvalue", "valid_accuracy")  # of the epochs abandoned


def make_event(verdict: Stop | RollBack, history: History) -> Event:
    """The JSON object that records a verdict, given the records up to the epoch in which it fell."""
    returned = next(record for record in history if record["epoch"] == verdict.epoch)
    event: dict[str, Any] = {
        "action": STOP if isinstance(verdict, Stop) else ROLL_BACK,
        "decided_at": history[-1]["epoch"],
        "epoch": verdict.epoch,
        "genotype": returned["genotype"],
    }
    if isinstance(verdict, RollBack):
        abandoned = [record for record in history if record["epoch"] > verdict.epoch]
        event |= {"l2_before": history[-1]["l2"], "l2": verdict.l2}
        event["abandoned"] = [{name: record[name] for name in _KEPT} for record in abandoned]
    return event


def stopped_at(events: Sequence[Event]) -> int | None:
    """The epoch that an ended search returns, if a verdict ended it."""
    return events[-1]["epoch"] if events and events[-1]["action"] == STOP else None


def describe(event: Event) -> str:
    """One sentence, for people."""
    decided, epoch = event["decided_at"], event["epoch"]
    if event["action"] == STOP and decided == epoch:
        return f"Stopped after epoch {decided}."
    if event["action"] == STOP:
        return f"Stopped after epoch {decided}; the genotype of epoch {epoch} is returned."
    return f"Went back from epoch {decided} to the end of epoch {epoch}, L2 from {event['l2_before']} to {event['l2']}."


def read_events(folder: Path) -> list[Event]:
    """The events of a run in order; none if the file is missing. Raises InputError if it cannot be read."""
    path = folder / EVENTS_FILE
    if not path.exists():
        return []
    return [
        forms.fit(
            event, _ROLL_BACK if event["action"] == ROLL_BACK else _STOP, f"run_dir: event {number} of {str(path)!r}"
        )
        for number, event in enumerate(forms.read_json(path, [_STOP]))
    ]
