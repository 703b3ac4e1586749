"""A search and a training on text that compile in seconds: for tests that need a whole run."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig

SPACE_FILE = """
task = "language"
num_nodes = 2
operations = ["none", "tanh", "relu", "identity"]
"""
SIZES = {"train": 360, "valid": 130, "test": 40}  # words without the ends of lines
WORDS = tuple("".join(letters) for letters in itertools.product("abc", "de"))


def write_text(folder: Path) -> Path:
    """A folder with the three parts of a text, drawn from six words."""
    drawn = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, size in SIZES.items():
        words = [*WORDS, *drawn.choices(WORDS, k=size)]
        lines = [" ".join(words[start : start + 7]) for start in range(0, len(words), 7)]
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def tiny_text_search(folder: Path, **changes: Any) -> SearchConfig:
    """Two epochs of about eight steps; first order."""
    space = folder / "tiny_rnn.toml"
    if not space.exists():
        folder.mkdir(parents=True, exist_ok=True)
        space.write_text(SPACE_FILE)
        write_text(folder / "text")
    values = {
        "space": str(space),
        "data_dir": str(folder / "text"),
        "hypergradient": "first_order",
        "epochs": 2,
        "batch_size": 10,
        "hidden": 4,
        "sequence_length": 5,
        "curvature_products": 4,
        "spectrum_size": 4,
    }
    return SearchConfig(**SearchConfig.used(values, changes))


def tiny_text_evaluation(folder: Path, **changes: Any) -> EvaluateConfig:
    """Three epochs of a few steps."""
    if not (folder / "text").exists():
        write_text(folder / "text")
    values = {
        "genotype": "Genotype(recurrent=[('tanh', 0), ('relu', 1)], concat=[1, 2])",
        "data_dir": str(folder / "text"),
        "epochs": 3,
        "batch_size": 10,
        "hidden": 4,
        "sequence_length": 5,
    }
    return EvaluateConfig(**EvaluateConfig.used(values, changes))
