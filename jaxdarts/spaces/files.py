"""How is a search space or a genotype read from its name or from a file?"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, shorten, unknown_choice
from jaxdarts.paths import exists, is_file, is_folder, read_text
from jaxdarts.spaces.architecture import Architecture
from jaxdarts.spaces.base import CellSpace, check_nodes, count_edges
from jaxdarts.spaces.cell import SPACES
from jaxdarts.spaces.dense import DenseGenotype, DenseSpace
from jaxdarts.spaces.genotype import FIELDS as CELL_PAIR_FIELDS
from jaxdarts.spaces.genotype import Genotype
from jaxdarts.spaces.notation import read_fields
from jaxdarts.spaces.published import GENOTYPES, OF_RECURRENT_SPACES
from jaxdarts.spaces.recurrent import FIELDS as RECURRENT_FIELDS
from jaxdarts.spaces.recurrent import RecurrentGenotype, RecurrentSpace
from jaxdarts.spaces.space import CELL_TYPES, SearchSpace
from jaxdarts.values import whole

_TEXT = re.compile(r"\s*\ufeff?\s*(\{|\||.*\bGenotype\s*\()", re.DOTALL)  # what begins as a genotype, not as a name
_EDGE = re.compile(r"\s*(\d+)\s*->\s*(\d+)\s*")
GENOTYPE_FILE = "genotype.json"
_KEYS = {  # of a space's file, by its task
    "classification": ("task", "name", "num_nodes", "concat", "operations", *CELL_TYPES),
    "language": ("task", "name", "num_nodes", "operations", *RecurrentSpace.cell_types),
}


def load_space(name_or_path: str, operations: Collection[str] | None = None) -> CellSpace:
    """A registered space by its name, or one from a TOML file (any value that ends in `.toml`).

    The file gives `num_nodes`, the candidate `operations` of every edge, and optionally `name`, `concat` and tables
    `[normal]` and `[reduce]` with their own `operations` and single edges such as `"0->3" = ["skip_connect"]`, where
    states 0 and 1 are the cell's inputs and node i is state i + 2. A space of recurrent cells has `task = "language"`
    and a table `[recurrent]` in the place of these two, and no `concat`; state 0 is its input and node i state i + 1.

    Args:
      name_or_path: a name in SPACES or a path.
      operations: the names of the operations on images that exist; None leaves them unchecked. A recurrent space has
        none of them: its activations are always checked.

    Raises:
      InputError: naming the file, the key, the value and the choices.
    """
    if not name_or_path.endswith(".toml"):
        if name_or_path not in SPACES:
            raise unknown_choice("space", name_or_path, [*SPACES, "path/to/space.toml"])
        space: CellSpace = SPACES[name_or_path]
    else:
        space = _read_space(Path(name_or_path))
    if operations is not None and not isinstance(space, RecurrentSpace):
        for name in space.operation_names:
            if name not in operations:
                raise unknown_choice(f"operation in space {name_or_path!r}:", name, operations)
    return space


def load_genotype(path: str | Path) -> Architecture:
    """A genotype from a file: JSON as a run writes it, or the PyTorch codes' text, `Genotype(...)` or `|op~0|+...`."""
    text = read_text(path, "genotype")
    try:
        return genotype_from_text(text)
    except json.JSONDecodeError as error:
        raise InputError(f"genotype: {str(path)!r} is not JSON: {error}") from error
    except InputError as error:
        raise InputError(f"{error} (in {str(path)!r})") from error


def genotype_from_text(text: str) -> Architecture:
    """Reads a genotype as JSON or in the PyTorch codes' notation. Raises InputError, or JSONDecodeError."""
    text = text.strip().removeprefix("\ufeff")
    if text.startswith("{"):
        return genotype_from_json(json.loads(text))
    if text.startswith("|"):
        return DenseGenotype.from_text(text)
    return genotype_from_json(read_fields(text, CELL_PAIR_FIELDS, RECURRENT_FIELDS))


def genotype_from_json(value: Any) -> Architecture:
    """Reads what `to_json` of any kind of genotype wrote. Raises InputError that names the field."""
    if isinstance(value, Mapping) and "architecture" in value:
        return DenseGenotype.from_json(value)
    if isinstance(value, Mapping) and not value.keys().isdisjoint(RECURRENT_FIELDS):
        return RecurrentGenotype.from_json(value)
    return Genotype.from_json(value)


def find_genotype(
    source: str, operations: Collection[str] | None = None, space: CellSpace | None = None
) -> Architecture:
    """A published genotype by its name, one from a file, or the one that a finished run left in its folder.

    Args:
      source: a name in GENOTYPES, a path, or the genotype itself as a file of one has it: `Genotype(normal=[...], ...)`
        as the PyTorch codes print it, `|op~0|+...`, or JSON.
      operations: the names of the operations on images that exist; None leaves unchecked whether the network of a cell
        of them can be built.
      space: where it is meant to belong, which isn't checked: DARTS_V1 and DARTS_V2 name the recurrent cells of the
        paper with a recurrent space, else those of images.

    Raises:
      InputError: there is no such genotype, it cannot be read, or its network cannot be built.
    """
    path = Path(source)
    if isinstance(space, RecurrentSpace) and source in OF_RECURRENT_SPACES:
        source = OF_RECURRENT_SPACES[source]
    if source in GENOTYPES:
        genotype: Architecture = GENOTYPES[source]
    elif is_folder(path):
        if not is_file(path / GENOTYPE_FILE):
            raise InputError(
                f"genotype: the folder {source!r} holds no {GENOTYPE_FILE}, which a search writes at its end; "
                "the genotype after each epoch is in genotypes/ of a search's folder"
            )
        genotype = load_genotype(path / GENOTYPE_FILE)
    elif exists(path):
        genotype = load_genotype(path)
    elif _TEXT.match(source):
        try:
            genotype = genotype_from_text(source)
        except json.JSONDecodeError as error:
            raise InputError(f"genotype: {shorten(source)!r} is not JSON: {error}") from error
    elif path.suffix or len(path.parts) > 1:
        genotype = load_genotype(path)
    else:
        raise unknown_choice("genotype", source, [*GENOTYPES, "path/to/genotype.json", "path/to/run"])
    if operations is not None and not isinstance(genotype, RecurrentGenotype):
        _check_buildable(source, genotype, operations)
    return genotype


def _check_buildable(source: str, genotype: Architecture, operations: Collection[str]) -> None:
    for name in genotype.operations:
        if name not in operations:
            raise unknown_choice(f"operation in genotype {source!r}:", name, operations)
    inputs = [state for state in genotype.reduce_concat if state < 2] if isinstance(genotype, Genotype) else []
    if inputs:
        raise InputError(
            f"genotype {source!r}: reduce_concat holds the cell's input {inputs[0]}, which is larger than the cell's "
            f"nodes; choose states from 2 to {genotype.num_nodes + 1}"
        )


def space_to_json(space: CellSpace) -> dict[str, Any]:
    """The whole space as a JSON object, for a run's records."""
    return space.to_json()


def space_from_json(value: Mapping[str, Any]) -> CellSpace:
    """Reads what a space's `to_json` wrote. Raises InputError."""
    try:
        kind = DenseSpace if "cell" in value else RecurrentSpace if "recurrent" in value else SearchSpace
        return kind(**value)
    except TypeError as error:
        raise InputError(f"space: {dict(value)!r} is not a search space: {error}") from error


def _read_space(path: Path) -> CellSpace:
    try:
        table = tomllib.loads(read_text(path, "space"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"space: {str(path)!r} is not TOML: {error}") from error
    where = f"space {str(path)!r}"
    task = table.get("task", "classification")
    if not isinstance(task, str) or task not in _KEYS:
        raise unknown_choice(f"task of {where}:", task, _KEYS)
    for key in table:
        if key not in _KEYS[task]:
            raise unknown_choice(f"key in {where} (task {task!r}):", key, _KEYS[task])
    num_nodes, name = check_nodes(where, table.get("num_nodes")), str(table.get("name", path.stem))
    if task == "language":
        return RecurrentSpace(name, num_nodes, _read_cell(where, "recurrent", table, num_nodes, num_inputs=1))
    cells = {cell: _read_cell(where, cell, table, num_nodes, num_inputs=2) for cell in CELL_TYPES}
    concat = table.get("concat", list(range(2, num_nodes + 2)))
    if not isinstance(concat, list) or any(whole(state) is None for state in concat):
        raise InputError(f"{where}: concat must be a list of states, e.g. [2, 3]; got {concat!r}")
    return SearchSpace(name, num_nodes, cells["normal"], cells["reduce"], tuple(concat))


def _read_cell(
    where: str, cell: str, table: Mapping[str, Any], num_nodes: int, num_inputs: int
) -> tuple[tuple[str, ...], ...]:
    own = table.get(cell, {})
    if not isinstance(own, dict):
        raise InputError(f"{where}: [{cell}] must be a table of edges; got {own!r}")
    default = own.get("operations", table.get("operations"))
    candidates: list[Any] = [default] * count_edges(num_nodes, num_inputs)
    for key, value in own.items():
        if key == "operations":
            continue
        match = _EDGE.fullmatch(key)
        if not match:
            example = f'"source->state", e.g. "0->{num_inputs}"'
            raise InputError(f"{where}: [{cell}] {key!r} is not an edge; write {example}")
        source, state = int(match[1]), int(match[2])
        last = num_inputs + num_nodes - 1
        if not num_inputs <= state <= last:
            raise InputError(f"{where}: [{cell}] edge {key!r} leads to no node; choose states {num_inputs} to {last}")
        if source >= state:
            raise InputError(
                f"{where}: [{cell}] edge {key!r} would close a cycle; state {state} can read states 0 to {state - 1}"
            )
        candidates[count_edges(state - num_inputs, num_inputs) + source] = value
    for edge in candidates:
        if not isinstance(edge, list) or not all(isinstance(name, str) for name in edge):
            raise InputError(
                f"{where}: [{cell}] operations must be a list of names for every edge; got {edge!r}"
                if edge is not None
                else f"{where}: no operations for some edges of [{cell}]; give operations = [...]"
            )
    return tuple(tuple(edge) for edge in candidates)
