"""Do tiny runs still give what they gave? Every method and hypergradient, an evaluation, a table, populations.

    python tests/freeze/freeze.py --write     # runs all and writes what they give to frozen.json
    python tests/freeze/freeze.py             # runs all again and prints what differs; exit code 1 if anything does
    python tests/freeze/freeze.py NAME ...    # only these

Numbers are compared to the last bit on the kind of processor and with the versions with which they were frozen, and to
1e-3 elsewhere, where the compiler may order sums otherwise: there only the first epoch counts, since differences grow.
Layers are in plain JAX, without kernels. It takes some minutes from cold. Changes on purpose are argued in the commit
that writes frozen.json anew.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import jaxdarts as jd

os.environ["JAXDARTS_KERNELS"] = "off"

FILE = Path(__file__).with_name("frozen.json")
SPACE = 'num_nodes = 1\noperations = ["none", "skip_connect", "max_pool_3x3"]\n'
PAIR = 'num_nodes = 1\noperations = ["skip_connect"]\n\n[normal]\n"1->2" = ["skip_connect", "max_pool_3x3"]\n'
GENOTYPE = (
    "Genotype(normal=[('skip_connect', 0), ('max_pool_3x3', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)
DATA: dict[str, Any] = {"dataset": "digits", "epochs": 2, "image_size": None, "limit": 80, "crop_padding": 1}
SEARCH: dict[str, Any] = {
    **DATA,
    "batch_size": 10,
    "channels": 1,
    "cells": 3,
    "hypergradient": "first_order",
    "curvature_products": 6,
    "spectrum_size": 3,
}
ALPHALESS = {name: value for name, value in SEARCH.items() if name != "hypergradient"}
EAGER: dict[str, Any] = {"epochs": 5, "es_threshold": 1e-6, "es_first_epoch": 0}
CHOOSING: dict[str, Any] = {"selection_samples": 5, "selection_batches": 2, "selection_finalists": 2, "select_every": 1}
SEARCHES: dict[str, dict[str, Any]] = {
    "darts": SEARCH,
    "darts-drop-path": {**SEARCH, "drop_path": 0.3, "cutout": True, "cutout_length": 2},
    "darts-temperature": {**SEARCH, "temperature_end": 0.5},
    "darts-update": {**SEARCH, "temperature_start": 1.1, "temperature_form": "update", "alpha_weight_decay": 0.1},
    **{
        f"darts-{name}": {**SEARCH, "hypergradient": name}
        for name in ("unrolled", "finite_difference", "neumann", "conjugate_gradient")
    },
    "darts-es": {**SEARCH, **EAGER, "method": "darts-es"},
    "darts-ada": {**SEARCH, **EAGER, "method": "darts-ada"},
    "beta-darts": {**SEARCH, "method": "beta-darts", "epochs": 3},
    "random-ws": {**ALPHALESS, **CHOOSING, "method": "random-ws"},
    "random": {**ALPHALESS, "method": "random"},
    "r-darts-l2": {**SEARCH, "method": "r-darts-l2", "strengths": "3e-4,3e-3", "retrain_epochs": 1},
    "r-darts-dp": {**SEARCH, "method": "r-darts-dp", "strengths": "0,0.5", "cutout_length": 2, "retrain_epochs": 0},
    "population": {**SEARCH, "population": 2, "retrain_epochs": 0},
    "nasbench201": {**SEARCH, "space": "nasbench201", "cells": 1},
}
TRAINING: dict[str, Any] = {
    **DATA, "batch_size": 15, "channels": 2, "cells": 3, "valid_portion": 0.25, "cutout_length": 2, "drop_path": 0.3
}  # fmt: skip


def runs(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names, and functions that run and return the folder."""
    (folder / "tiny.toml").write_text(SPACE)
    (folder / "pair.toml").write_text(PAIR)
    (folder / "cells.txt").write_text(GENOTYPE)
    for name, settings in SEARCHES.items():
        config = jd.SearchConfig(**{"space": str(folder / "tiny.toml"), **settings})
        yield name, lambda path, config=config: jd.run_search(config, path, stream=io.StringIO())
    evaluation = jd.EvaluateConfig(genotype=str(folder / "cells.txt"), **TRAINING)
    yield "evaluation", lambda path: jd.run_evaluation(evaluation, path, stream=io.StringIO())
    table = jd.TabulateConfig(space=str(folder / "pair.toml"), seeds=2, **TRAINING)
    yield "table", lambda path: jd.run_tabulation(table, path, stream=io.StringIO())


def outcome(folder: Path) -> dict[str, Any]:
    """All numbers that a run has written, by file and place, without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.json*")):
        name = str(path.relative_to(folder))
        if path.name in ("config.json", "events.json") or (path.name == "metrics.jsonl" and "table.json" in found):
            continue
        text = path.read_text()
        value = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        found[name] = value["entries"] if path.name == "table.json" else value
    if "table.json" in found:
        found.pop("metrics.jsonl", None)
    return dict(_numbers(found, ""))


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if key not in ("seconds", "member_epoch"):
                yield from _numbers(entry, f"{name}/{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _numbers(entry, f"{name}/{index}")
    else:
        yield name, value


def here() -> dict[str, str]:
    """What the last bits depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    return {"jax": jax.__version__, "processor": cpu[1] if cpu else platform.processor()}


def differences(frozen: Mapping[str, Any], now: Mapping[str, Any], exact: bool) -> Iterator[str]:
    """A line for each number that is another."""
    for name in sorted({*frozen, *now}):
        before, after = frozen.get(name, "missing"), now.get(name, "missing")
        if before == after:
            continue
        if not exact:
            first = "metrics.jsonl/0/" in name
            both = isinstance(before, int | float) and isinstance(after, int | float)
            if not first or (both and math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-5)):
                continue
        yield f"{name}: {before!r} frozen, {after!r} now"


def main(arguments: list[str]) -> int:
    """The exit code."""
    names = [*SEARCHES, "evaluation", "table"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"one of {', '.join(names)}; all if none is given")
    parser.add_argument("--write", action="store_true", help="write what the runs give to frozen.json")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no frozen run is called {unknown[0]!r}; choose from {', '.join(names)}")
    jd.quicken_compilation()
    jd.enable_compilation_cache()
    frozen = json.loads(FILE.read_text()) if FILE.exists() else {"where": {}, "runs": {}}
    found, code = {}, 0
    exact = frozen["where"] == here()
    with tempfile.TemporaryDirectory() as folder:
        for name, run in runs(Path(folder)):
            if options.names and name not in options.names:
                continue
            run(Path(folder) / name)
            found[name] = outcome(Path(folder) / name)
            lines = [] if options.write else list(differences(frozen["runs"].get(name, {}), found[name], exact))
            print(f"{name}: {len(found[name])} numbers, {len(lines)} differ", *lines[:20], sep="\n  ", flush=True)
            code = 1 if lines else code
    if options.write:
        FILE.write_text(json.dumps({"where": here(), "runs": {**frozen["runs"], **found}}, indent=0) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
