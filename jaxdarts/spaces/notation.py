"""How is the PyTorch codes' text of a genotype read, and are its values edges and states?"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from jaxdarts.errors import InputError, shorten
from jaxdarts.spaces.architecture import Edge
from jaxdarts.values import plain, whole

MOST_STATES = 10_000
# What their logs put before it: `03/14 01:59:26 PM genotype = Genotype(...)`.
_LOGGED = re.compile(r"^\s*\d.*?(?=\bGenotype\s*\()")


def read_fields(text: str, *kinds: Sequence[str]) -> dict[str, Any]:
    """The values of `Genotype(normal=[...], ...)` by field, a leading `NAME =` or their log's time before it or not.

    The text is parsed, never evaluated.

    Args:
      text: the whole text; `range(2, 6)` in it becomes a list.
      kinds: the fields of each kind of genotype that it may be, in the order in which values without a name have them.
        Where several kinds fit, the first of which it has all fields.

    Raises:
      InputError: anything else stands there.
    """
    example = f"Genotype({kinds[0][0]}=[...], ...)"
    try:
        tree = ast.parse(_LOGGED.sub("", text).strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # the last two: deep nesting
        raise InputError(f"genotype: cannot read {shorten(text)!r} as {example}") from error
    statement = tree.body[0] if len(tree.body) == 1 else None
    call = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise InputError(f"genotype: expected {example}; got {shorten(text)!r}")
    fitting = []
    for fields in kinds:
        names = [*fields[: len(call.args)], *(keyword.arg or "**" for keyword in call.keywords)]
        if len(call.args) <= len(fields) and len(set(names)) == len(names) and set(names) <= set(fields):
            fitting.append((len(names) == len(fields), names))
    if not fitting:
        choices = ", or ".join(", ".join(fields) for fields in kinds)
        raise InputError(f"genotype: has the fields {choices}, each once; got {shorten(text)!r}")
    _, names = max(fitting, key=lambda fit: fit[0])  # of equals the first
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {name: _literal(value) for name, value in zip(names, values, strict=True)}


def as_edge(where: str, pair: Any, state: int) -> Edge:
    """(operation, source) of an edge that leads to `state`. Raises InputError, which begins with `where`."""
    pair = as_list(pair)
    if not is_list(pair) or len(pair) != 2:
        raise InputError(f"{where}: expected a pair (operation, source); got {pair!r}")
    operation, source = plain(pair[0]), whole(pair[1])
    if not isinstance(operation, str):
        raise InputError(f"{where}: the operation must be a name; got {operation!r}")
    if source is None or not 0 <= source < state:
        choices = f"choose a state from 0 to {state - 1}" if state > 1 else "choose state 0"
        raise InputError(f"{where}: state {state} cannot read from {pair[1]!r}; {choices}")
    return operation, source


def as_states(where: str, value: Any, last: int) -> tuple[int, ...]:
    """States from 0 to `last`, one or more. Raises InputError, which begins with `where`."""
    value = as_list(value)
    if not is_list(value) or not value:
        raise InputError(f"{where}: expected a list of states; got {value!r}")
    states = []
    for given in value:
        state = whole(given)
        if state is None or not 0 <= state <= last:
            raise InputError(f"{where}: no state {given!r}; choose states from 0 to {last}")
        states.append(state)
    return tuple(states)


def as_list(value: Any) -> Any:
    """An array as nested lists, rows of an edge's name and number as they are."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a list or a tuple, or another sequence but text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _literal(node: ast.expr) -> Any:
    """A Python literal or `range(...)` of integers, as a list or tuple too."""
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "tuple") and len(node.args) == 1:
            return _literal(node.args[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            # Cut, so that no text can fill the memory; states that high don't exist and are refused later.
            return list(range(*(ast.literal_eval(argument) for argument in node.args))[:MOST_STATES])
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise InputError(f"genotype: cannot read {shorten(ast.unparse(node))!r}; expected a list") from error
