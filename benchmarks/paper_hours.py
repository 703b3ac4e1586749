"""How many hours of one GPU does the published grid take?

    python benchmarks/paper_hours.py
    python benchmarks/paper_hours.py --teraflops 20 configs/paper/l2_cifar10.toml

Nothing is measured: floating-point operations are counted from the shapes of the networks, for every run of the sweep
files, and divided by the operations a second that the GPU sustains. These networks are limited by memory traffic, so
without `--teraflops` that rate is the one of the published second-order search in the DARTS space (Liu et al. 2019: one
day on a GTX 1080 Ti, 16 channels) times the ratio of the bandwidths. In a network that memory limits, a value that is
moved serves as many multiply-adds as there are channels, so the rate of an evaluation grows with them.

A gradient counts as three classifications, an exact second-order step as fifteen, a Hessian-vector product as six.
Early stopping is counted as if it never stopped, and DARTS-ADA as if it never went back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import tyro
from _common import command, headline, setting, table, write_json

import jaxdarts as jd
from jaxdarts.errors import InputError
from jaxdarts.networks import network_cost, supernet_cost
from jaxdarts.plans.members import member_settings
from jaxdarts.plans.robust import retrain_settings
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig
from jaxdarts.runs.sweep.file import SweepPoint, read_sweep

PAPER = Path(__file__).parents[1] / "configs" / "paper"
DAY = 24 * 3600
BANDWIDTHS = {"GTX 1080 Ti": 484.0, "H100 SXM": 3350.0}  # GB/s, NVIDIA's data sheets
# Training images, test images and classes.
DATASETS = {"cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100), "svhn_cropped": (73_257, 26_032, 10)}
IMAGE = (32, 32, 3)
# What a typical found cell costs does not depend much on the cell: half its edges are separable convolutions.
TYPICAL = "DARTS_V2"


@dataclass(frozen=True)
class Options:
    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()  # sweep files; all of configs/paper if none
    teraflops: float | None = (
        None  # sustained with 16 channels, 10^12 operations a second; None: the published rate times bandwidths
    )
    quick: bool = False  # the first file only, to see that everything works
    output: Path | None = None  # JSON


@cache
def supernet_multiply_adds(space: str, classes: int, channels: int, cells: int) -> int:
    return supernet_cost(jd.load_space(space), classes, channels, cells, IMAGE).multiply_adds


@cache
def typical_multiply_adds(classes: int, channels: int, cells: int) -> int:
    return network_cost(jd.GENOTYPES[TYPICAL], classes, channels, cells, IMAGE).multiply_adds


def search_operations(config: SearchConfig) -> float:
    """Floating-point operations of all epochs of a search; of a population, of all of its searches and retrainings."""
    members = member_settings(config)
    if len(members) == 1:
        return one_search_operations(config)
    retrained = evaluation_operations(retrain_settings(config, TYPICAL), 0) * config.train_portion
    return sum(map(one_search_operations, members)) + len(members) * retrained


def one_search_operations(config: SearchConfig) -> float:
    images, _, classes = DATASETS[config.dataset]
    classification = 2 * supernet_multiply_adds(config.space, classes, config.channels, config.cells)
    half = images // 2
    if config.method == "random":
        return 0.0
    if config.method == "random-ws":
        step = 3
        selection = config.selection_samples * config.selection_batches * config.batch_size
        extra = selection + config.selection_finalists * half
    else:
        step = 3 + {"first_order": 3}.get(config.hypergradient, 12)
        measurements = config.epochs / config.curvature_every if config.curvature_every else 0
        extra = measurements * config.curvature_products * 6 * config.batch_size
    # Every epoch also classifies the validation half.
    return classification * (config.epochs * half * (step + 1) + extra)


def evaluation_operations(config: EvaluateConfig, tests: int | None = None) -> float:
    """Floating-point operations of training a typical cell on all images and of its tests on `tests` images."""
    images, found, classes = DATASETS[config.dataset]
    tests = found if tests is None else tests
    classification = 2 * typical_multiply_adds(classes, config.channels, config.cells)
    return classification * config.epochs * (3 * images + tests / config.test_every)


def run_hours(point: SweepPoint, rate: float) -> tuple[float, float]:
    """Of a run's searches, and of its evaluation, where 16 channels reach `rate` operations a second."""
    search, config = search_operations(point.search) / rate, point.evaluate
    if config is None:
        return search / 3600, 0.0
    channels = config.channels / SearchConfig(preset="paper").channels
    return search / 3600, evaluation_operations(config) / (channels * rate) / 3600


def published_rate() -> float:
    """Operations a second of the DARTS paper's second-order search."""
    return search_operations(SearchConfig(preset="paper", space="darts", curvature_every=0)) / DAY


def main(options: Options) -> dict[str, Any]:
    if options.teraflops is not None and not options.teraflops > 0:
        raise InputError(f"teraflops must be greater than 0; got {options.teraflops}")
    files = options.files or tuple(sorted(PAPER.glob("*.toml")))[: 1 if options.quick else None]
    sweeps = {file: read_sweep(file) for file in files}
    for file, sweep in sweeps.items():
        for point in sweep.points:
            if point.search.dataset not in DATASETS:
                raise InputError(f"in {file}: dataset must be one of {', '.join(DATASETS)}; got {point.search.dataset}")
    ratio = BANDWIDTHS["H100 SXM"] / BANDWIDTHS["GTX 1080 Ti"]
    rate = published_rate() * ratio if options.teraflops is None else 1e12 * options.teraflops
    content = setting(options) | {"published_rate": published_rate(), "rate": rate, "rows": []}
    print(headline(content))
    print(f"sustained {rate / 1e12:.2f} TFLOP/s; the published search {published_rate() / 1e12:.2f}\n")
    lines = []
    for file, sweep in sweeps.items():
        hours = [run_hours(point, rate) for point in sweep.points]
        search, evaluation = (sum(kind) for kind in zip(*hours, strict=True))
        row = {"file": file.name, "runs": len(hours), "search_hours": search, "evaluation_hours": evaluation}
        content["rows"].append(row)
        lines.append([file.name, str(len(hours)), f"{search:.0f}", f"{evaluation:.0f}", f"{search + evaluation:.0f}"])
    totals = [sum(row[key] for row in content["rows"]) for key in ("runs", "search_hours", "evaluation_hours")]
    lines.append(["all", *(f"{total:.0f}" for total in totals), f"{totals[1] + totals[2]:.0f}"])
    print(table(["sweep", "runs", "search, h", "evaluation, h", "together, h"], lines))
    if options.output is not None:
        write_json(options.output, content)
    return content


if __name__ == "__main__":
    command(main, Options, __doc__)
