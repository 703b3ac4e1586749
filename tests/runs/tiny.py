"""A search that compiles in seconds and runs in one: for tests that need a whole run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxdarts.runs.config import SearchConfig

SPACE_FILE = """
num_nodes = 1
operations = ["none", "skip_connect", "max_pool_3x3"]
"""


def tiny_config(folder: Path, **changes: object) -> SearchConfig:
    """Two epochs of four steps on 8x8 digits; first order, so that the step compiles quickly."""
    space = folder / "tiny.toml"
    if not space.exists():
        space.write_text(SPACE_FILE)
    config = SearchConfig(
        space=str(space),
        dataset="digits",
        hypergradient="first_order",
        epochs=2,
        batch_size=10,
        channels=1,
        cells=3,
        image_size=None,
        limit=80,
        curvature_products=12,
        crop_padding=1,
    )
    return dataclasses.replace(config, **changes)


def tiny_flags(config: SearchConfig) -> list[str]:
    """The same as flags of the command, every field given."""
    flags: list[str] = []
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(SearchConfig(), field.name)
        if value != default:
            flags += ["--set", f"{field.name}={'none' if value is None else value}"]
    return flags
