"""When does it pay to run searches side by side in one program?

    python benchmarks/population.py --quick
    python benchmarks/population.py --spaces s1 --members 4 --output population.json

Each form is a new process without a compilation cache that takes steps of the search command's preset `quick`: what
the start and the first step take, most of which is compilation, and the median of the next steps, a member. `alone` is
one search; the others are a population in the parts that compile quickly (`map`: one member after another; `vmap`), or
with a step as one program.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, number, setting, table, write_json
from _process import in_new_process

from jaxdarts.errors import unknown_choice

FORMS = {
    "alone": {},
    "map": {"population_mapping": "map", "step_compilation": "parts"},
    "vmap": {"population_mapping": "vmap", "step_compilation": "parts"},
    "alone, whole": {"step_compilation": "whole"},
    "map, whole": {"population_mapping": "map", "step_compilation": "whole"},
    "vmap, whole": {"population_mapping": "vmap", "step_compilation": "whole"},
}


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "s2")  # search spaces
    forms: tuple[str, ...] = ("alone", "map", "vmap")  # which of those above; with `whole` it compiles for minutes
    members: int = 4  # of a population
    steps: int = 20  # that are timed
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


def steps_of(space: str, form: str, members: int, steps: int, small: bool) -> dict[str, float]:
    """Seconds until the first step is done, and the median of the next steps. Run in a new process."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)
    from jaxdarts.plans import robust
    from jaxdarts.plans.members import member_settings
    from jaxdarts.plans.search import build_search
    from jaxdarts.plans.search_settings import SearchConfig

    sizes = {"channels": 1, "batch_size": 4, "image_size": 8, "limit": 100} if small else {}
    alone = form.startswith("alone")
    config = SearchConfig(space=space, population=None if alone else members, **FORMS[form], **sizes)
    if alone:
        built = build_search([config], config)
    else:
        stage = robust.robust_plan(config, member_settings(config))([])
        assert stage is not None
        built = stage.build()
    return timed_steps(built, steps)


def timed_steps(built: Any, steps: int) -> dict[str, float]:
    """Seconds until the first step of a stage is done, and the median of the next steps."""
    import jax

    from jaxdarts.runs.steps import accumulate, cursors, make_steps

    run, sums = make_steps(built, jax.devices()), None
    began, times = time.perf_counter(), []
    carried = run.join([one.start() for one in built.experiments])
    draws: Any = [cursors(one, 0, None) for one in built.experiments]
    draws = draws[0] if len(draws) == 1 else draws
    for _ in range(steps + 1):
        carried, totals = run.step(carried, run.data, draws)
        sums, finite = accumulate(sums, totals)
        jax.block_until_ready((carried, finite))
        times.append(time.perf_counter())
    seconds = [end - start for start, end in zip(times, times[1:], strict=False)]
    return {"first": times[0] - began, "step": statistics.median(seconds)}


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, spaces=("s5",), forms=("map",), members=2, steps=2)
    for form in options.forms:
        if form not in FORMS:
            raise unknown_choice("form", form, FORMS)
    content = setting(options) | {"rows": []}
    print(headline(content))
    lines = []
    for space in options.spaces:
        for form in options.forms:
            members = 1 if form.startswith("alone") else options.members
            found = in_new_process("population", "steps_of", space, form, members, options.steps, options.quick)
            content["rows"].append({"space": space, "form": form, "members": members, **found})
            each = 1000 * found["step"] / members
            lines.append([f"{space}, {form}", str(members), number(found["first"], ".1f"), number(each, ".1f")])
    print(table(["", "members", "start and first step, s", "a step, ms a member"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
