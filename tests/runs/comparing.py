"""Are two runs the same, and what did a run compile after each epoch?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.runs import store as stores
from jaxdarts.search import SearchResult


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what differs from run to run."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def assert_same_state(a: Any, b: Any) -> None:
    """Bit for bit."""
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


def assert_same_result(a: SearchResult, b: SearchResult) -> None:
    """Bit for bit, times excepted."""
    assert a.genotype == b.genotype
    assert without_times(a.metrics) == without_times(b.metrics)
    assert_same_state(a.state, b.state)


def assert_compiles_in_the_first_epoch_only(run: Callable[[], Any], num_epochs: int, lines: int = 1) -> None:
    """Counts JAX's tracings and compilations until each line of metrics.jsonl, or each last of `lines` an epoch."""
    events: list[str] = []
    seen: list[int] = []
    append = stores.append_line

    def at_the_end_of_an_epoch(*arguments: Any) -> None:
        append(*arguments)
        seen.append(len(events))

    def listen(event: str, duration: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores, "append_line", at_the_end_of_an_epoch)
            run()
    finally:
        jax.monitoring.clear_event_listeners()
    seen = seen[lines - 1 :: lines]
    assert seen[0] > 0
    assert seen == [seen[0]] * num_epochs, events[seen[0] :]
