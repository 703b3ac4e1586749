"""How long is a search step, first and second order, against PyTorch's?

    python benchmarks/step_time.py --quick
    python benchmarks/step_time.py --spaces s1 s2 s3 s4 darts --sizes small --output step_time.json

A step is one step on alpha and one on the weights. Ours: exact second order, the central difference, and first order,
in parts as the search command runs them. PyTorch's (`pytorch_supernet.py`, if torch is installed): the central
difference and first order, the better of one thread and all; with `--torch-compile` also with its network compiled by
torch.compile, without a cache. ConfigurableOptimizer's (`pytorch_confopt.py`, if it is installed): first order in the
space `darts`. Ours and the others run in a process each, with the settings of the commands' allocator. Medians over
rounds that run every form once. A peer that cannot run a form is named below the table.

`compile` is the first step less a later one. A compiled network serves both orders, so its first form has all of that.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from _common import command, headline, interleaved_medians, number, setting, table, write_json
from _process import in_new_process
from _search import Size, make_ready, size_of
from pytorch_confopt import NAME as CONFOPT
from pytorch_confopt import confopt_forms, installed

import jaxdarts as jd
from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.allocator import keep_freed_memory

FORMS: dict[str, Callable[[], Any]] = {
    "exact": jd.unrolled,
    "finite difference": jd.finite_difference,
    "first order": jd.first_order,
}


@dataclass(frozen=True)
class Options:
    spaces: tuple[str, ...] = ("s1", "s2", "s3", "s4", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small",)  # tiny, small, medium or paper
    forms: tuple[str, ...] = tuple(FORMS)  # of ours
    torch: bool = True  # also PyTorch, if it is installed
    torch_compile: bool = False  # also PyTorch's network by torch.compile, which takes minutes to compile
    confopt: bool = True  # also ConfigurableOptimizer in the space darts, if it is installed
    repeats: int = 7  # rounds
    keep_memory: bool = True  # what steps free is kept for the next, as the commands do for small networks
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "repeats": 2}


def thread_counts() -> tuple[int, ...]:
    """One, and as many as this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return tuple(sorted({1, cores}))


def torch_forms(space: str, size: Size, threads: Sequence[int], compiled: bool = False) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps by name, for each number of threads; `compiled`: its network by torch.compile."""
    import torch
    from pytorch_supernet import Search, SearchNetwork

    found = jd.load_space(space)
    torch.manual_seed(0)
    network: Any = SearchNetwork(found, 10, size.channels, size.cells)
    network = torch.compile(network) if compiled else network
    alpha = {kind: (1e-3 * torch.randn(found.alpha_shape(kind))).requires_grad_() for kind in ("normal", "reduce")}
    search = Search(network, alpha, 0.025, 0.9, 3e-4)
    train, valid = (
        (torch.randn(size.batch, 3, size.image, size.image), torch.randint(0, 10, (size.batch,))) for _ in range(2)
    )

    def run(count: int, second_order: bool) -> None:
        torch.set_num_threads(count)
        search.step(train, valid, second_order)

    name = "compiled PyTorch" if compiled else "PyTorch"
    orders = {"finite difference": True, "first order": False}
    return {f"{name} {order}, {count}": partial(run, count, orders[order]) for count in threads for order in orders}


def timed(forms: Mapping[str, Callable[[], Any]], repeats: int, may_fail: bool = False) -> dict[str, dict[str, Any]]:
    """By form: median "seconds", "compile_seconds" (the first call less a later one), "failures" of those that raised.

    If they may not fail, what they raise is raised.
    """
    first: dict[str, float] = {}
    failures = {}
    for name, run in forms.items():
        began = time.perf_counter()
        try:
            jax.block_until_ready(run())
        except Exception as error:  # whatever a peer's compiler raises: its other forms are still measured
            if not may_fail:
                raise
            failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            first[name] = time.perf_counter() - began
    seconds = interleaved_medians({name: forms[name] for name in first}, repeats)
    compiling = {name: value - seconds[name] for name, value in first.items()}
    return {"seconds": seconds, "compile_seconds": compiling, "failures": failures}


def keep(size: Size, wanted: bool) -> None:
    """The commands' settings of the allocator, for all that is compared."""
    if wanted:
        keep_freed_memory(size.batch * size.image**2 * size.channels * size.cells)


def our_seconds(space: str, size_name: str, repeats: int, kept: bool, names: Sequence[str]) -> dict[str, Any]:
    """What `timed` says of our forms. Run in a new process."""
    size = size_of(size_name)
    keep(size, kept)
    return timed({name: make_ready(space, size, FORMS[name]()).step for name in names}, repeats)


def torch_seconds(space: str, size_name: str, repeats: int, kept: bool) -> dict[str, Any]:
    """Median "seconds" of PyTorch's forms. Run in a new process."""
    size = size_of(size_name)
    keep(size, kept)
    return {"seconds": interleaved_medians(torch_forms(space, size, thread_counts()), repeats)}


def compiled_seconds(space: str, size_name: str, repeats: int, kept: bool, threads: int) -> dict[str, Any]:
    """What `timed` says of compiled PyTorch's forms. Run in a new process: the number of threads is compiled in."""
    size = size_of(size_name)
    keep(size, kept)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        return timed(torch_forms(space, size, (threads,), compiled=True), repeats, may_fail=True)


def confopt_seconds(size_name: str, repeats: int, kept: bool) -> dict[str, Any]:
    """Median "seconds" of ConfigurableOptimizer's forms. Run in a new process."""
    size = size_of(size_name)
    keep(size, kept)
    return {"seconds": interleaved_medians(confopt_forms(size, thread_counts()), repeats)}


def measure(options: Options, space: str, size: str) -> dict[str, dict[str, Any]]:
    """What is found of every form, as `timed` says it; ours and the others' threads and heaps do not meet."""
    for name in options.forms:
        if name not in FORMS:
            raise InputError(f"forms: unknown form {name!r}; choose from {', '.join(FORMS)}")
    cache = jax.config.jax_compilation_cache_dir
    given = (space, size, options.repeats, options.keep_memory)
    found = in_new_process("step_time", "our_seconds", *given, options.forms, cache=cache and Path(cache))
    has_torch = importlib.util.find_spec("torch") is not None
    if options.torch and has_torch:
        add(found, in_new_process("step_time", "torch_seconds", *given))
    for threads in thread_counts() if options.torch_compile and has_torch else ():
        add(found, attempted(f"compiled PyTorch, {threads}", "compiled_seconds", *given, threads))
    if options.confopt and space == "darts" and installed():
        add(found, attempted(CONFOPT, "confopt_seconds", *given[1:]))
    return found


def attempted(name: str, function: str, *arguments: Any) -> dict[str, dict[str, Any]]:
    """What that function finds in a new process; if it ends in failure, that under this name."""
    try:
        return in_new_process("step_time", function, *arguments)
    except RunError as error:
        return {"failures": {name: str(error)}}


def add(found: dict[str, dict[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts what was found of more forms into the same tables."""
    for kind, values in more.items():
        found[kind] |= values


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """What is compared: above 1, ours is faster."""
    found = {}
    for peer in ("PyTorch", "compiled PyTorch", CONFOPT):
        for ours, theirs in (("exact", "finite difference"), ("first order", "first order")):
            times = [value for name, value in seconds.items() if name.startswith(f"{peer} {theirs}")]
            if times and ours in seconds:
                found[f"{peer}'s {theirs} / our {ours}"] = min(times) / seconds[ours]
    if "exact" in seconds and "finite difference" in seconds:
        found["our exact / our finite difference"] = seconds["exact"] / seconds["finite difference"]
    return found


def step_tables(rows: Sequence[dict[str, Any]]) -> str:
    """Steps, then compilation, as aligned text, and what failed; a row a space."""

    def columns(kind: str) -> list[str]:
        return list(dict.fromkeys(name for row in rows for name in row[kind]))

    def milliseconds(value: float | None) -> str:
        return number(value and 1e3 * value, ".0f")

    names, compared, compiling = columns("seconds"), columns("ratios"), columns("compile_seconds")
    steps = [
        [row["space"], *(milliseconds(row["seconds"].get(name)) for name in names)]
        + [number(row["ratios"].get(name), ".2f") for name in compared]
        for row in rows
    ]
    compilation = [
        [row["space"], *(number(row["compile_seconds"].get(name), ".1f") for name in compiling)] for row in rows
    ]
    failures = [f"{row['space']}: {name} failed: {why}" for row in rows for name, why in row["failures"].items()]
    first = table(["milliseconds a step", *names, *compared], steps)
    return "\n".join([first, "", table(["seconds to compile", *compiling], compilation), *failures])


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    sizes = {name: size_of(name) for name in options.sizes}
    content = setting(options) | {"rows": []}
    if importlib.util.find_spec("torch") is not None:
        content["versions"]["torch"] = importlib.metadata.version("torch")
    print(headline(content))
    if options.confopt and "darts" in options.spaces and not installed():
        print(f"{CONFOPT} is not installed and is left out")
    for name, size in sizes.items():
        print(f"\n{name}: batch {size.batch}, {size.channels} channels, {size.cells} cells, {size.image}x{size.image}")
        rows = []
        for space in options.spaces:
            found = measure(options, space, name)
            rows.append({"space": space, "size": name, **found, "ratios": ratios(found["seconds"])})
        content["rows"] += rows
        print(step_tables(rows))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
