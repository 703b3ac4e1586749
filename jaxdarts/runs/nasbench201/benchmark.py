"""What does a table of NAS-Bench-201 say about the cells of a search?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaxdarts.errors import InputError
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.spaces import NASBENCH201, Benchmark, CellSpace

if TYPE_CHECKING:
    from jaxdarts.runs.record import RunRecord

ENVIRONMENT_VARIABLE = "JAXDARTS_NASBENCH201"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}


def find_benchmark(config: SearchConfig, space: CellSpace) -> Benchmark | None:
    """The table that a configuration or the environment names.

    Raises:
      InputError: it cannot be read, or was asked for with a space that it isn't about.
    """
    if config.benchmark is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE)
        return Benchmark.load(path) if path and space == NASBENCH201 else None
    if space != NASBENCH201:
        raise InputError(
            f"benchmark: {config.benchmark!r} is about the cells of {NASBENCH201.name}; space {space.name!r} has none"
        )
    return Benchmark.load(config.benchmark)


def returned_value(run: RunRecord, key: str) -> float | None:
    """What the table says about the genotype returned; `key` is `benchmark/DATASET/QUANTITY`."""
    at = run.genotype_epochs()
    return run.values(key)[run.epochs.index(at[-1])] if at else None
