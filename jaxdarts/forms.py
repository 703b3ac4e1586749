"""Does a file of a run hold what jaxdarts writes there?

A form says what a value must be: `int`, `float` (finite), `str`, `bool` or `dict`; a tuple of choices; a list with the
form of its entries, `[form, ...]` where there must be one; a mapping of fields, in which `"name?"` may be missing,
fields that it doesn't name are left alone, and `{str: form}` is for all; `Null` of a form; or a function that raises
InputError. What reads a folder reads it through here: so whatever is damaged is told in one line.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxdarts.checks import field_names
from jaxdarts.errors import InputError
from jaxdarts.spaces import genotype_from_json, space_from_json

_GREATEST = 1e100  # a measurement beyond it is as good as not finite
_KINDS = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    dict: "an object",
}


class Null(NamedTuple):
    """What may also be null: was not measured, or is not finite."""

    form: Any


NUMBER = Null(float)


def genotype(value: Any) -> None:
    """A cell pair, cell or recurrent cell, as `to_json` writes it."""
    _parsed(genotype_from_json, value)


def space(value: Any) -> None:
    """A search space, as `to_json` writes it."""
    if not isinstance(value, Mapping):
        raise InputError(f"must be a search space; got {_short(value)}")
    edges = [[str]]
    cells = {"normal?": edges, "reduce?": edges, "cell?": edges, "recurrent?": edges}
    fit(value, {"name": str, "num_nodes": int, **cells, "concat?": [int]}, "")
    _parsed(space_from_json, value)


def file_name(value: Any) -> None:
    """The name of a file or folder."""
    if not isinstance(value, str) or not 0 < len(value.encode(errors="replace")) < 256 or {*"/\0"} & {*value}:
        raise InputError(f"must be the name of a folder; got {_short(value)}")


def scalar(value: Any) -> None:
    """A setting's value."""
    if isinstance(value, float) and not math.isfinite(value) or isinstance(value, list | dict):
        raise InputError(f"must be text, a finite number, true, false or null; got {_short(value)}")


def fields_of(config_type: type, **forms: Any) -> dict[str, Any]:
    """The fields of a dataclass by their annotations, or by the forms given; all may be missing, as in older files."""
    hints = typing.get_type_hints(config_type)
    found = {}
    for name in field_names(config_type):
        options = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        kind = forms.get(name, next(option for option in options if option is not type(None)))
        found[f"{name}?"] = Null(kind) if type(None) in options else kind
    return found


def loose(form: Any) -> Any:
    """The same form, of which any field may be missing."""
    if isinstance(form, Null):
        return Null(loose(form.form))
    if isinstance(form, list):
        return [loose(form[0]), *form[1:]]
    if isinstance(form, Mapping):
        return {key if key is str or key.endswith("?") else f"{key}?": loose(part) for key, part in form.items()}
    return form


def read_json(path: Path, form: Any, argument: str = "run_dir") -> Any:
    """What a file holds. Raises InputError that names the file, and the field that does not fit."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{argument}: cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return parse_json(content, form, path, argument)


def parse_json(content: bytes, form: Any, path: Path, argument: str = "run_dir", where: str = "") -> Any:
    """As `read_json`, of a part of a file; `where` says which."""
    place = f"{where} of {str(path)!r}" if where else repr(str(path))
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{argument}: cannot read {place}: {error}") from error
    try:
        if b"\\ud" in content.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return fit(value, form, "")
    except UnicodeEncodeError as error:
        raise InputError(f"{argument}: {place} holds a half of a character") from error
    except InputError as error:
        raise InputError(f"{argument}: {place} is not what jaxdarts writes: {error}") from error


def fit(value: Any, form: Any, name: str) -> Any:
    """The value, in which measurements that are as good as not finite are null.

    Raises:
      InputError: it has another form; naming the field.
    """
    if isinstance(form, Null):
        huge = form.form is float and _is(value, int | float) and not abs(value) < _GREATEST and value == value
        return None if value is None or huge else fit(value, form.form, name)
    if isinstance(form, Mapping):
        return _fit_fields(_expect(value, dict, name), form, name)
    if isinstance(form, list):
        if not isinstance(value, list) or (form[-1] is ... and not value):
            raise _wrong(name, "a list" if form[-1] is not ... else "a list with at least one entry", value)
        return [fit(entry, form[0], f"{name}[{index}]") for index, entry in enumerate(value)]
    if isinstance(form, tuple):
        if not isinstance(value, str) or value not in form:
            raise _wrong(name, "one of " + ", ".join(form), value)
        return value
    if isinstance(form, type):
        return _expect(value, form, name)
    try:
        form(value)
    except InputError as error:
        raise InputError(f"{name or 'it'}: {error}") from error
    return value


def _fit_fields(value: dict[str, Any], form: Mapping[Any, Any], name: str) -> dict[str, Any]:
    if str in form:
        return {key: fit(entry, form[str], f"{name}.{key}".lstrip(".")) for key, entry in value.items()}
    found = dict(value)
    for key, part in form.items():
        field = key.removesuffix("?")
        full = f"{name}.{field}".lstrip(".")
        if field in value:
            found[field] = fit(value[field], part, full)
        elif field == key:
            raise InputError(f"{full} is missing")
    return found


def _expect(value: Any, kind: type, name: str) -> Any:
    fits = _is(value, int | float) and abs(value) < _GREATEST if kind is float else _is(value, kind)
    if not fits or (kind is int and abs(value) >= 2**63):
        raise _wrong(name, _KINDS[kind], value)
    # Whole numbers that no array holds are measurements too.
    return float(value) if kind is float and abs(value) >= 2**53 else value


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _parsed(parse: Any, value: Any) -> None:
    try:
        parse(value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(str(error)) from error


def _wrong(name: str, wanted: str, value: Any) -> InputError:
    return InputError(f"{name or 'it'} must be {wanted}; got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)[:100]
    return text if len(text) <= 40 else f"{text[:37]}..."
