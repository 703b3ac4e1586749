"""A search that compiles in seconds and runs in one: for tests that need a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig

SPACE_FILE = """
num_nodes = 1
operations = ["none", "skip_connect", "max_pool_3x3"]
"""


def tiny_config(folder: Path, **changes: object) -> SearchConfig:
    """Two epochs of four steps on 8x8 digits; first order, so that the step compiles quickly."""
    space = folder / "tiny.toml"
    if not space.exists():
        space.write_text(SPACE_FILE)
    values = {
        "space": str(space),
        "dataset": "digits",
        "hypergradient": "first_order",
        "epochs": 2,
        "batch_size": 10,
        "channels": 1,
        "cells": 3,
        "image_size": None,
        "limit": 80,
        "curvature_products": 12,
        "crop_padding": 1,
    }
    return SearchConfig(**SearchConfig.used(values, changes))


LONGER: dict[str, Any] = {"epochs": 6, "checkpoints_to_keep": 1}
# Any eigenvalue above zero is growth enough: darts-es and darts-ada act in epoch 3 and return epoch 0.
EAGER: dict[str, Any] = {**LONGER, "es_threshold": 1e-6, "es_first_epoch": 0}


GENOTYPE_FILE = """
Genotype(normal=[('skip_connect', 0), ('max_pool_3x3', 1)], normal_concat=[2],
         reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])
"""


TINY_TRAINING: dict[str, Any] = {
    "dataset": "digits",
    "epochs": 2,
    "batch_size": 15,
    "channels": 2,
    "cells": 3,
    "image_size": None,
    "limit": 80,
    "valid_portion": 0.25,
    "cutout_length": 2,
    "crop_padding": 1,
}


def tiny_evaluation(folder: Path, **changes: object) -> EvaluateConfig:
    """Two epochs of four steps on 8x8 digits, a quarter of them held out."""
    genotype = folder / "tiny.txt"
    if not genotype.exists():
        genotype.write_text(GENOTYPE_FILE)
    return EvaluateConfig(**EvaluateConfig.used({"genotype": str(genotype), **TINY_TRAINING}, changes))


PAIR_FILE = """
num_nodes = 1
operations = ["skip_connect"]

[normal]
"1->2" = ["skip_connect", "max_pool_3x3"]
"""


def tiny_tabulation(folder: Path, **changes: object) -> TabulateConfig:
    """Two architectures with two seeds each; two epochs of four steps on 8x8 digits, a quarter of them held out."""
    space = folder / "pair.toml"
    if not space.exists():
        space.write_text(PAIR_FILE)
    return TabulateConfig(**TabulateConfig.used({"space": str(space), "seeds": 2, **TINY_TRAINING}, changes))


def tiny_flags(config: SearchConfig | EvaluateConfig | TabulateConfig) -> list[str]:
    """The same as flags of the command."""
    flags: list[str] = []
    for name, value in config.given.items():
        flag = name.replace("_", "-")
        flags.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
    return flags
