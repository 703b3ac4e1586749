"""How right and how fast is jaxdarts on a GPU?

    python benchmarks/gpu.py --quick
    python benchmarks/gpu.py --output gpu.json

In the order of their value, each section until its part of `--minutes` is over: golden cases of the public codes in
float64, in float32 and with products in TF32; an exact search step at three sizes in float32, TF32 and bfloat16 beside
PyTorch's with the central difference, if it is installed; our central difference; populations under `vmap`; the
throughput of an evaluation; a whole search of S2. A row is a new process: one that fails, or needs more memory or time
than there is, is told with its error, and the others go on. The JSON is written anew after each row.

Steps are those that a run takes, with the drawing of their batches: one program on a GPU. `first` is what the start and
the first step take, most of it compilation; `step` the median of the next; the peak is what the process had of the
device's memory, or on a CPU of the machine's. It runs on a CPU too, which is how it is tested.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from _common import command, headline, number, setting, table, write_json
from _process import in_new_process
from _search import SIZES, Size

from jaxdarts.errors import InputError, RunError, unknown_choice

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
# Of most value first: gradients and second derivatives, then recurrent cells, then networks that are trained.
GOLDEN_FILES = ("search_s1", "search_rnn_architect", "evaluate_darts_v2", "search_nasbench201")
GOLDEN_MODES = {
    "float64": (),
    "float32": ("--precision", "float32"),
    "TF32": ("--precision", "float32", "--tf32", "on"),
}
PRECISIONS = ("float32", "TF32", "bfloat16")
# In order of value, and the part of all the time that is over when a section ends, unless it has ended before.
SECTIONS = {"goldens": 0.3, "steps": 0.65, "difference": 0.75, "populations": 0.85, "evaluation": 0.93, "search": 1.0}
LEAST_SECONDS = 5.0  # what is not worth beginning
TINY = {"dataset": "digits", "image_size": None, "limit": 100, "batch_size": 4, "channels": 1, "crop_padding": 1}


@dataclass(frozen=True)
class Options:
    sections: tuple[str, ...] = tuple(SECTIONS)  # what is measured, in this order
    minutes: float | None = None  # for all; by default 8, and with --quick 60: nothing is left out on a slow machine
    sizes: tuple[str, ...] = ("small", "medium", "paper")  # of steps: tiny, small, medium or paper
    members: tuple[int, ...] = (1, 2, 4, 8, 16)  # of populations
    space: str = "s2"  # that is searched in all but the golden cases
    repeats: int = 20  # steps that are timed
    torch: bool = True  # also PyTorch, if it is installed
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {
    "sizes": ("tiny",),
    "members": (2,),
    "space": str(Path(__file__).with_name("quick.toml")),
    "repeats": 2,
}


class Row(NamedTuple):
    """A line of the table, and what measures it within so many seconds."""

    name: str
    measure: Callable[[float], dict[str, Any]]


def golden(name: str, mode: str, backend: str, seconds: float) -> dict[str, Any]:
    """The largest error of a golden case, of which quantity, and whether all are as small as they should be."""
    order = [sys.executable, str(GOLDEN / "check.py"), "--backend", backend, *GOLDEN_MODES[mode]]
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    try:
        done = subprocess.run(
            [*order, str(GOLDEN / f"{name}.npz")], capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"took longer than {seconds:.0f} s") from None
    found = re.findall(r"^  (\S.*?) +(\d\.\d+e[-+]\d+|inf)(?:  above .*)?$", done.stdout, re.MULTILINE)
    if done.returncode > 1 or not found:
        raise RunError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    quantity, error = max(found, key=lambda pair: float(pair[1]))
    return {"error": float(error), "quantity": quantity, "agrees": done.returncode == 0}


def search_step(precision: str, repeats: int, members: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a search's first and next steps, and memory. Run in a new process."""
    from population import timed_steps

    from jaxdarts.plans.members import member_settings
    from jaxdarts.plans.robust import robust_plan
    from jaxdarts.plans.search import build_search
    from jaxdarts.plans.search_settings import SearchConfig

    with products_in(precision):
        side_by_side = {"population": members, "population_mapping": "vmap"} if members > 1 else {}
        config = SearchConfig(precision=dtype_of(precision), **settings, **side_by_side)
        if members == 1:
            built = build_search([config], config)
        else:
            stage = robust_plan(config, member_settings(config))([])
            assert stage is not None
            built = stage.build()
        return timed_steps(built, repeats) | peak() | {"members": members}


def training_step(precision: str, repeats: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The same of a training of DARTS_V2 from scratch, and images a second. Run in a new process."""
    from population import timed_steps

    import jaxdarts as jd
    from jaxdarts.plans.evaluate import build_evaluation
    from jaxdarts.plans.training_settings import EvaluateConfig

    with products_in(precision):
        config = EvaluateConfig(genotype="DARTS_V2", precision=dtype_of(precision), **settings)
        found = timed_steps(build_evaluation(config, jd.GENOTYPES["DARTS_V2"]), repeats)
        return found | {"images_a_second": config.batch_size / found["step"]} | peak()


def torch_step(space: str, size: Size, precision: str, repeats: int) -> dict[str, Any]:
    """The same of PyTorch's step with the central difference, on its GPU if it has one. Run in a new process."""
    import torch
    from _common import interleaved_medians
    from step_time import torch_forms

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    step = torch_forms(space, Size(*size), (1,))["PyTorch finite difference, 1"]

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    began = time.perf_counter()
    run()
    first = time.perf_counter() - began
    found = {"first": first, "step": interleaved_medians({"step": run}, repeats)["step"]}
    return found | (peak() if device == "cpu" else {"peak_megabytes": torch.cuda.max_memory_allocated() / 1e6})


def whole_search(settings: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a search as the command runs it. Run in a new process."""
    import io

    import jaxdarts as jd

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = jd.run_search(jd.SearchConfig(**settings), Path(folder) / "run", stream=io.StringIO())
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "valid_accuracy": result.metrics[-1]["valid_accuracy"]} | peak()


def products_in(precision: str) -> Any:
    """How precise the products are that ask for nothing themselves."""
    return jax.default_matmul_precision("tensorfloat32" if precision == "TF32" else "highest")


def dtype_of(precision: str) -> str:
    return "bfloat16" if precision == "bfloat16" else "float32"


def peak() -> dict[str, float]:
    """The most memory that this process had, of the device or, where that does not say, of the machine."""
    from memory import peak_megabytes

    statistics = jax.devices()[0].memory_stats() or {}
    found = statistics.get("peak_bytes_in_use")
    return {"peak_megabytes": peak_megabytes() if found is None else found / 1e6}


def rows_of(section: str, options: Options) -> Iterator[Row]:
    """What a section measures."""
    cache = jax.config.jax_compilation_cache_dir
    new = partial(in_new_process, "gpu", cache=cache and Path(cache))
    tiny, common = (TINY if options.quick else {}), {"space": options.space}

    def child(function: str, *arguments: Any) -> Callable[[float], dict[str, Any]]:
        return lambda seconds: new(function, *arguments, timeout=seconds)

    def step(name: str, precision: str, members: int = 1, **settings: Any) -> Row:
        return Row(name, child("search_step", precision, options.repeats, members, common | settings | tiny))

    def sizes(name: str) -> dict[str, Any]:
        size = SIZES[name]
        return {"batch_size": size.batch, "channels": size.channels, "cells": size.cells, "image_size": size.image}

    if section == "goldens":
        backend = jax.default_backend()
        files, modes = (GOLDEN_FILES, tuple(GOLDEN_MODES)) if not options.quick else (("evaluate_rnn",), ("float32",))
        for file in files:
            for mode in modes:
                yield Row(f"{file}, {mode}", partial(golden, file, mode, backend))
    elif section == "steps":
        with_torch = options.torch and importlib.util.find_spec("torch") is not None
        for name in options.sizes:
            for precision in PRECISIONS[: 1 if options.quick else None]:
                label = f"{name}, {precision}"
                yield step(f"{label}, exact", precision, **sizes(name))
                if with_torch:
                    arguments = (options.space, tuple(SIZES[name]), precision, options.repeats)
                    yield Row(f"{label}, PyTorch's difference", child("torch_step", *arguments))
    elif section == "difference":
        for name in options.sizes:  # beside the exact rows in float32 before
            yield step(f"{name}, float32, difference", "float32", hypergradient="finite_difference", **sizes(name))
    elif section == "populations":
        for members in options.members:
            quicker = {"hypergradient": "first_order"} if options.quick else {}
            yield step(f"{members} under vmap", "float32", members, **quicker)
    elif section == "evaluation":
        # The published size.
        settings = {**TINY, "cells": 3} if options.quick else {"batch_size": 96, "channels": 36, "cells": 20}
        for precision in PRECISIONS[: 1 if options.quick else None]:
            yield Row(precision, child("training_step", precision, options.repeats, settings))
    else:
        short = {**tiny, "hypergradient": "first_order", "epochs": 1, "curvature_every": 0} if options.quick else {}
        yield Row("search", child("whole_search", common | short))


def check(options: Options) -> None:
    """Refuses what cannot be measured, before anything is."""
    for name in options.sections:
        if name not in SECTIONS:
            raise unknown_choice("section", name, SECTIONS)
    for name in options.sizes:
        if name not in SIZES:
            raise unknown_choice("size", name, SIZES)
    for argument, value in (("minutes", options.minutes), ("repeats", options.repeats)):
        if value is not None and not value > 0:
            raise InputError(f"{argument} must be greater than 0; got {value}")
    if not options.members or min(options.members) < 1:
        raise InputError(f"members must be at least 1; got {options.members}")


def line_of(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    remark = row.get("error_message") or row.get("skipped") or row.get("quantity", "")
    if "error" in row:
        remark = f"{remark} {row['error']:.0e}{'' if row['agrees'] else ', too large'}"
    if "images_a_second" in row:
        remark = f"{row['images_a_second']:.0f} images a second"
    if "seconds" in row:
        remark = f"{row['seconds']:.1f} s in all"
    milliseconds = 1e3 * row["step"] / row.get("members", 1) if "step" in row else None
    figures = (number(row.get("first"), ".1f"), number(milliseconds, ".1f"), number(row.get("peak_megabytes"), ".0f"))
    return [f"{row['section']}: {row['name']}", *figures, remark]


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    check(options)
    minutes = (60.0 if options.quick else 8.0) if options.minutes is None else options.minutes
    # Else the first process takes three quarters of a GPU's memory, and this one is the first.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    began, content = time.perf_counter(), setting(options) | {"rows": []}
    if importlib.util.find_spec("torch") is not None:
        content["versions"]["torch"] = importlib.metadata.version("torch")
    print(headline(content))
    for section in options.sections:
        for name, measure in rows_of(section, options):
            row: dict[str, Any] = {"section": section, "name": name}
            left = 60 * minutes * SECTIONS[section] - (time.perf_counter() - began)
            if left < LEAST_SECONDS:
                row["skipped"] = f"not measured: its part of {minutes:g} minutes is over"
            else:
                try:
                    row |= measure(left)
                except RunError as error:
                    row["error_message"] = str(error)
            content["rows"].append(row)
            print(f"{time.perf_counter() - began:.0f} s: {section}, {name}", file=sys.stderr)
            if options.output is not None:
                write_json(options.output, content)
    print(table(["", "first, s", "a step, ms a member", "peak, MB", ""], [line_of(row) for row in content["rows"]]))
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
