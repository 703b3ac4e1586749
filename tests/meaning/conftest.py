"""Runs whose networks and methods tell what they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.meaning import spying
from tests.meaning.by_hand import write_data
from tests.meaning.spying import Spied

Run = Callable[..., Spied]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`run("search" | "evaluate" | "tabulate", **changes of the configuration)`; the same is run once a module."""
    folder = tmp_path_factory.mktemp("meaning")
    numbered = write_data(folder / "numbered.npz")
    done: dict[str, Spied] = {}

    def one(command: str, *, dataset: Path = numbered, **changes: Any) -> Spied:
        name = f"{command} {dataset} {sorted(changes.items())}"
        if name not in done:
            done[name] = getattr(spying, command)(folder, folder / f"run_{len(done)}", dataset, **changes)
        return done[name]

    with spying.patched():
        yield one
