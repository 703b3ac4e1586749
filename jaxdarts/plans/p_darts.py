"""P-DARTS as a run: searches in networks that grow, each in what the one before left of the space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxdarts.methods.p_darts import P_DARTS, pruned, stage_counts, stage_settings
from jaxdarts.networks import OPERATIONS
from jaxdarts.plans.base import Ended, Plan, Stage
from jaxdarts.plans.stages import Shared, read_end, search_stage
from jaxdarts.spaces import CellSpace, SearchSpace, load_space


def p_darts_plan(settings: Any, space: CellSpace | None = None) -> Plan:
    """A stage for each number of cells; `space`: as of `search_plan`."""
    whole = space or load_space(settings.space, OPERATIONS)
    own = stage_settings(settings)
    shared = Shared([f"stage_{number}" for number in range(1, len(own) + 1)])

    def plan(ended: Sequence[Ended]) -> Stage | None:
        number = len(ended)
        if number == len(own):
            return None
        searched = whole
        if ended:
            end = read_end(ended[-1].path)
            assert isinstance(end.space, SearchSpace)
            searched = pruned(end.space, end.record["alpha"], stage_counts(whole, settings, number))
        return search_stage(shared, shared.names[number], own[number], searched, entry=P_DARTS)

    return plan
