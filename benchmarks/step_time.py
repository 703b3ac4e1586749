"""How long is a search step, first and second order, against PyTorch's?

    python benchmarks/step_time.py --quick
    python benchmarks/step_time.py --spaces s1 s2 s3 s4 darts --sizes small --output step_time.json

A step is one step on alpha and one on the weights. Ours: exact second order, the central difference, and first order,
in parts as the search command runs them. PyTorch's (`pytorch_supernet.py`, if torch is installed): the central
difference and first order, the better of one thread and all. Ours and PyTorch's run in a process each, with the
settings of the commands' allocator. Medians over rounds that run every form once.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from _common import command, headline, interleaved_medians, setting, table, write_json
from _process import in_new_process
from _search import Size, make_ready, size_of

import jaxdarts as jd
from jaxdarts.errors import InputError
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
    repeats: int = 7  # rounds
    keep_memory: bool = True  # what steps free is kept for the next, as the commands do for small networks
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "repeats": 2}


def torch_forms(space: str, size: Size) -> dict[str, Callable[[], Any]]:
    """PyTorch's steps by name, for one thread and for all."""
    import torch
    from pytorch_supernet import Search, SearchNetwork

    found = jd.load_space(space)
    torch.manual_seed(0)
    network = SearchNetwork(found, 10, size.channels, size.cells)
    alpha = {kind: (1e-3 * torch.randn(found.alpha_shape(kind))).requires_grad_() for kind in ("normal", "reduce")}
    search = Search(network, alpha, 0.025, 0.9, 3e-4)
    train, valid = (
        (torch.randn(size.batch, 3, size.image, size.image), torch.randint(0, 10, (size.batch,))) for _ in range(2)
    )

    def run(threads: int, second_order: bool) -> None:
        torch.set_num_threads(threads)
        search.step(train, valid, second_order)

    forms = {}
    for threads in sorted(
        {1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1}
    ):
        forms[f"PyTorch finite difference, {threads}"] = partial(run, threads, True)
        forms[f"PyTorch first order, {threads}"] = partial(run, threads, False)
    return forms


def our_seconds(space: str, size_name: str, names: Sequence[str], repeats: int, keep: bool) -> dict[str, float]:
    """Median seconds of our forms. Run in a new process."""
    size = size_of(size_name)
    if keep:
        keep_freed_memory(size.batch * size.image**2 * size.channels * size.cells)
    return interleaved_medians({name: make_ready(space, size, FORMS[name]()).step for name in names}, repeats)


def torch_seconds(space: str, size_name: str, repeats: int, keep: bool) -> dict[str, float]:
    """Median seconds of PyTorch's forms, with the same settings of the allocator. Run in a new process."""
    size = size_of(size_name)
    if keep:
        keep_freed_memory(size.batch * size.image**2 * size.channels * size.cells)
    return interleaved_medians(torch_forms(space, size), repeats)


def measure(options: Options, space: str, size: str) -> dict[str, float]:
    """Median seconds of every form; ours and PyTorch's threads and heaps do not meet."""
    for name in options.forms:
        if name not in FORMS:
            raise InputError(f"forms: unknown form {name!r}; choose from {', '.join(FORMS)}")
    cache = jax.config.jax_compilation_cache_dir
    settings = (options.repeats, options.keep_memory)
    seconds = in_new_process(
        "step_time", "our_seconds", space, size, options.forms, *settings, cache=cache and Path(cache)
    )
    if options.torch and importlib.util.find_spec("torch") is not None:
        seconds |= in_new_process("step_time", "torch_seconds", space, size, *settings)
    return dict(seconds)


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """What is compared: above 1, ours is faster."""
    found = {}
    for ours, theirs in (("exact", "finite difference"), ("first order", "first order")):
        times = [value for name, value in seconds.items() if name.startswith(f"PyTorch {theirs}")]
        if times and ours in seconds:
            found[f"PyTorch's {theirs} / our {ours}"] = min(times) / seconds[ours]
    if "exact" in seconds and "finite difference" in seconds:
        found["our exact / our finite difference"] = seconds["exact"] / seconds["finite difference"]
    return found


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    sizes = {name: size_of(name) for name in options.sizes}
    content = setting(options) | {"rows": []}
    if importlib.util.find_spec("torch") is not None:
        content["versions"]["torch"] = importlib.metadata.version("torch")
    print(headline(content))
    for name, size in sizes.items():
        print(f"\n{name}: batch {size.batch}, {size.channels} channels, {size.cells} cells, {size.image}x{size.image}")
        lines, headers = [], ["milliseconds a step"]
        for space in options.spaces:
            seconds = measure(options, space, name)
            compared = ratios(seconds)
            content["rows"].append({"space": space, "size": name, "seconds": seconds, "ratios": compared})
            headers = ["milliseconds a step", *seconds, *compared]
            cells = [f"{1e3 * value:.0f}" for value in seconds.values()]
            lines.append([space, *cells, *(f"{value:.2f}" for value in compared.values())])
        print(table(headers, lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
