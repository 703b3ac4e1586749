"""Which runs does a sweep file ask for?"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import itertools
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.paths import read_text
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig
from jaxdarts.settings import field_types, options

TABLES = ("search", "variants", "grid", "evaluate")
VARIANT = "variant"  # what tells the runs of one variant from those of another, beside the fields of the grid
_RESERVED = ("logs",)  # what the sweep's folder holds beside the runs
# What an evaluation takes from its search unless the file says otherwise.
_FIRST = ("space", "dataset", "data_dir", "download", "preset", "method", "hypergradient")  # in the names of folders
_SHARED = ("dataset", "data_dir", "download", "seed")


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """One run of a sweep."""

    name: str  # of its folder, below the sweep's
    values: Mapping[str, Any]  # of the grid's fields, as in the configuration, and of "variant" if there are any
    search: SearchConfig
    evaluate: EvaluateConfig | None  # its genotype is this run's name; None: not retrained


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Everything that a sweep file asks for."""

    path: Path
    tables: Mapping[str, Any]  # as in the file
    points: tuple[SweepPoint, ...]  # at least one; variants vary fastest, then the last field of the grid

    @property
    def fields(self) -> tuple[str, ...]:
        """What the runs differ in: "variant" if there are any, and the grid's fields in SearchConfig's order."""
        return tuple(_ordered(self.points[0].values))


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file and checks every run that it asks for.

    The file is TOML: `[search]` has fields of SearchConfig with one value, `[grid]` fields with a list of values, all
    combinations of which are run. `[variants.NAME]` is a table of fields whose values replace those of `[search]`; with
    such tables every combination is run once with each of them. `[evaluate]`, which may be empty, has fields of
    EvaluateConfig with which every found genotype is retrained; without that table none is. An evaluation has its
    search's data set and seed unless `[evaluate]` says otherwise. "none" is None where a field allows it.

    Raises:
      InputError: the file cannot be read, a key is unknown or in two tables, a list is empty or holds a value twice,
        or the configuration of a run is not possible; the message names the file, and the run or the key.
    """
    path = Path(path)
    text = read_text(path, "sweep")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"sweep: {str(path)!r} is not TOML: {error}") from error
    try:
        _check_tables(tables)
        points = tuple(_points(tables))
    except InputError as error:
        raise InputError(f"in {path}: {error}") from None
    return Sweep(path, tables, points)


def run_name(values: Mapping[str, Any]) -> str:
    """The folder's name of the run with these values: `s1-darts-es-l2_0.0003-seed_2`.

    Text stands alone, other values behind their field's name; a variant comes first, then fields in SearchConfig's
    order. The name does not depend on the other values of the grid, so that a grid can grow. Where characters had to
    be replaced, six digits of a hash keep names apart.
    """
    return "-".join(_part(name, values[name]) for name in _ordered(values))


def _ordered(values: Mapping[str, Any]) -> list[str]:
    first = [name for name in (VARIANT, *_FIRST) if name in values]
    return first + [name for name in _every_field("search") if name in values and name not in first]


def _part(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return f"{name}_{str(value).lower() if value is None or isinstance(value, bool) else repr(value)}"
    stem = Path(value).stem if "/" in value else value
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).lstrip(".-") or "data"
    return safe if safe == value else f"{safe}_{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def _check_tables(tables: Mapping[str, Any]) -> None:
    for name, table in tables.items():
        if name not in TABLES:
            raise InputError(f"unknown key {name!r}{_hint(name, TABLES)}; choose from {', '.join(sorted(TABLES))}")
        if not isinstance(table, dict):
            raise InputError(f"{name} must be a table of fields; got {table!r}")
    if not tables.get("grid"):
        raise InputError("grid must name at least one field with a list of values, e.g. seed = [0, 1, 2]")
    for name, table in tables.items():
        if name != "variants":
            _check_fields(name, table)
    for key in tables.get("search", {}):
        if key in tables["grid"]:
            raise InputError(f"{key} is in [search] and in [grid]; leave it in one of them")
    for name, variant in tables.get("variants", {}).items():
        _check_variant(name, variant, tables["grid"])
    if "genotype" in tables.get("evaluate", {}):
        raise InputError("genotype in [evaluate] is what each search finds; leave it out")


def _check_fields(name: str, table: Mapping[str, Any]) -> None:
    """Whether a table has known fields only, and the right kind of values."""
    command = "evaluate" if name == "evaluate" else "search"
    fields = list(_every_field(command))
    for key, value in table.items():
        if key not in fields:
            raise InputError(
                f"unknown key {key!r} in [{name}]{_hint(key, fields)}; python -m jaxdarts.{command} --help lists all"
            )
        if name == "grid":
            _check_list(key, value)
        elif isinstance(value, list | dict):
            raise InputError(f"{key} in [{name}] must be one value; lists belong into [grid]; got {value!r}")


def _check_variant(name: str, variant: Any, grid: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"variants: {name!r} names folders, so it must be of letters, digits, '_', '.' and '-', and begin with "
            "none of the last two"
        )
    if not isinstance(variant, dict):
        raise InputError(f"{name} in [variants] must be a table of fields; got {variant!r}")
    _check_fields(f"variants.{name}", variant)
    for key in variant:
        if key in grid:
            raise InputError(f"{key} is in [variants.{name}] and in [grid]; leave it in one of them")


def _check_list(key: str, values: Any) -> None:
    if not isinstance(values, list) or not values:
        raise InputError(f"{key} in [grid] must be a list with at least one value; got {values!r}")
    for value in values:
        if isinstance(value, list | dict):
            raise InputError(f"{key} in [grid] must be a list of single values; got {value!r} in it")


def _points(tables: Mapping[str, Any]) -> typing.Iterator[SweepPoint]:
    fixed, grid = tables.get("search", {}), tables["grid"]
    variants: Mapping[str | None, Mapping[str, Any]] = tables.get("variants") or {None: {}}
    fixed = {name: _typed(_every_field("search")[name], value) for name, value in fixed.items()}
    seen: set[str] = set()
    idle = set(fixed)  # what no run has used yet
    for combination, (variant, changed) in itertools.product(itertools.product(*grid.values()), variants.items()):
        given = dict(zip(grid, combination, strict=True))
        own = {name: _typed(_every_field("search")[name], value) for name, value in {**changed, **given}.items()}
        values = {name: own[name] for name in grid} | ({} if variant is None else {VARIANT: variant})
        name = run_name(values)
        try:
            # Of the fixed ones those that have an effect in this run, since others may be for other runs.
            search = SearchConfig(**SearchConfig.used(fixed, own))
            search.check()
            evaluate = _evaluation(search, name, tables["evaluate"]) if "evaluate" in tables else None
        except InputError as error:
            raise InputError(f"run {name}: {error}") from None
        idle -= set(search.given)
        if name in seen or name in _RESERVED:
            raise InputError(f"grid: run {name} is asked for twice, or its name is taken; check the lists for doubles")
        seen.add(name)
        yield SweepPoint(name, values, search, evaluate)
    if idle:
        raise InputError(f"{sorted(idle)[0]} in [search] has no effect in any run; leave it out")


def _evaluation(search: SearchConfig, name: str, given: Mapping[str, Any]) -> EvaluateConfig:
    shared = {field: getattr(search, field) for field in _SHARED if hasattr(search, field)}
    if not hasattr(search, "cells"):
        shared["space"] = search.space  # before there is a genotype it says whose settings these are
    typed = {field: _typed(_every_field("evaluate")[field], value) for field, value in given.items()}
    from jaxdarts.networks.macro import check_cells
    from jaxdarts.spaces import load_space

    try:
        config = EvaluateConfig(**{**shared, **typed, "genotype": name})
        config.check()
        if hasattr(config, "cells"):
            check_cells(load_space(search.space).macro, config.cells)
    except InputError as error:
        raise InputError(f"in [evaluate]: {error}") from None
    return config


@functools.cache
def _every_field(command: str) -> dict[str, Any]:
    """All settings of a command, whatever the method, with their types."""
    kind = SearchConfig if command == "search" else EvaluateConfig
    every = (group for values in kind.every() for group in kind.group_types(values))
    return {name: t for group in every for name, t in field_types(group).items()}


def _typed(annotation: Any, value: Any) -> Any:
    """A value from a file: `none` is None where that is allowed."""
    if isinstance(value, str) and value.lower() == "none" and type(None) in options(annotation):
        return None
    if type(value) is int and float in options(annotation) and int not in options(annotation):
        return float(value)
    return value


def _hint(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
