"""Which table of NAS-Bench-201 are the cells of a search looked up in?"""

from __future__ import annotations

import os
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.spaces import NASBENCH201, Benchmark, CellSpace

ENVIRONMENT_VARIABLE = "JAXDARTS_NASBENCH201"
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}


def find_benchmark(settings: Any, space: CellSpace) -> Benchmark | None:
    """The table that the settings or the environment names.

    Raises:
      InputError: it cannot be read, or was asked for with a space that it isn't about.
    """
    if getattr(settings, "benchmark", None) is None:
        path = os.environ.get(ENVIRONMENT_VARIABLE)
        return Benchmark.load(path) if path and space == NASBENCH201 else None
    if space != NASBENCH201:
        raise InputError(
            f"benchmark: {settings.benchmark!r} is about the cells of {NASBENCH201.name}; space {space.name!r} has none"
        )
    return Benchmark.load(settings.benchmark)
