"""DOTS as a run: a search for operations, then one for edges, on one schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from jaxdarts.methods.dots import BUILDERS, STAGES, decided_operations, operation_epochs
from jaxdarts.methods.schedules import cosine
from jaxdarts.networks import OPERATIONS
from jaxdarts.plans.base import Ended, Plan, Stage
from jaxdarts.plans.stages import Shared, read_end, search_stage
from jaxdarts.spaces import CellSpace, SearchSpace, load_space


def dots_plan(settings: Any, space: CellSpace | None = None) -> Plan:
    """Two stages; `space`: as of `search_plan`."""
    whole = space or load_space(settings.space, OPERATIONS)
    shared = Shared(list(STAGES))
    first = operation_epochs(settings)
    rate = cosine(settings.learning_rate, settings.learning_rate_min, settings.epochs)

    def stage(name: str, searched: CellSpace, before: int, epochs: int, changes: dict[str, Any]) -> Stage:
        kind = type(settings)
        own = kind(**kind.used(settings.flat(), {"epochs": epochs, **changes}))
        builder = partial(BUILDERS[name], learning_rate=lambda epoch: rate(before + epoch))
        return search_stage(shared, name, own, searched, entry=STAGES[name]._replace(build=builder))

    def plan(ended: Sequence[Ended]) -> Stage | None:
        if not ended:
            return stage("operations", whole, 0, first, {})
        if len(ended) == len(STAGES):
            return None
        end = read_end(ended[0].path)
        assert isinstance(end.space, SearchSpace)
        changes: dict[str, Any] = {"alpha_b1": 0.9}
        if settings.topology_single_level:
            changes |= {"single_level": True, "hypergradient": "first_order"}
        return stage(
            "topology", decided_operations(end.space, end.record["alpha"]), first, settings.epochs - first, changes
        )

    return plan
