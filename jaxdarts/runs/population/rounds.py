"""Which of its own epochs is a member in, when some members have gone back to earlier ones?

A population goes forward in rounds: in each, every member that has not ended takes one epoch of its own. Rounds and
epochs count from 0. A checkpoint at the end of a round is of all members' states, and all here follows from a member's
events, which it holds too.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxdarts.runs.search.events import ROLL_BACK, Event, stopped_at


def epoch_in(events: Sequence[Event], number: int) -> int:
    """The epoch that a member takes in round `number`, or that it stands at the end of once its verdict has fallen."""
    return number - sum(_repeated(event) for event in events)


def round_of(events: Sequence[Event], epoch: int) -> int:
    """The newest round at whose end a member stood at the end of one of its epochs."""
    known = [event for event in events if event["action"] == ROLL_BACK]
    while known and epoch < known[-1]["epoch"]:  # its state is older than that verdict
        known.pop()
    return epoch + sum(_repeated(event) for event in known)


def last_round(events: Sequence[Event], num_epochs: int) -> int:
    """The round in which a member takes its last epoch, if nothing more happens."""
    last = num_epochs - 1 if stopped_at(events) is None else events[-1]["decided_at"]
    return last + sum(_repeated(event) for event in events)


def _repeated(event: Event) -> int:
    """Epochs that a verdict has undone."""
    return event["decided_at"] - event["epoch"] if event["action"] == ROLL_BACK else 0
