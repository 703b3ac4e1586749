"""The steps of a search without the run around them: for tests that compare a run with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxdarts.plans.base import Built
from jaxdarts.plans.search import Shared, build_search, share
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.runs.steps import cursors, make_steps


class ByHand(NamedTuple):
    """A search that is ready to step."""

    shared: Shared
    built: Built

    def init(self) -> Any:
        """The state before the first step."""
        return self.built.experiments[0].start()

    def epochs(self, state: Any, epochs: range) -> Any:
        """The state after the steps of some epochs."""
        experiment, steps = self.built.experiments[0], make_steps(self.built, jax.devices())
        for epoch in epochs:
            state = set_values(state, {name: value(epoch) for name, value in experiment.schedules.items()})
            drawn = cursors(experiment, epoch, None)
            for _ in range(steps.calendar.start(1)):
                state, _ = steps.step(state, steps.data, drawn)
        return state


def by_hand(config: Any) -> ByHand:
    """A search with these settings."""
    return ByHand(share([config], config), build_search([config], config))
