"""Which files does a search write when it ends, and which does it take back when it goes back?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdarts.methods import SearchState
from jaxdarts.networks.macro import cells_text
from jaxdarts.runs import reporting
from jaxdarts.runs.folder import RunFolder
from jaxdarts.runs.metrics import as_json, truncate_metrics
from jaxdarts.runs.record import DIAGNOSTICS_FILE, METRICS_FILE
from jaxdarts.runs.search.assemble import Search
from jaxdarts.runs.search.diagnostics import diagnose
from jaxdarts.runs.search.events import EVENTS_FILE, Event
from jaxdarts.runs.search.measure import select
from jaxdarts.runs.search.regularisers import describe_regularisers
from jaxdarts.runs.search.unused import unused_settings
from jaxdarts.spaces import Architecture, genotype_from_json
from jaxdarts.spaces.files import GENOTYPE_FILE


class SearchResult(NamedTuple):
    """What a finished search found, and where its files are."""

    genotype: Architecture
    run_dir: Path
    metrics: list[dict[str, Any]]  # one record an epoch, as in metrics.jsonl
    state: SearchState  # at the end of the epoch that is returned: the last one, or the one a verdict names


def search_facts(search: Search, num_weights: int) -> dict[str, str]:
    """What is searched, and with what network, for a banner."""
    config, data = search.config, search.dataset
    height, width, channels = data.image_shape
    train, valid = (len(part.labels) for part in search.data)
    rematerialised = search.problem.supernet.remat
    unused = [f"{name} (only {by})" for name, by in unused_settings(config).items()]
    return {
        "space": f"{search.space.name}: {len(search.space.operation_names)} operations, "
        f"{search.space.num_edges} edges a cell",
        "data": f"{data.name}: {train} images train w, {valid} train alpha; "
        f"{height}x{width}x{channels}, {data.num_classes} classes",
        "network": f"{cells_text(search.space.macro, config.cells)}, {config.channels} channels, "
        f"{num_weights:,} weights" + (f", {rematerialised} cells rematerialised" if rematerialised else ""),
        "method": config.method
        + (f", hypergradient {config.hypergradient}" if "alpha" in search.method.learns else ""),
        **{name.lower(): text for name, text in describe_regularisers(config).items()},
        "run": f"{config.epochs} epochs of {search.steps_per_epoch} steps, batch {config.batch_size}, "
        f"seed {config.seed}",
        **({"no effect": ", ".join(unused)} if unused else {}),
    }


def forget_epochs(folder: RunFolder, epoch: int, events: Sequence[Event]) -> None:
    """Brings a search's files to what a checkpoint knows: nothing of this epoch and later ones, and these events."""
    truncate_metrics(folder.path / METRICS_FILE, epoch)
    for path in (folder.path / "genotypes").glob("epoch_*.json"):
        if int(path.stem.removeprefix("epoch_")) >= epoch:
            path.unlink()
    if events:
        folder.write_json(EVENTS_FILE, events)
    else:
        (folder.path / EVENTS_FILE).unlink(missing_ok=True)


def write_result(
    search: Search,
    folder: RunFolder,
    state: SearchState,
    returned: Mapping[str, Any],
    step: int,
    say: Callable[[str], None],
) -> Architecture:
    """Chooses the genotype of an ended search, and writes it, what is known about it, and the report.

    Args:
      search: the run's functions.
      folder: where its files go.
      state: at the end of the epoch that is returned.
      returned: that epoch's line of metrics.jsonl.
      step: the steps done.
      say: tells the user what takes long.
    """
    genotype = genotype_from_json(returned["genotype"])
    candidates = None
    if search.method.select is not None:
        say("selecting among random architectures")
        candidates = select(search, state, step)
        genotype = candidates[0].genotype
    found = diagnose(search, state, genotype, returned["epoch"])
    if candidates is not None:
        found["candidates"] = [{"genotype": c.genotype.to_json(), "accuracy": c.accuracy} for c in candidates]
    write_genotype(folder, genotype, found)
    return genotype


def write_genotype(folder: RunFolder, genotype: Architecture, diagnostics: Mapping[str, Any]) -> None:
    """The files of an ended run: diagnostics.json, genotype.json, which says that it has ended, drawn cells, report."""
    folder.write_json(DIAGNOSTICS_FILE, as_json(diagnostics))  # a diverged search has NaN
    folder.write_json(GENOTYPE_FILE, genotype.to_json())
    reporting.write_report(folder.path)
