"""Is what a diagnostics.json holds what a search writes there?"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError

# A form is a mapping of fields, a list with the form of its entries, or a kind of value.
_SCORES = {"accuracy": float, "loss": float}
_FORM: Mapping[str, Any] = {
    "epoch": int,
    "operations": {"skip_connect": {}, "parameter_free": {}, "all": {}},  # by cell, see `_form`
    "discretisation": {"relaxed": _SCORES, "one_hot": _SCORES, "accuracy_change": float},
    "eigenvalues": {"values": [float], "residuals": [float], "of": int},
    "candidates": [{"genotype": dict, "accuracy": float}],
}
# A population of random architectures has none that was scored.
_MAY_BE_NONE = ("discretisation", "eigenvalues", "candidates", "candidates[].accuracy")
_MAY_BE_MISSING = ("candidates",)
_KINDS = {int: "a whole number", float: "a finite number", dict: "an object"}


def check_diagnostics(value: Any, path: Path, cells: Collection[str] | None = None) -> Mapping[str, Any]:
    """The value itself; fields that are not known are left alone.

    Args:
      value: what the file holds.
      path: of the file.
      cells: the types of cells that it must tell of, and no field may be missing; None: fields may.

    Raises:
      InputError: it has another form; naming the file and the field.
    """
    problem = next(_problems(value, _form(cells or ()), "", complete=cells is not None), None)
    if problem is not None:
        raise InputError(f"run_dir: {str(path)!r} is not what a search writes: {problem}")
    return value


def _form(cells: Collection[str]) -> Mapping[str, Any]:
    counts = dict.fromkeys(cells, int)
    return {**_FORM, "operations": dict.fromkeys(_FORM["operations"], counts)}


def _problems(value: Any, form: Any, name: str, *, complete: bool) -> Iterator[str]:
    """A sentence for each field that does not fit."""
    wrong = f"{name or 'it'} must be {{}}; got {_short(value)}"
    if isinstance(form, Mapping):
        if not isinstance(value, dict):
            yield wrong.format("an object")
            return
        for key, part in form.items():
            full = f"{name}.{key}".lstrip(".")
            if key not in value:
                if complete and full not in _MAY_BE_MISSING:
                    yield f"{full} is missing"
            elif value[key] is not None or re.sub(r"\[\d+\]", "[]", full) not in _MAY_BE_NONE:
                yield from _problems(value[key], part, full, complete=complete)
    elif isinstance(form, list):
        if not isinstance(value, list) or not value:
            yield wrong.format("a list with at least one entry")
            return
        for index, entry in enumerate(value):
            yield from _problems(entry, form[0], f"{name}[{index}]", complete=complete)
    elif not _is(value, form):
        yield wrong.format(_KINDS[form])


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
