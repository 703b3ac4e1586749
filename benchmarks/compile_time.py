"""How long does a user wait for the compiler before the first step of a search?

    python benchmarks/compile_time.py --quick
    python benchmarks/compile_time.py --spaces s1 darts --sizes small --output compile_time.json

Every case is a new process: `first` is the first step less a later one, tracing and compilation with an empty cache;
`cached` the same in a process that finds everything in the persistent cache. In parts, as the search command runs on a
CPU, and as one program. Also what initialising takes, and the lines of the compiled programs (HLO).
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, setting, table, write_json
from _process import in_new_process
from _search import size_of

from jaxdarts.errors import InputError

COMPILATIONS = ("parts", "whole")


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "s2", "s3", "s4", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small",)  # tiny, small, medium or paper
    compilations: tuple[str, ...] = COMPILATIONS  # parts, whole
    repeats: int = 1  # processes; medians over them
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "compilations": ("parts",)}


def first_steps(space: str, size: str, compilation: str) -> dict[str, float]:
    """Seconds of initialising, and of the first exact step less a later one; lines of HLO. Run in a new process."""
    import jax
    from _search import make_ready

    import jaxdarts as jd

    began = time.perf_counter()
    ready = make_ready(space, size_of(size), jd.unrolled())
    initialised = time.perf_counter()
    step = ready.method.step if compilation == "parts" else jax.jit(ready.method.step)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(step(ready.state, ready.train, ready.valid))
        times.append(time.perf_counter() - start)
    return {
        "initialise": initialised - began,
        "first": times[0] - min(times[1:]),
        "step": min(times[1:]),
    }


def hlo_lines(space: str, size: str, compilation: str) -> int:
    """Lines of the programs that a step is made of: the large two of the parts, or the whole. Compiles them."""
    import jax
    from _search import make_ready

    import jaxdarts as jd
    from jaxdarts.bilevel.products import alpha_product, value_and_gradients

    ready = make_ready(space, size_of(size), jd.unrolled())
    state, (loss, _) = ready.state, ready.problem.losses
    if compilation == "whole":
        lowered = [jax.jit(ready.method.step).lower(state, ready.train, ready.valid)]
    else:
        point = (state.params, state.alpha, ready.view)
        lowered = [
            ready.parts.program(value_and_gradients, loss).lower(*point),
            ready.parts.program(alpha_product, loss).lower(*point, state.params, state.alpha),
        ]
    return sum(len(one.compile().as_text().splitlines()) for one in lowered)


def measure(space: str, size: str, compilation: str, repeats: int) -> dict[str, Any]:
    """One row: medians of seconds."""
    runs: dict[str, list[dict[str, float]]] = {"empty": [], "cached": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            # The first of the two fills the cache, which takes it little.
            for kind in runs:
                runs[kind].append(
                    in_new_process("compile_time", "first_steps", space, size, compilation, cache=Path(folder))
                )

    def median(kind: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[kind])

    return {
        "space": space,
        "size": size,
        "compilation": compilation,
        "initialise": median("empty", "initialise"),
        "first": median("empty", "first"),
        "cached_initialise": median("cached", "initialise"),
        "cached": median("cached", "first"),
        "step": median("empty", "step"),
        "hlo_lines": in_new_process("compile_time", "hlo_lines", space, size, compilation),
    }


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    for name in options.compilations:
        if name not in COMPILATIONS:
            raise InputError(f"compilations: unknown {name!r}; choose from {', '.join(COMPILATIONS)}")
    for name in options.sizes:
        size_of(name)
    content = setting(options) | {"rows": []}
    print(headline(content))
    lines = []
    for size in options.sizes:
        for space in options.spaces:
            for compilation in options.compilations:
                row = measure(space, size, compilation, options.repeats)
                content["rows"].append(row)
                seconds = [row[key] for key in ("initialise", "first", "cached_initialise", "cached", "step")]
                texts = [f"{value:.1f}" for value in seconds[:4]] + [f"{seconds[4]:.3f}", f"{row['hlo_lines']:,}"]
                lines.append([f"{space} {size}, {compilation}", *texts])
    headers = ["seconds", "initialise", "first", "initialise, cached", "first, cached", "a step", "lines of HLO"]
    print(table(headers, lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
