"""Are the commands of this checkout slower than those of another, or do they take more memory?

    git worktree add ../before COMMIT
    python benchmarks/versions.py --other ../before --quick
    python benchmarks/versions.py --other ../before --spaces s1 darts --sizes small medium --output versions.json

Whole commands on digits, in turn with one checkout and the other, so that both see the same noise: a second-order
search and an evaluation, once with an empty compilation cache and then several times with what the first left there.
`start` is the first epoch less a later one (tracing, compilation, reading data), `step` a later epoch by its steps, as
metrics.jsonl tells them; `command` is the whole command by the clock, `memory` the peak of its resident memory.
Medians; ratios above 1: this checkout is better. Without `--other`, this checkout against itself: the noise.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from _common import command, headline, number, setting, table, write_json
from _search import Size, size_of

from jaxdarts.errors import InputError, RunError
from jaxdarts.methods import sample_weights
from jaxdarts.spaces import discretise, load_space

HERE = Path(__file__).parents[1]
STEPS = 5
MEASURES = {"cold start": "s", "cached start": "s", "step": "ms", "command": "s", "memory": "MB"}


@dataclass(frozen=True)
class Options:
    other: Path = HERE  # the folder of another checkout
    spaces: tuple[str, ...] = ("s1", "s2", "darts")  # search spaces
    sizes: tuple[str, ...] = ("small", "medium")  # tiny, small, medium or paper
    commands: tuple[str, ...] = ("search", "evaluate")
    epochs: int = 4  # of a command
    repeats: int = 3  # commands with a full cache
    quick: bool = False  # the smallest, to see that everything works
    output: Path | None = None  # JSON


QUICK = {"spaces": ("s5",), "sizes": ("tiny",), "commands": ("evaluate",), "epochs": 2, "repeats": 1}


def arguments(name: str, space: str, size: Size, epochs: int, run_dir: Path) -> list[str]:
    """The command's line after `python -m`; both checkouts understand it."""
    images = 2 * size.batch * STEPS if name == "search" else size.batch * STEPS
    own = ["--hypergradient", "unrolled", "--curvature-every", "0"]
    if name == "evaluate":
        found = load_space(space)
        file = run_dir.parent / "genotype.json"
        file.write_text(json.dumps(discretise(found, sample_weights(found, jax.random.key(0))).to_json()))
        own = ["--genotype", str(file)]
    flags = {
        "--space": space, "--dataset": "digits", "--image-size": size.image, "--batch-size": size.batch,
        "--channels": size.channels, "--cells": size.cells, "--epochs": epochs, "--limit": images,
        "--run-dir": run_dir,
    }  # fmt: skip
    return [f"jaxdarts.{name}", *own, *(str(word) for pair in flags.items() for word in pair)]


def run(checkout: Path, words: Sequence[str], cache: Path, run_dir: Path) -> dict[str, float]:
    """One command of a checkout: what it took."""
    paths = os.pathsep.join([str(checkout), *(path for path in sys.path if path and Path(path) != HERE)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdout=log, stderr=log, cwd=run_dir.parent
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise RunError(
                f"{checkout}: {' '.join(words)} failed: {(log.read().strip() or str(status)).splitlines()[-1]}"
            )
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    first, *later = (record["seconds"] for record in records)
    epoch = statistics.median(later)
    return {
        "start": first - epoch,
        "step": 1e3 * epoch / STEPS,
        "command": time.perf_counter() - began,
        "memory": used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),
    }


def measure(
    checkouts: Sequence[Path], name: str, space: str, size: Size, epochs: int, repeats: int
) -> list[dict[str, float]]:
    """The measures of each checkout, medians over the commands with a full cache."""
    found: list[list[dict[str, float]]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 + repeats):
            for index, checkout in enumerate(checkouts):
                run_dir = Path(folder) / f"run_{index}_{turn}"
                words = arguments(name, space, size, epochs, run_dir)
                found[index].append(run(checkout, words, Path(folder) / f"cache_{index}", run_dir))
    rows = []
    for cold, *warm in found:
        median = {key: statistics.median(one[key] for one in warm) for key in cold}
        rows.append({"cold start": cold["start"], "cached start": median.pop("start"), **median})
    return rows


def main(options: Options) -> dict[str, Any]:
    if options.quick:
        options = dataclasses.replace(options, **QUICK)  # type: ignore[arg-type]
    if not (options.other / "jaxdarts" / "__init__.py").is_file():
        raise InputError(f"other: {options.other} is not the folder of a checkout of jaxdarts")
    if options.epochs < 2 or options.repeats < 1:
        raise InputError("epochs must be at least 2 and repeats at least 1")
    checkouts = (options.other.resolve(), HERE)
    content = setting(options) | {"rows": []}
    print(headline(content))
    for size_name in options.sizes:
        size = size_of(size_name)
        print(
            f"\n{size_name}: batch {size.batch}, {size.channels} channels, {size.cells} cells, images of {size.image}"
        )
        lines = []
        for name in options.commands:
            for space in options.spaces:
                before, now = measure(checkouts, name, space, size, options.epochs, options.repeats)
                content["rows"].append(
                    {"command": name, "space": space, "size": size_name, "other": before, "this": now}
                )
                cells = [
                    f"{number(now[key], '.1f' if unit == 's' else '.0f')} {unit} ({before[key] / now[key]:.2f})"
                    for key, unit in MEASURES.items()
                ]
                lines.append([f"{name} {space}", *cells])
        print(table(["this (other / this)", *MEASURES], lines), flush=True)
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
