"""Would a second-order step gain by keeping the gradient's intermediate values for the mixed product?

    python benchmarks/linearize.py --quick
    python benchmarks/linearize.py --spaces s1 darts --sizes small medium

The virtual step's gradient and the mixed product are at one point. `apart`: two programs, as a search runs them, each
with a forward and a backward pass. `shared`: `jax.linearize` gives the gradient and what its derivative needs, and a
second program takes the derivative. Medians, in turn, in milliseconds; seconds to compile what `apart` has beside the
gradient's program, which other parts of a step need anyway, and both of `shared`; megabytes of temporary memory (XLA's
count) of the larger program of `apart`, and of the first of `shared` with what it keeps.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from _common import command, headline, interleaved_medians, setting, table, write_json
from _process import in_new_process
from _search import make_ready, size_of

import jaxdarts as jd
from jaxdarts.bilevel.products import alpha_product, value_and_gradients
from jaxdarts.runs.allocator import keep_freed_memory


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small", "medium")  # tiny, small, quick, medium or paper
    repeats: int = 7  # rounds
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "repeats": 2}


def timed_compilation(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """The compiled program and the seconds that it took, tracing included."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - began


def measure(space: str, size: str, repeats: int) -> dict[str, float]:
    """One row. Run in a new process."""
    keep_freed_memory(1)
    ready = make_ready(space, size_of(size), jd.unrolled())
    (loss, _), state = ready.problem.losses, ready.state
    point = (state.params, state.alpha, ready.view)
    direction = jax.tree.map(lambda leaf: 0.01 * leaf, state.params)
    nothing = jax.tree.map(lambda leaf: 0 * leaf, state.alpha)

    def keep(params: Any, alpha: Any, view: Any) -> Any:
        def gradients(w: Any) -> Any:
            seen, found = value_and_gradients(loss, w, alpha, view)
            return found[1], (seen, found)

        _, derivative, rest = jax.linearize(gradients, params, has_aux=True)
        return rest, derivative

    gradient, _ = timed_compilation(lambda *a: value_and_gradients(loss, *a), *point)
    product, compile_product = timed_compilation(lambda *a: alpha_product(loss, *a), *point, direction, nothing)
    first, compile_first = timed_compilation(keep, *point)
    derivative = first(*point)[1]
    second, compile_second = timed_compilation(lambda derivative, w: derivative(w), derivative, direction)
    forms = {
        "apart": lambda: (gradient(*point), product(*point, direction, nothing)),
        "shared": lambda: second(first(*point)[1], direction),
    }
    seconds = interleaved_medians(forms, repeats)
    temporary = [program.memory_analysis().temp_size_in_bytes for program in (gradient, product, first)]
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(derivative))
    return {
        **{f"{name}_ms": 1e3 * value for name, value in seconds.items()},
        "apart_compile": compile_product,
        "shared_compile": compile_first + compile_second,
        "apart_mb": max(temporary[:2]) / 1e6,
        "shared_mb": (temporary[2] + kept) / 1e6,
    }


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    content = setting(options) | {"rows": []}
    print(headline(content))
    lines = []
    for size in options.sizes:
        for space in options.spaces:
            row = in_new_process("linearize", "measure", space, size, options.repeats)
            content["rows"].append({"space": space, "size": size, **row})
            ratio = row["shared_ms"] / row["apart_ms"]
            lines.append([f"{space} {size}", *(f"{row[name]:.3g}" for name in row), f"{ratio:.2f}"])
    headers = ["", "apart, ms", "shared, ms", "apart, compile s", "shared, compile s", "apart, MB", "shared, MB"]
    print(table([*headers, "shared / apart"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
