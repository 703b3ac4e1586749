"""What keeps DARTS from ending in skip connections? Hypergradients, Beta-Decay, temperature, L2, in NAS-Bench-201.

    python benchmarks/nasbench201.py --table nasbench201.npz --data-dir DIR --jobs 2
    python benchmarks/nasbench201.py --table nasbench201.npz --data-dir DIR --variants darts beta-0-50
    python benchmarks/nasbench201.py --table nasbench201.npz --file configs/sweeps/nasbench201_methods.toml
    python benchmarks/nasbench201.py --quick

Runs the sweep `configs/sweeps/nasbench201_ablation.toml`, or another such as that of the relatives of DARTS, or goes on
with it, and sets the test accuracies of the returned cells, which a table of the benchmark gives, beside those of Ye et
al. 2022 (tables 1, 3 and 4). The searches see CIFAR-10 only, so that the other two columns say what a cell found there
is worth elsewhere. Needs such a table (`python -m jaxdarts.benchmark convert` makes one), and CIFAR-10 as
tensorflow-datasets keeps it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import command, headline, setting, table, write_json

from jaxdarts.errors import InputError
from jaxdarts.nasbench201.benchmark import ENVIRONMENT_VARIABLE, TITLES
from jaxdarts.reports.statistics import estimate
from jaxdarts.reports.sweep_charts import sweep_figures
from jaxdarts.reports.sweep_record import SweepRun, read_sweep_record
from jaxdarts.runs.sweep.loop import raise_for_failures
from jaxdarts.runs.sweep.states import read_states
from jaxdarts.spaces import Benchmark
from jaxdarts.spaces.benchmark import DATA_SETS
from jaxdarts.spaces.nasbench201 import NUM_CELLS
from jaxdarts.sweep import run_sweep

SWEEP = Path(__file__).parents[1] / "configs" / "sweeps" / "nasbench201_ablation.toml"
COLLAPSED, BEST = (54.30, 15.61, 16.32), (94.36, 73.51, 46.34)
# Percent on CIFAR-10, CIFAR-100 and ImageNet16-120; variants that are missing are not in the paper.
PAPER: Mapping[str, tuple[float, float, float]] = {
    "darts": COLLAPSED,
    "darts-second-order": COLLAPSED,
    "beta-0-25": BEST,
    "beta-0-50": BEST,
    "beta-0-100": BEST,
    "beta-constant-15": BEST,
    "beta-50-0": COLLAPSED,
    "gdas": (93.61, 70.70, 41.71),
    "snas": (92.77, 69.34, 43.16),
    "dsnas": (93.08, 31.01, 41.07),
    "pc-darts": (93.41, 67.48, 41.31),
    "idarts": (93.58, 70.83, 40.89),
    "darts-minus": (93.80, 71.53, 45.12),
}
# One search of a few steps and one look at a table of random accuracies.
QUICK = """
[search]
space = "nasbench201"
dataset = "digits"
image_size = 8
limit = 40
batch_size = 10
channels = 1
cells = 1
epochs = 2
hypergradient = "first_order"
curvature_every = 0
spectrum_size = 0
[grid]
seed = [0]
[variants.darts]
"""


@dataclass(frozen=True)
class Options:
    file: Path = SWEEP  # sweep file with variants
    table: Path | None = None  # of NAS-Bench-201; None: the one that JAXDARTS_NASBENCH201 names
    data_dir: Path | None = None  # where tensorflow-datasets has CIFAR-10; None: where it usually is
    sweep_dir: Path | None = None  # the runs; what has finished there is not repeated. None: runs/ and the file's name
    jobs: int = 1  # searches at a time
    variants: tuple[str, ...] = ()  # which of the file's; all if none
    quick: bool = False  # two epochs of one search, to see that everything works
    output: Path | None = None  # JSON
    figure: Path | None = None  # SVG or PNG: the accuracy of every epoch's cell


@contextmanager
def environment(**paths: Path | None) -> Iterator[None]:
    """Variables of the environment, which the searches inherit; those that are None stay as they are."""
    before = dict(os.environ)
    os.environ.update({name: str(path.resolve()) for name, path in paths.items() if path is not None})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def rows_of(runs: Sequence[SweepRun], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row a variant: [mean, sample standard deviation or None] over seeds, accuracies in percent."""
    rows = []
    for variant in dict.fromkeys(run.values["variant"] for run in runs):
        members = [run for run in runs if run.values["variant"] == variant and run.result is not None]
        if not members:
            continue

        def spread(values: Sequence[float | None], scale: float = 1.0) -> list[float | None] | None:
            found = estimate([None if value is None else scale * value for value in values])
            return None if found is None else [found.mean, found.std]

        accuracies = {
            name: spread([run.value(f"benchmark/{name}/accuracy") for run in members], 100) for name in DATA_SETS
        }
        rows.append(
            {
                "variant": variant,
                "runs": len(members),
                "skips": spread([run.value("skip_cell") for run in members]),
                **accuracies,
                "paper": PAPER.get(variant),
                "seconds": float(np.median([seconds[run.name] for run in members])),
            }
        )
    return rows


def _text(spread: Sequence[float | None] | None, digits: int) -> str:
    if spread is None or spread[0] is None:
        return ""
    return f"{spread[0]:.{digits}f}" + ("" if spread[1] is None else f" ± {spread[1]:.{digits}f}")


def main(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        file, path = options.file, options.table
        sweep_dir = options.sweep_dir or Path("runs") / file.stem
        if options.quick:
            file, sweep_dir, path = Path(scratch) / "quick.toml", Path(scratch) / "runs", Path(scratch) / "table.npz"
            file.write_text(QUICK)
            random = np.random.default_rng(0)
            Benchmark({f"{name}_test_200": random.uniform(10, 95, NUM_CELLS) for name in DATA_SETS}).save(path)
        if path is None and not os.environ.get(ENVIRONMENT_VARIABLE):
            raise InputError(f"table: none is given, and {ENVIRONMENT_VARIABLE} names none")
        path = Path(os.environ[ENVIRONMENT_VARIABLE]) if path is None else path
        if Benchmark.load(path).accuracies("cifar10") is None and options.figure is not None:
            raise InputError(f"figure: it shows test accuracies on CIFAR-10, which {str(path)!r} does not have")
        with environment(**{ENVIRONMENT_VARIABLE: path, "TFDS_DATA_DIR": options.data_dir}):
            raise_for_failures(run_sweep(file, sweep_dir, jobs=options.jobs, variants=options.variants or None))
        record = read_sweep_record(sweep_dir)
        runs = record.runs
        seconds = {name: state["seconds"] for name, state in read_states(sweep_dir).items()}
        content = setting(options) | {"rows": rows_of(runs, seconds)}
    print(headline(content))
    lines = [
        [row["variant"], str(row["runs"]), _text(row["skips"], 1), *(_text(row[name], 2) for name in DATA_SETS),
         "" if row["paper"] is None else ", ".join(f"{value:.2f}" for value in row["paper"]), f"{row['seconds']:.0f}"]
        for row in content["rows"]
    ]  # fmt: skip
    print(table(["", "runs", "skips of 6", *(f"{TITLES[name]}, %" for name in DATA_SETS), "paper", "s a run"], lines))
    if options.figure is not None:
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        sweep_figures(record)["benchmark_accuracies"].savefig(options.figure, dpi=110)
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
