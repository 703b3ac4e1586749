"""How long does a user wait for the compiler before the first step of a search?

    python benchmarks/compile_time.py --quick
    python benchmarks/compile_time.py --spaces s1 darts --sizes small --output compile_time.json

Every case is a new process: `first` is the first step less a later one, tracing and compilation with an empty cache;
`cached` the same in a process that finds everything in the persistent cache. In parts, as the search command runs on a
CPU, and as one program. Also what initialising takes, the lines of the compiled programs (HLO), and `command`, the time
from the command `python -m jaxdarts.search` to the end of its first step: imports, data, tracing, compilation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, setting, table, write_json
from _process import in_new_process
from _search import size_of

from jaxdarts.errors import InputError, RunError

COMPILATIONS = ("parts", "whole")


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "s2", "s3", "s4", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small",)  # tiny, small, quick, medium or paper
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
    whole = jax.jit(ready.method.step)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(ready.step() if compilation == "parts" else whole(ready.state, ready.train, ready.valid))
        times.append(time.perf_counter() - start)
    return {
        "initialise": initialised - began,
        "first": times[0] - min(times[1:]),
        "step": min(times[1:]),
    }


class _Stepped(BaseException):
    """The first step is done."""


def until_first_step(space: str, size: str, compilation: str, began: float) -> float:
    """Seconds from `began` to the end of the first step of the search command. Run in a new process."""
    from jaxdarts.search import main

    batch, channels, cells, image = size_of(size)
    flags = {"space": space, "batch-size": batch, "channels": channels, "cells": cells, "image-size": image}
    flags |= {"step-compilation": compilation, "limit": 10 * batch}

    import jax

    from jaxdarts.runs import engine

    def watched(*arguments: Any) -> Any:
        found = make_steps(*arguments)

        def step(*carried: Any) -> Any:
            result = found.step(*carried)
            if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(result)):
                jax.block_until_ready(result)
                raise _Stepped
            return result

        return found._replace(step=step)

    make_steps, engine.make_steps = engine.make_steps, watched
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            main([*(f"--{name}={value}" for name, value in flags.items()), f"--run-dir={folder}/run"])
        except _Stepped:
            return time.time() - began
    raise RunError("the search ended before its first step")


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
    case = (space, size, compilation)
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
            # The first of the two fills the caches, which takes it little.
            for kind in runs:
                found = in_new_process("compile_time", "first_steps", *case, cache=Path(folder))
                began = time.time()
                waited = in_new_process("compile_time", "until_first_step", *case, began, cache=Path(other))
                runs[kind].append({**found, "command": waited})

    def median(kind: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[kind])

    return {
        "space": space,
        "size": size,
        "compilation": compilation,
        "command": median("empty", "command"),
        "cached_command": median("cached", "command"),
        "initialise": median("empty", "initialise"),
        "first": median("empty", "first"),
        "cached_initialise": median("cached", "initialise"),
        "cached": median("cached", "first"),
        "step": median("empty", "step"),
        "hlo_lines": in_new_process("compile_time", "hlo_lines", *case),
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
                names = ("command", "cached_command", "initialise", "first", "cached_initialise", "cached")
                texts = [*(f"{row[name]:.1f}" for name in names), f"{row['step']:.3f}", f"{row['hlo_lines']:,}"]
                lines.append([f"{space} {size}, {compilation}", *texts])
    headers = ["seconds", "command", "command, cached", "initialise", "first", "initialise, cached", "first, cached"]
    headers += ["a step", "lines of HLO"]
    print(table(headers, lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
