"""What do searches in several stages have in common: their folders, and what is read of those that have ended?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdarts.json_files import read_json, read_lines
from jaxdarts.methods.base import MethodEntry
from jaxdarts.plans.base import Built, Stage
from jaxdarts.plans.search import DIAGNOSTICS_FILE, build_search
from jaxdarts.spaces import CellSpace, space_from_json, space_to_json
from jaxdarts.spaces.files import GENOTYPE_FILE


class StageEnd(NamedTuple):
    """What a stage that has ended left in its folder."""

    record: Mapping[str, Any]  # of the epoch that is returned, as in metrics.jsonl
    space: CellSpace  # that was searched


class Shared:
    """What the stages of one run have together; the data are read once."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.data = tuple(names), None


def search_stage(
    shared: Shared,
    name: str,
    settings: Any,
    space: CellSpace,
    *,
    entry: MethodEntry,
    build: Callable[..., Built] = build_search,
    epochs: int | None = None,
) -> Stage:
    """One of a run's stages: a search like any other, in a folder of its own. What has ended is not run again.

    Args:
      shared: of the stages, with their names.
      name: of this one.
      settings: its own.
      space: that it searches.
      entry: how it does.
      build: of the stage, with the arguments of `build_search`.
      epochs: in the place of those that the settings say.
    """
    number = shared.names.index(name) + 1

    def built() -> Built:
        found = build([settings], settings, space, entry=entry, data=shared.data)
        shared.data = found.data
        facts = {**found.facts, "stages": list(shared.names)}
        return found._replace(banner=lambda state: _banner(found, number, len(shared.names), name, state), facts=facts)

    # The last stage is taken up at its end, as a search is, for what it hands over: its state.
    is_last = number == len(shared.names)
    recorded = {"command": settings.command, **settings.flat(), "search_space": space_to_json(space), "stage": name}
    return Stage(
        build=built,
        epochs=settings.epochs if epochs is None else epochs,
        name=name,
        settings=recorded,
        recall=lambda path: [None] if not is_last and (path / GENOTYPE_FILE).is_file() else None,
    )


def read_end(path: Path) -> StageEnd:
    """What an ended search left in its folder.

    Raises:
      InputError: a file is missing or cannot be read.
    """
    epoch = read_json(path / DIAGNOSTICS_FILE, "run_dir")["epoch"]
    record = next(one for one in read_lines(path / "metrics.jsonl", "metrics") if one["epoch"] == epoch)
    space = space_from_json(read_json(path / "config.json", "run_dir")["search_space"])
    return StageEnd(record, space)


def _banner(built: Built, number: int, count: int, name: str, state: Any) -> tuple[str, dict[str, str]]:
    assert built.banner is not None
    title, facts = built.banner(state)
    return f"stage {number} of {count}, {name}: {title}", facts
