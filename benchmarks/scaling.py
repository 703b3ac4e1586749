"""How do time, compilation and memory of an exact search step grow with one thing at a time?

    python benchmarks/scaling.py --quick
    python benchmarks/scaling.py --axes channels population --output scaling.json

From a base setting one of batch, channels, cells, image size, nodes a cell or operations an edge is changed; nodes and
operations in spaces with the same candidates everywhere. Steps run in parts as the search command runs them on a CPU.
`compile` is the first step less a later one, `MB` the largest temporary memory of the compiled programs, as XLA counts
it: what the CPU kernels use inside of themselves is not in it. Population: so many searches, each with its own key and
batches, under one `jax.vmap`, against as many steps one after the other. Devices: one batch split over so many, by the
same programs for one device too (without kernels), a new process each; a CPU counts as several. `MB` is of a device.

The last table has an exponent for each axis: the least-squares slope of log(time) over log(point), and the same of
memory and of compilation, beside what is expected. An exponent that is more than 0.25 above that has a `!`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import command, compile_form, headline, interleaved_medians, number, setting, table, write_json
from _process import in_new_process
from _programs import step_programs
from _search import Ready, Size, make_batch, make_ready, size_of

import jaxdarts as jd
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.networks.layers import batch_apart
from jaxdarts.sharding import data_mesh, replicate, split_batch


class Growth(NamedTuple):
    """Exponents that an axis should not exceed: time ~ points ** time, and so on."""

    time: float
    memory: float
    compile: float
    why: str


EXPECTED = {
    "batch": Growth(1, 1, 0, "as much work for every image"),
    "channels": Growth(2, 1, 0, "1x1 convolutions are quadratic, all else is linear"),
    "cells": Growth(1, 1, 1, "wider cells have smaller images"),
    "image": Growth(2, 2, 0, "in the side"),
    "nodes": Growth(2, 2, 2, "edges are quadratic: 2, 5, 9, 14, 20"),
    "operations": Growth(1, 1, 1, "all are computed"),
    "population": Growth(1, 1, 0, "on one device"),
    "devices": Growth(0, -1, 0, "they share the cores; memory is of a device"),
}
# Every other one is a convolution, so that the first ones are no cheaper than all.
OPERATIONS = (
    *("sep_conv_3x3", "max_pool_3x3", "dil_conv_5x5", "avg_pool_3x3"),
    *("dil_conv_3x3", "skip_connect", "sep_conv_5x5", "none"),
)
REAL_DEVICES = Growth(-1, -1, 0, "each has its part; memory is of a device")
TOLERANCE = 0.25  # of exponents; small sizes and noise bend lines
AXES = tuple(EXPECTED)


@dataclass(frozen=True)
class Options:
    axes: tuple[str, ...] = AXES  # what grows
    space: str = "darts"  # search space of the base setting
    size: str = "small"  # of the base setting: tiny, small, medium or paper
    batch: tuple[int, ...] = (8, 16, 32, 64, 128)  # images
    channels: tuple[int, ...] = (4, 8, 16, 32)  # of the first cell
    cells: tuple[int, ...] = (3, 5, 8, 12)  # in the chain
    image: tuple[int, ...] = (8, 16, 32)  # pixels a side
    nodes: tuple[int, ...] = (1, 2, 3, 4, 5)  # a cell
    operations: tuple[int, ...] = (2, 4, 6, 8)  # an edge, of DARTS' candidates
    population: tuple[int, ...] = (1, 2, 4, 8)  # searches at once
    devices: tuple[int, ...] = (1, 2, 4)  # that share a batch
    repeats: int = 7  # rounds
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {
    "axes": ("batch", "nodes", "operations", "population", "devices"),
    "space": "s5",
    "size": "tiny",
    "batch": (8,),
    "nodes": (1,),
    "operations": (2,),
    "population": (2,),
    "devices": (2,),
    "repeats": 2,
}


def uniform_ready(operations: Sequence[str], num_nodes: int, size: Size) -> Ready:
    """An exact step in a space that has the same candidates on every edge."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "uniform.toml"
        path.write_text(f"num_nodes = {num_nodes}\noperations = {json.dumps(list(operations))}\n")
        return make_ready(str(path), size, jd.unrolled())


def ready_at(axis: str, point: int, space: str, base: Size) -> Ready:
    """The exact step with one thing changed; a population's is one of its searches."""
    found = jd.load_space(space)
    if axis == "nodes":
        return uniform_ready(found.operation_names, point, base)
    if axis == "operations":
        return uniform_ready(OPERATIONS[:point], found.num_nodes, base)
    size = base if axis == "population" else base._replace(**{axis: point})
    return make_ready(space, size, jd.unrolled())


def measure(ready: Ready, repeats: int) -> dict[str, Any]:
    """Seconds of a step and of compiling it, megabytes of its larger program."""
    began = time.perf_counter()
    jax.block_until_ready(ready.step())
    first = time.perf_counter() - began
    seconds = interleaved_medians({"step": ready.step}, repeats)["step"]
    megabytes = [program.temporary_megabytes for program in step_programs(ready).values()]
    return {
        "step_seconds": seconds,
        "compile_seconds": first - seconds,
        "temporary_megabytes": max((value for value in megabytes if value is not None), default=None),
    }


def measure_population(ready: Ready, count: int, base: Size, repeats: int) -> dict[str, Any]:
    """The same of `count` searches in one program, and seconds of as many steps of one search, one after the other."""
    states = jax.jit(jax.vmap(ready.method.init))(jax.random.split(jax.random.key(0), count))
    first = jnp.arange(1, 1 + count)
    train, valid = (jax.vmap(lambda seed: make_batch(base, seed))(seeds) for seeds in (first, first + count))
    arguments = (states, train, valid)
    together, cost = compile_form(jax.vmap(ready.method.step), *arguments)

    def one_by_one() -> None:
        for _ in range(count):
            jax.block_until_ready(ready.step())

    forms: dict[str, Callable[[], Any]] = {"together": partial(together, *arguments), "one by one": one_by_one}
    seconds = interleaved_medians(forms, repeats)
    return {
        "step_seconds": seconds["together"],
        **cost,
        "one_by_one_seconds": seconds["one by one"],
        "ratio": seconds["together"] / seconds["one by one"],
    }


def measure_devices(space: str, base: Sequence[int], count: int, repeats: int) -> dict[str, Any]:
    """The same of a step whose batches are split over `count` of this process's devices, in programs written for it."""
    size = Size(*base)
    mesh = data_mesh(count, size.batch)
    with batch_apart():
        ready = make_ready(space, size, jd.unrolled())
        state, train, valid = replicate((ready.state, ready.train, ready.valid), mesh)
        train, valid = jax.jit(partial(split_batch, mesh=mesh))((train, valid))
        return measure(ready._replace(state=state, train=train, valid=valid), repeats)


def grow(axis: str, options: Options, base: Size) -> list[dict[str, Any]]:
    """One row a point of an axis."""
    rows: list[dict[str, Any]] = []
    for point in getattr(options, axis):
        if axis == "devices":
            arguments = (options.space, tuple(base), point, options.repeats)
            if jax.default_backend() == "cpu":  # as how many devices it counts is settled when a process starts
                row = in_new_process("scaling", "measure_devices", *arguments, cpu_devices=point)
            else:
                row = measure_devices(*arguments)
        elif axis == "population":
            row = measure_population(ready_at(axis, point, options.space, base), point, base, options.repeats)
        else:
            row = measure(ready_at(axis, point, options.space, base), options.repeats)
        relative = row["step_seconds"] / rows[0]["step_seconds"] if rows else 1.0
        rows.append({"axis": axis, "point": point, **row, "relative": relative})
        jax.clear_caches()
    return rows


def axis_table(axis: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows of an axis as aligned text."""
    headers = [axis, "ms a step", "/ first", "compile s", "MB"]
    lines = [
        [
            str(row["point"]),
            f"{1e3 * row['step_seconds']:.1f}",
            f"{row['relative']:.2f}",
            f"{row['compile_seconds']:.1f}",
            number(row["temporary_megabytes"], ".1f"),
        ]
        for row in rows
    ]
    if axis == "population":
        headers += ["ms one by one", "together / one by one"]
        lines = [
            [*line, f"{1e3 * row['one_by_one_seconds']:.1f}", f"{row['ratio']:.2f}"]
            for line, row in zip(lines, rows, strict=True)
        ]
    return table(headers, lines)


def exponent(points: Sequence[float], values: Sequence[float | None]) -> float | None:
    """k of values ~ points ** k: the least-squares slope of log(values) over log(points).

    None where there are fewer than two different points whose values are positive numbers: compilation from a cache may
    measure as less than nothing.

    Raises:
      InputError: a point is not positive, or there are not as many values as points.
    """
    if len(points) != len(values) or any(point <= 0 for point in points):
        raise InputError(f"points must be positive and as many as values; got {points} and {values}")
    pairs = [
        (math.log(point), math.log(value))
        for point, value in zip(points, values, strict=True)
        if value is not None and value > 0 and math.isfinite(value)
    ]
    if len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.array(pairs).T
    return float(np.polyfit(x, y, 1)[0])


def growth_of(axis: str, rows: Sequence[dict[str, Any]], expected: Growth) -> dict[str, Any]:
    """Exponents of an axis, what they should not exceed, and which do."""
    points = [row["point"] for row in rows]
    keys = {"time": "step_seconds", "memory": "temporary_megabytes", "compile": "compile_seconds"}
    found = {name: exponent(points, [row[key] for row in rows]) for name, key in keys.items()}
    limits = {name: value for name, value in expected._asdict().items() if name in keys}
    worse = [name for name, value in found.items() if value is not None and value > limits[name] + TOLERANCE]
    return {"axis": axis, **found, "expected": limits, "why": expected.why, "worse": worse}


def growth_table(growths: Sequence[dict[str, Any]]) -> str:
    """The exponents of all axes as aligned text, with `!` after those that are worse than expected."""
    names = ("time", "memory", "compile")
    width = max(len(growth["why"]) for growth in growths)
    lines = [
        [
            growth["axis"],
            *(number(growth[name], ".2f") + ("!" if name in growth["worse"] else " ") for name in names),
            ", ".join(f"{growth['expected'][name]:g}" for name in names),
            growth["why"].ljust(width),
        ]
        for growth in growths
    ]
    return table(["exponent of", *(f"{name} " for name in names), "at most", "since".ljust(width)], lines)


def check(options: Options, base: Size) -> None:
    """Bad input is refused before anything is compiled."""
    if not options.axes:
        raise InputError("axes: name at least one")
    for axis in options.axes:
        if axis not in AXES:
            raise unknown_choice("axis", axis, AXES)
        for point in getattr(options, axis):
            if point < 1:
                raise InputError(f"{axis}: every point must be at least 1, got {point}")
            if axis == "operations" and point > len(OPERATIONS):
                raise InputError(f"operations: there are {len(OPERATIONS)} to choose from, got {point}")
            if axis == "devices" and base.batch % point:
                raise InputError(f"devices: a batch of {base.batch} cannot be split over {point} evenly")


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    base = size_of(options.size)
    check(options, base)
    if options.quick:
        base = base._replace(cells=1)  # compiling takes nearly all of the time
    content = setting(options) | {"rows": [], "exponents": []}
    print(headline(content))
    print(
        f"base: {options.space}, batch {base.batch}, {base.channels} channels, {base.cells} cells, "
        f"{base.image}x{base.image}"
    )
    real, available = jax.default_backend() != "cpu", jax.local_device_count()
    if real and "devices" in options.axes and max(options.devices, default=0) > available:
        print(f"devices: there are {available} here, more are left out")
        options = dataclasses.replace(options, devices=tuple(n for n in options.devices if n <= available))
    # The first program of a process waits for what JAX and the kernels set up once.
    jax.block_until_ready(make_ready("s5", size_of("tiny"), jd.unrolled()).step())
    for axis in options.axes:
        rows = grow(axis, options, base)
        content["rows"] += rows
        print(f"\n{axis_table(axis, rows)}")
        expected = REAL_DEVICES if axis == "devices" and real else EXPECTED[axis]
        content["exponents"].append(growth_of(axis, rows, expected))
    print(f"\n{growth_table(content['exponents'])}")
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
