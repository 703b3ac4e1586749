"""Which plan does a search follow?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxdarts.plans.base import Plan
from jaxdarts.plans.dots import dots_plan
from jaxdarts.plans.p_darts import p_darts_plan
from jaxdarts.plans.perturbation import Restore, perturbation_plan
from jaxdarts.plans.robust import robust_plan
from jaxdarts.plans.search import search_plan
from jaxdarts.spaces import CellSpace

STAGED: Mapping[str, Callable[[Any, CellSpace | None, Restore], Plan]] = {
    "p-darts": lambda settings, space, restore: p_darts_plan(settings, space),
    "dots": lambda settings, space, restore: dots_plan(settings, space),
    "darts-pt": perturbation_plan,
    "sdarts-rs-pt": perturbation_plan,
}
"""Plans of the methods that search in stages, by name."""


def plan_of(settings: Any, members: Sequence[Any], space: CellSpace | None, restore: Restore) -> Plan:
    """The plan of a search's settings.

    Args:
      settings: of the run.
      members: of each search, where there are several side by side.
      space: in the place of what the settings name, as a continued run has recorded it.
      restore: reads a checkpoint of an ended search.
    """
    if settings.method in STAGED:
        return STAGED[settings.method](settings, space, restore)
    return search_plan(settings, space) if len(members) == 1 else robust_plan(settings, members, space)
