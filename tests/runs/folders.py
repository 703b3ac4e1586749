"""A run's folder without the run, for tests of what lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdarts.runs.config_json import check_same_settings
from jaxdarts.runs.folder import check_resumable, create, reopen
from jaxdarts.runs.store import Store

CONFIG = {"space": "s1", "epochs": 3, "l2": 3e-4, "seed": 3}


def new(path: Path | None, config: dict[str, Any] = CONFIG, command: str = "search", **facts: Any) -> Store:
    settings = {"command": command, "dataset": "digits", **config}
    return create(path, "s1", settings, facts, device="2 cores", keep=3)


def again(path: Path, config: dict[str, Any] = CONFIG, command: str = "search") -> Store:
    check_same_settings(config, check_resumable(path, command), path, ("seed",))
    return reopen(path, 3)


def state(step: int) -> dict[str, Any]:
    return {"w": jnp.full(3, step, jnp.float32)}


def half_way(path: Path, epochs: int = 3) -> Path:
    """A run of so many epochs of 10 steps, left."""
    with new(path) as store:
        for epoch in range(epochs):
            store.append({"epoch": epoch, "loss": 0.5})
            store.write_json(f"genotypes/epoch_{epoch:04d}.json", {"epoch": epoch})
            store.save(10 * (epoch + 1), state(epoch), {"events": []})
    return path
