"""What is measured at the end of an epoch, where is it written, and what of it does a person see?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxdarts.json_files import as_json
from jaxdarts.methods import SearchState
from jaxdarts.plans.base import Built, Moment, Record
from jaxdarts.runs.members import Member, Members
from jaxdarts.runs.processes import from_first
from jaxdarts.tasks.base import means


def measure(member: Member, state: SearchState, totals: Any, begun: Record, last: bool) -> dict[str, Any]:
    """The epoch's line of metrics.jsonl, its duration excepted.

    Args:
      member: that is measured.
      state: at the end of the epoch.
      totals: over its steps.
      begun: what is known of it already: `epoch`, `step` and what was said when it began.
      last: whether it is the last epoch.
    """
    record: dict[str, Any] = {**begun, **means(totals)}
    epoch, step = record["epoch"], record["step"]
    for observe in member.experiment.observers:
        # As files say it, so that all see the same of it: what is not finite is None.
        record.update(as_json(observe(Moment(state, epoch, step, last, record, member.store.records))))
    return record


def write_records(
    members: Members, measured: Sequence[Record], seconds: float, tensorboard: bool
) -> list[dict[str, Any]]:
    """Writes what was measured of each member in so many seconds; returns the lines of metrics.jsonl."""
    # From the first process, so that verdicts are the same everywhere.
    records: list[dict[str, Any]] = from_first(lambda: [{**record, "seconds": seconds} for record in measured])
    epoch, step = records[0]["epoch"], records[0]["step"]
    for member, record in zip(members, records, strict=True):
        member.store.append(record)
        if tensorboard:
            member.store.write_scalars(record)
        if "genotype" in record:
            member.store.write_json(f"genotypes/epoch_{epoch:04d}.json", record["genotype"])
    if not members.is_alone:
        summary = {name: [record.get(name) for record in records] for name, _ in members.built.shown}
        own = {"epoch": epoch, "step": step, "member_epoch": [epoch] * len(records)}
        members.store.append({**own, **summary, "seconds": seconds})
    return records


def shown_facts(built: Built, records: Sequence[Record]) -> dict[str, str]:
    """What a line of progress says of an epoch: each number once, of all members."""
    facts: dict[str, str] = {}
    for name, digits in built.shown:
        values = [record.get(name) for record in records]
        if any(value is not None for value in values):
            texts = ["-" if value is None else f"{value:.{digits}f}" for value in values]
            facts[name.replace("_", " ")] = " ".join(texts)
    told = [built.tell(record) for record in records]
    return facts | {name: " ".join(own[name] for own in told) for name in told[0]}
