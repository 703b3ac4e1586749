"""How far from the best of its space is the genotype that a search would return after each epoch?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.paths import is_file
from jaxdarts.reports.layouts import CONFIGS
from jaxdarts.reports.run_record import METRICS_FILE, RunRecord, Values, read_config, read_run
from jaxdarts.reports.table_record import Table
from jaxdarts.runs.config_json import CHANGEABLE, run_command
from jaxdarts.runs.sweep.states import SWEEP_FILE, read_states
from jaxdarts.spaces import Architecture, CellSpace, genotype_from_json

# Settings in which the runs of one curve may differ.
_APART = ("seed", "method", "select_every", "spectrum_size", *CHANGEABLE)


@dataclass(frozen=True)
class RunRegret:
    """A search beside a table: what its current genotype lacks to the best one (Zela et al. 2020, figure 2)."""

    folder: Path
    config: Mapping[str, Any]
    genotypes: tuple[Architecture | None, ...]  # after each epoch, canonical; None where random search did not select
    regrets: Values  # of them: test error, or another task's result, minus the table's least
    returned: float | None  # of the genotype that the search returned; None if it has not finished


@dataclass(frozen=True)
class Curve:
    """Runs that differ in the seed only; `mean`, `least` and `greatest` have an entry an epoch."""

    label: str
    runs: tuple[RunRegret, ...]
    mean: Values
    least: Values
    greatest: Values


def search_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of searches among the paths, where a sweep's folder stands for its runs that have finished.

    Raises:
      InputError: no run of a sweep has finished, a folder is no search's, or one is there twice.
    """
    folders: list[Path] = []
    for path in paths:
        if is_file(path / SWEEP_FILE):
            done = [path / name for name, run in read_states(path).items() if run.get("state") == "done"]
            if not done:
                raise InputError(f"run_dir: no run of the sweep in {str(path)!r} has finished yet")
            folders += done
        else:
            folders.append(path)
    for folder in folders:
        command = run_command(read_config(folder))
        if command != "search":
            raise InputError(
                f"run_dir: {str(folder)!r} was written by python -m jaxdarts.{command}; regret needs folders of "
                "searches, or of sweeps"
            )
    resolved = [folder.resolve() for folder in folders]
    for number, folder in enumerate(resolved):
        if folder in resolved[:number]:
            raise InputError(f"run_dir: {str(folders[number])!r} is given twice")
    return folders


def check_finished(table: Table) -> None:
    """Raises InputError if the best architecture of the space is not known yet."""
    if not table.is_finished:
        raise InputError(
            f"table: {table.name!r} has {len(table.entries)} of {table.planned} trainings, so the best is not known; "
            "continue it with python -m jaxdarts.tabulate --resume"
        )


def run_regret(table: Table, folder: Path) -> RunRegret:
    """The regret of a search after each of its epochs.

    Raises:
      InputError: the run is of another space or data set than the table, it has no finished epoch, or its method
        selects at the end and was not asked to do so at every epoch.
    """
    run = read_run(folder)
    if not _same_architectures(run.space, table.space):
        raise InputError(
            f"run_dir: {str(folder)!r} searched space {run.config.get('space', run.space.name)!r}, the table is of "
            f"{table.config.get('space', table.space.name)!r}, which has other architectures"
        )
    if run.config.get("dataset") != table.config.get("dataset"):
        raise InputError(
            f"run_dir: {str(folder)!r} searched on data set {run.config.get('dataset')!r}, the table is of "
            f"{table.config.get('dataset')!r}"
        )
    least = min(table.errors.values())
    genotypes = _current(run, folder)
    returned = run.genotype.canonical() if run.finished else None
    for genotype in (*genotypes, returned):
        if genotype is not None and genotype not in table.errors:
            raise InputError(f"run_dir: {str(folder)!r} names {genotype.to_text()}, which the table lacks")
    regrets = [None if genotype is None else table.errors[genotype] - least for genotype in genotypes]
    if all(regret is None for regret in regrets):
        raise InputError(f"run_dir: no line of {METRICS_FILE} in {str(folder)!r} names a genotype")
    return RunRegret(
        folder, run.config, tuple(genotypes), regrets, None if returned is None else table.errors[returned] - least
    )


def _current(run: RunRecord, folder: Path) -> list[Architecture | None]:
    """The genotype that the search would have returned after each epoch."""
    selects = any("selected" in entry for entry in run.metrics)
    if not selects and not run.learns_alpha and run.metrics[-1].get(f"valid_{run.measure.objective}") is not None:
        raise InputError(
            f"run_dir: {str(folder)!r} selected ({run.config.get('method')}) only at its end, so its genotype after "
            "earlier epochs is not known; search with --select-every 1"
        )
    found = [entry.get("selected" if selects else "genotype") for entry in run.metrics]
    return [None if value is None else genotype_from_json(value).canonical() for value in found]


def _same_architectures(a: CellSpace, b: CellSpace) -> bool:
    """Whether two spaces have the same genotypes, whatever their names and the order of candidates."""

    def chosen(space: CellSpace) -> list[frozenset[str]]:
        never = frozenset() if space.chooses_none else frozenset({"none"})
        return [frozenset(edge) - never for cell in space.cell_types for edge in space.operations(cell)]

    return (a.cell_types, a.num_nodes, a.concat, chosen(a)) == (b.cell_types, b.num_nodes, b.concat, chosen(b))


def group_curves(runs: Sequence[RunRegret]) -> list[Curve]:
    """A curve for each method, and within a method for each combination of settings that differ beside the seed.

    A search that its method ended early keeps the regret of what it returned. Where a run has no value the others'
    mean is taken.
    """
    length = max(len(run.regrets) for run in runs)
    groups: dict[str, list[RunRegret]] = {}
    for run in runs:
        groups.setdefault(_label(run, runs), []).append(run)
    curves = []
    for label, members in groups.items():
        values = [
            [*run.regrets, *[run.returned] * (length - len(run.regrets))]  # None: it has not finished
            for run in members
        ]
        columns = [[value for value in column if value is not None] for column in zip(*values, strict=True)]
        curves.append(
            Curve(
                label,
                tuple(members),
                mean=[sum(column) / len(column) if column else None for column in columns],
                least=[min(column, default=None) for column in columns],
                greatest=[max(column, default=None) for column in columns],
            )
        )
    return curves


def _label(run: RunRegret, runs: Sequence[RunRegret]) -> str:
    method = run.config.get("method")
    beside = [other.config for other in runs if other.config.get("method") == method]
    fields = [name for name in run.config if f"{name}?" in CONFIGS["search"] and name not in _APART]
    differing = [name for name in fields if len({repr(config.get(name)) for config in beside}) > 1]
    return ", ".join([str(method), *(f"{name} {_text(run.config.get(name))}" for name in differing)])


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
