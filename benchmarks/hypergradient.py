"""How far is each hypergradient of a supernet from the exact one, and what does it cost?

    python benchmarks/hypergradient.py --quick
    python benchmarks/hypergradient.py --spaces s5 s2 --batch-sizes 8 32 128 --output out.json --figure out.png

Truth is the exact one-step hypergradient in float64, whose mixed term is checked by central differences small enough to
have no kink inside. The points are real: data of a set; weights, alpha and momentum of a search after some steps.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import command, headline, number, setting, table, write_json
from _comparison import EXACT, Arguments, Estimators, compare, cost_rows, draw_batches, make_search, reach_points, sweep
from _error_figure import draw_figure, places

import jaxdarts as jd
from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.plans.common_settings import PRECISIONS

WHY = """\
Why the central difference misses: ReLU and max pooling make the gradient jump wherever an activation changes sign or
another entry of a window becomes the largest. The difference adds the jumps between its two points, divided by their
distance: a smaller radius makes that worse until no jump lies inside, and in float32 rounding takes over before.
The exact product holds no jumps: it is the derivative almost everywhere, of this batch's loss. What kinks contribute
to the *expected* loss on average is left out of it, and is part of the difference, mixed with noise. The table called
"shared" shows the part of the error that independent batches have in common, which noise does not."""


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s5",)  # search spaces, names or .toml files
    dataset: str = "photos10"  # data set, in the words of the search command
    data_dir: str | None = None  # folder in which it is looked for
    channels: int = 8  # channels of the first cell
    cells: int = 3  # cells in the chain
    image_size: int = 16  # pixels a side
    batch_sizes: tuple[int, ...] = (8, 32, 128)  # images in each batch
    radii: tuple[float, ...] = tuple(10.0**-n for n in range(1, 10))  # lengths of the difference's displacement
    precisions: tuple[str, ...] = ("float32", "float64")
    train_steps: tuple[int, ...] = (0, 30)  # steps of a first-order search before the comparison
    train_batch_size: int = 32  # images in a batch of that search
    draws: int = 6  # pairs of batches; errors are medians over them
    timed_batch_sizes: tuple[int, ...] = (32,)  # where every estimator is timed; compiling them takes long
    timed_precisions: tuple[str, ...] = ("float32",)
    steps: int = 4  # of unrolled, the longer one
    terms: int = 4  # of neumann
    max_steps: int = 5  # of conjugate_gradient
    damping: float = 1.0  # of conjugate_gradient
    radius: float = 1e-2  # of finite_difference where it is timed
    repeats: int = 9  # timings of each estimator
    seed: int = 0
    quick: bool = False  # a single cell and few batches, to see that everything works
    output: Path | None = None  # JSON
    figure: Path | None = None  # error against radius, in any format that matplotlib writes


QUICK = {
    "spaces": (str(Path(__file__).with_name("quick.toml")),),
    "channels": 2,
    "cells": 1,
    "image_size": 8,
    "batch_sizes": (8,),
    "radii": (1e-2, 1e-4, 1e-9),
    "train_steps": (0,),
    "draws": 2,
    "timed_batch_sizes": (8,),
    "timed_precisions": ("float64",),
    "steps": 2,
    "terms": 2,
    "max_steps": 2,
    "repeats": 2,
}


def check(options: Options) -> None:
    """Refuses what cannot be measured, before anything is compiled."""
    for name in ("spaces", "batch_sizes", "radii", "precisions", "train_steps"):
        if not getattr(options, name):
            raise InputError(f"{name} must have at least one entry")
    for name in (*options.precisions, *options.timed_precisions):
        if name not in PRECISIONS:
            raise unknown_choice("precision", name, PRECISIONS)
    if min(options.radii) <= 0 or options.radius <= 0:
        raise InputError(f"radii must be positive; got {options.radii}, {options.radius}")
    for name, least in (("draws", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            raise InputError(f"{name} must be at least {least}; got {getattr(options, name)}")
    if min(options.train_steps) < 0:
        raise InputError(f"train_steps must not be negative; got {options.train_steps}")


def search_config(options: Options, space: str) -> jd.SearchConfig:
    """The search whose states are looked at, checked."""
    config = jd.SearchConfig(
        space=space,
        dataset=options.dataset,
        data_dir=options.data_dir,
        channels=options.channels,
        cells=options.cells,
        image_size=options.image_size,
        batch_size=options.train_batch_size,
        hypergradient="first_order",  # its step compiles in a third of the time
        seed=options.seed,
    )
    # A chain of one or two cells is no search, but compiles quickly.
    config.replace(cells=max(config.cells, 3)).check()
    return config


def estimators_to_time(options: Options) -> dict[str, Callable[..., Any]]:
    """Estimators of the library by the call that builds them."""
    damped = f"conjugate_gradient({options.max_steps}, {options.damping:g})"
    return {
        "first_order()": jd.first_order(),
        f"finite_difference({options.radius:g})": jd.finite_difference(options.radius),
        EXACT: jd.unrolled(),
        f"unrolled({options.steps})": jd.unrolled(options.steps),
        f"neumann({options.terms})": jd.neumann(options.terms),
        damped: jd.conjugate_gradient(options.max_steps, options.damping),
    }


def measure(options: Options, save: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    """{"errors": a row per space, steps, batch size, precision and radius; "costs": a row per estimator}.

    It takes minutes, so what there is goes to `save` after every place, and a line to standard error.
    """
    check(options)
    configs = [search_config(options, space) for space in options.spaces]
    forms = estimators_to_time(options)
    begin = time.perf_counter()
    errors: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    for config in configs:
        search = make_search(config)
        smallest = min(len(part.labels) for part in (search.built.data.train, search.built.data.valid))
        sizes = sorted({*options.batch_sizes, *options.timed_batch_sizes})
        if sizes[0] < 1 or sizes[-1] > smallest:
            raise InputError(f"batch_sizes must be from 1 to {smallest}, half of the data; got {sizes}")
        estimators = Estimators(search)
        points = reach_points(search, options.train_steps)
        for batch_size in sizes:
            batches = draw_batches(search, batch_size, options.draws, options.seed)
            for steps, point in points.items():
                place = {"space": Path(search.problem.space.name).stem, "train_steps": steps, "batch_size": batch_size}
                cases = [Arguments(point, *pair) for pair in batches]
                swept = batch_size in options.batch_sizes
                timed = batch_size in options.timed_batch_sizes and steps == max(points)
                if not swept and not timed:
                    continue
                truth = sweep(estimators, cases, options.radii if swept else (), "float64")
                for dtype in options.precisions if swept else ():
                    found = truth if dtype == "float64" else sweep(estimators, cases, options.radii, dtype)
                    errors += [place | {"precision": dtype} | row for row in compare(found, truth[EXACT])]
                if timed:
                    wholes = [one.whole for one in truth[EXACT]]
                    rows = cost_rows(estimators, cases, wholes, forms, options.timed_precisions, options.repeats)
                    costs += [place | row for row in rows]
                save({"errors": errors, "costs": costs})
                seconds = time.perf_counter() - begin
                print(f"{seconds:.0f} s: {place} done", file=sys.stderr)
    return {"errors": errors, "costs": costs}


def error_tables(errors: Sequence[dict[str, Any]]) -> str:
    """A table for each quantity: places down, radii across."""
    titles = {
        "error": "Error of the whole hypergradient, relative to the norm of the exact one (1 is as far off as zero is)",
        "mixed_error": "Error of the mixed term alone, relative to its norm",
        "cosine": "Cosine of the whole hypergradient to the exact one",
        "shared_error": "Error of the mean over independent batches (shared): what is not noise",
    }
    parts = []
    for quantity, title in titles.items():
        lines = []
        for (space, steps, batch_size, precision), rows in places(
            errors, "space", "train_steps", "batch_size", "precision"
        ).items():
            form = ".3f" if quantity == "cosine" else ".1e"
            cells = [number(row[quantity], form) for row in rows]
            lines.append([f"{space}, step {steps}, batch {batch_size}, {precision}", *cells])
            radii = ["exact" if row["radius"] is None else f"R={row['radius']:g}" for row in rows]
        parts.append(f"{title}\n{table(['', *radii], lines)}")
    return "\n\n".join(parts)


def cost_table(costs: Sequence[dict[str, Any]]) -> str:
    """Estimators: time and memory, and how far from the exact one-step hypergradient in float64 each is."""
    headers = ["", "ms", "/ exact", "compile s", "temporary MB", "distance", "cosine"]
    lines = []
    for row in costs:
        place = f"{row['space']}, step {row['train_steps']}, batch {row['batch_size']}, {row['precision']}"
        lines.append(
            [
                f"{place}, {row['estimator']}",
                f"{1e3 * row['seconds']:.1f}",
                f"{row['exact_ratio']:.2f}",
                f"{row['compile_seconds']:.1f}",
                number(row["temporary_megabytes"], ".1f"),
                f"{row['distance']:.1e}",
                f"{row['cosine']:.3f}",
            ]
        )
    return table(headers, lines)


def verification(errors: Sequence[dict[str, Any]]) -> list[str]:
    """Where central differences in float64 come closest to the exact mixed term, at every place."""
    lines = []
    for (space, steps, batch_size, precision), rows in places(
        errors, "space", "train_steps", "batch_size", "precision"
    ).items():
        if precision == "float64":
            best = min((row for row in rows if row["radius"] is not None), key=lambda row: float(row["mixed_error"]))
            lines.append(
                f"{space}, step {steps}, batch {batch_size}: the exact mixed term in float64 agrees with a central "
                f"difference of radius {best['radius']:g} to {best['mixed_error']:.0e}"
            )
    return lines


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    head = setting(options)

    def save(measured: dict[str, Any]) -> None:
        if options.output is not None:
            write_json(options.output, head | measured)

    content = head | measure(options, save)
    print(headline(content))
    print(
        f"{options.dataset}, images of {options.image_size}x{options.image_size}, {options.channels} channels, "
        f"{options.cells} cells; after n steps of first-order DARTS; medians over {options.draws} pairs of batches\n"
    )
    print(error_tables(content["errors"]))
    print("\n" + "\n".join(verification(content["errors"])))
    print("\nEstimators; distance and cosine are to the exact one-step hypergradient in float64. Several steps and")
    print("implicit estimators approximate something else than one step: theirs are no errors.\n")
    print(cost_table(content["costs"]))
    print(f"\n{WHY}")
    if options.figure is not None:
        draw_figure(content["errors"], options.figure)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
