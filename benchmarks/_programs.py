"""Which programs are an exact step's work, outside of a step?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from _search import Ready

from jaxdarts.bilevel.products import alpha_product, value_and_gradients


class Program(NamedTuple):
    """A compiled program and a call of it."""

    compiled: Any  # jax.stages.Compiled
    run: Callable[[], Any]

    @property
    def temporary_megabytes(self) -> float | None:
        """What it asks for beside arguments and results; None where the backend does not say."""
        memory = self.compiled.memory_analysis()
        return None if memory is None else memory.temp_size_in_bytes / 1e6


def step_programs(ready: Ready) -> dict[str, Program]:
    """The two programs that take nearly all of an exact step: "gradients" (three times a step), "product" (once).

    After a step in parts with the same state they are compiled already, and nothing is compiled again.
    """
    state, (loss, _) = ready.state, ready.problem.losses
    point = (state.params, state.alpha, ready.view)
    calls = {
        "gradients": (value_and_gradients, point),
        "product": (alpha_product, (*point, state.params, state.alpha)),
    }
    programs = {}
    for name, (function, arguments) in calls.items():
        compiled = ready.parts.program(function, loss).lower(*arguments).compile()
        programs[name] = Program(compiled, partial(compiled, *arguments))
    return programs
