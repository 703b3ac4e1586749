"""How long is a step of every search method, against DARTS' first order?

    python benchmarks/methods.py --quick
    python benchmarks/methods.py --spaces darts nasbench201 --sizes medium --output methods.json

Each with its own defaults, in parts as the search command runs it on a CPU; the mean of four steps on random images, so
that the one in four that moves alpha in iDARTS counts. Medians over rounds that run every method once; `ratio` is to
`darts` in first order, above 1 it takes longer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from _common import command, headline, interleaved_medians, setting, table, write_json
from _process import in_new_process
from _search import make_batch, size_of

import jaxdarts as jd
from jaxdarts.bilevel import Parts
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.images import SearchProblem
from jaxdarts.methods.parts import network_options
from jaxdarts.runs.allocator import keep_freed_memory
from jaxdarts.runs.scheduled_values import set_values

STEPS = 4
FIRST_ORDER = {"darts": {"hypergradient": "first_order"}}


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("darts",)  # search spaces
    sizes: tuple[str, ...] = ("medium",)  # tiny, small, medium or paper
    methods: tuple[str, ...] = ()  # beside darts; all that learn alpha and take other steps if none
    repeats: int = 7  # rounds
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "methods": ("snas",), "repeats": 2}
# Their steps are those of darts: they differ in what is measured between epochs, or in how many searches there are.
SAME_STEPS = ("darts-es", "darts-ada", "r-darts-l2", "r-darts-dp")


def own_seconds(space_name: str, size_name: str, names: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Median seconds of a step of each method. Run in a new process."""
    size, space = size_of(size_name), jd.load_space(space_name)
    keep_freed_memory(size.batch * size.image**2 * size.channels * size.cells)
    forms = {}
    for name in names:
        settings = jd.SearchConfig(
            space=space_name, method=name, channels=size.channels, cells=size.cells, **FIRST_ORDER.get(name, {})
        )
        entry = jd.METHODS[name]
        supernet = jd.Supernet(space, 10, size.channels, size.cells, **network_options(entry, settings))
        problem = SearchProblem(space, supernet, (size.image, size.image, 3))
        method = entry.build(Ingredients(problem, settings))
        state = jax.jit(method.init)(jax.random.key(0))
        state = set_values(state, {value: schedule(5) for value, schedule in method.schedules.items()})
        forms[name] = partial(_steps, Parts().run(method.step), state, make_batch(size, 1), make_batch(size, 2))
    return {name: value / STEPS for name, value in interleaved_medians(forms, repeats).items()}


def _steps(step: Any, state: Any, train: Any, valid: Any) -> Any:
    for _ in range(STEPS):
        state, totals = step(state, train, valid)
    return state, totals


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    learning = [name for name, entry in jd.METHODS.items() if entry.learns_alpha and name not in SAME_STEPS]
    for name in options.methods:
        if name not in learning:
            raise unknown_choice("method", name, learning)
    if options.repeats < 1:
        raise InputError(f"repeats must be at least 1; got {options.repeats}")
    names = tuple(dict.fromkeys(("darts", *(options.methods or learning))))
    content = setting(options) | {"rows": []}
    print(headline(content))
    for size_name in options.sizes:
        size = size_of(size_name)
        shape = f"{size.channels} channels, {size.cells} cells, {size.image}x{size.image}"
        print(f"\n{size_name}: batch {size.batch}, {shape}")
        for space in options.spaces:
            seconds = in_new_process("methods", "own_seconds", space, size_name, names, options.repeats)
            ratios = {name: value / seconds["darts"] for name, value in seconds.items()}
            content["rows"].append({"space": space, "size": size_name, "seconds": seconds, "ratios": ratios})
            lines = [[name, f"{1e3 * value:.0f}", f"{ratios[name]:.2f}"] for name, value in seconds.items()]
            print(table([space, "ms a step", "ratio"], lines), flush=True)
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
