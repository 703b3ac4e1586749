"""What do all benchmarks share? Machine and versions, compiling and timing, tables, JSON, the command line."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import tyro

from jaxdarts.errors import InputError
from jaxdarts.json_files import write_atomically
from jaxdarts.runs.allocator import restart_with_large_pages
from jaxdarts.runs.compilation import quicken_compilation


def setting(options: Any) -> dict[str, Any]:
    """Machine, versions and options (a dataclass), as what is written to JSON begins."""
    device = jax.devices()[0]
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        processor = found[1] if found else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{cores} cores of {processor}" + ("" if device.platform == "cpu" else f", {device.device_kind}"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "numpy")},
        "compilation_cache": jax.config.jax_compilation_cache_dir,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
    }


def headline(setting: Mapping[str, Any]) -> str:
    """Machine and versions in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    cached = "; compile times with a compilation cache" if setting["compilation_cache"] else ""
    return f"{setting['machine']}; {versions}{cached}"


def compile_form(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """(compiled function, {"compile_seconds" tracing included, "temporary_megabytes" or None})."""
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    temporary = None if memory is None else memory.temp_size_in_bytes / 1e6
    return compiled, {"compile_seconds": seconds, "temporary_megabytes": temporary}


def interleaved_medians(forms: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each form over `repeats` rounds that call every form once, so that all see the same noise."""
    for run in forms.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, run in forms.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text aligned in columns: the first to the left, the others to the right."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def number(value: float | None, form: str) -> str:
    """A number for a table; empty for None."""
    return "" if value is None else format(value, form)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that every reader takes, whole or not at all: numbers that are not finite become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: finite(entry) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return [finite(entry) for entry in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def command(main: Callable[[Any], Any], options: type, description: str | None) -> None:
    """Runs a benchmark with the compiler settings of the search; bad input ends with one line and exit code 2."""
    restart_with_large_pages()
    quicken_compilation()
    try:
        main(tyro.cli(options, description=description))
    except InputError as error:
        print(f"error: {error}")
        raise SystemExit(2) from None
