"""How near to this machine's limits does an exact search step come?

    python benchmarks/limit.py --quick
    python benchmarks/limit.py --spaces s1 darts --sizes small medium --output limit.json

The limits are measured here: float32 matrix products for the arithmetic, and writing a large array plus one to a fresh
and to a donated buffer for the bandwidth, of which the better counts. A step is three runs of the program `gradients`
and one of `product`; what they compute and move is XLA's own count for the compiled program (`cost_analysis`).

It counts the body of a while loop once; these programs have none but scatters of a few numbers (the labels' scores,
alpha's entries), which `loops` counts. Bytes are every operation's arguments and results, also where they stay in a
processor's cache, so that the share of the bandwidth may exceed 1. Separable convolutions as matrices, or folded, do
more arithmetic than the convolution itself needs: a high share of the peak does not say that all of it was necessary.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from _common import command, headline, interleaved_medians, setting, table, write_json
from _programs import Program, step_programs
from _search import make_ready, size_of

import jaxdarts as jd
from jaxdarts.errors import InputError


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "s2", "s3", "s4", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small",)  # tiny, small, medium or paper
    matrices: tuple[int, ...] = (512, 1024, 2048)  # sides of the square matrices multiplied for the arithmetic peak
    megabytes: int = 256  # of the array copied for the bandwidth
    repeats: int = 7  # rounds
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "matrices": (256,), "megabytes": 32, "repeats": 2}


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The shortest of `repeats` runs after one that is not counted: a limit is what nothing else disturbed."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def arithmetic_peak(side: int, repeats: int) -> float:
    """GFLOP/s of a float32 matrix product, a multiply-add counted as two."""
    left, right = (jax.random.normal(jax.random.key(seed), (side, side)) for seed in range(2))
    return 2 * side**3 / best_seconds(partial(jax.jit(jnp.matmul), left, right), repeats) / 1e9


def bandwidths(megabytes: int, repeats: int) -> dict[str, float]:
    """GB/s, read and written, of a copy within jit: into a fresh buffer, and into one that is donated."""
    array = jnp.zeros(megabytes * 250_000, jnp.float32)
    # One is added because a function that returns its argument copies nothing.
    fresh = jax.jit(lambda x: x + 1)
    donated = jax.jit(lambda x, buffer: x + 1, donate_argnums=1, keep_unused=True)
    buffer = jnp.zeros_like(array)

    def into_donated() -> jax.Array:
        nonlocal buffer
        buffer = donated(array, buffer)
        return buffer

    moved = 2 * array.nbytes / 1e9
    return {
        "fresh": moved / best_seconds(lambda: fresh(array), repeats),
        "donated": moved / best_seconds(into_donated, repeats),
    }


def measure_limits(options: Options) -> dict[str, Any]:
    """GFLOP/s of each matrix product, GB/s of each copy, and the best of either."""
    products = {str(side): arithmetic_peak(side, options.repeats) for side in options.matrices}
    copies = bandwidths(options.megabytes, options.repeats)
    return {
        "matrix_gflops": products,
        "copy_gbs": copies,
        "peak_gflops": max(products.values()),
        "bandwidth_gbs": max(copies.values()),
    }


def measure(programs: dict[str, Program], limits: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    """One row a program: GFLOP, GB, seconds, and the shares of both limits."""
    seconds = interleaved_medians({name: program.run for name, program in programs.items()}, repeats)
    rows: list[dict[str, Any]] = []
    for name, program in programs.items():
        cost = program.compiled.cost_analysis() or {}
        gflop, gigabytes = cost.get("flops", float("nan")) / 1e9, cost.get("bytes accessed", float("nan")) / 1e9
        of_peak, of_bandwidth = (
            gflop / seconds[name] / limits["peak_gflops"],
            gigabytes / seconds[name] / limits["bandwidth_gbs"],
        )
        rows.append(
            {
                "program": name,
                "gflop": gflop,
                "gigabytes": gigabytes,
                "seconds": seconds[name],
                "of_peak": of_peak,
                "of_bandwidth": of_bandwidth,
                "while_loops": program.compiled.as_text().count(" while("),
                "nearer": "arithmetic" if of_peak > of_bandwidth else "bandwidth",
            }
        )
    return rows


def check(options: Options) -> None:
    """Bad input is refused before anything is measured."""
    for name in options.sizes:
        size_of(name)
    for space in options.spaces:
        jd.load_space(space)
    if not options.matrices or min(options.matrices) < 1:
        raise InputError(f"matrices: sides of at least 1, and at least one; got {options.matrices}")
    if options.megabytes < 1:
        raise InputError(f"megabytes must be at least 1, got {options.megabytes}")


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    check(options)
    content = setting(options) | {"limits": measure_limits(options), "rows": []}
    limits = content["limits"]
    print(headline(content))
    print(
        f"arithmetic {limits['peak_gflops']:.0f} GFLOP/s; bandwidth {limits['copy_gbs']['fresh']:.1f} GB/s into a "
        f"fresh buffer, {limits['copy_gbs']['donated']:.1f} into a donated one\n"
    )
    lines = []
    for name in options.sizes:
        for space in options.spaces:
            programs = step_programs(make_ready(space, size_of(name), jd.unrolled()))
            for row in measure(programs, limits, options.repeats):
                content["rows"].append({"space": space, "size": name, **row})
                numbers = [f"{row['gflop']:.3f}", f"{row['gigabytes']:.3f}", f"{1e3 * row['seconds']:.1f}"]
                shares = [f"{row['of_peak']:.2f}", f"{row['of_bandwidth']:.2f}"]
                texts = [*numbers, *shares, row["nearer"], str(row["while_loops"])]
                lines.append([f"{space} {name}, {row['program']}", *texts])
            jax.clear_caches()
    headers = ["program", "GFLOP", "GB", "ms", "of arithmetic", "of bandwidth", "nearer", "loops"]
    print(table(headers, lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
