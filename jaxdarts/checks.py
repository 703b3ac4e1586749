"""Does every field of a configuration hold a value that is possible?"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.values import number, plain, whole


class Check(typing.NamedTuple):
    """What must hold of one field's value, and how that is said."""

    field: str
    holds: Callable[[Any], bool]
    allowed: str


def at_least(least: int, *fields: str) -> list[Check]:
    """Values from `least` on."""
    return [Check(field, lambda value: value >= least, f"at least {least}") for field in fields]


def positive(*fields: str) -> list[Check]:
    """Values above 0."""
    return [Check(field, lambda value: value > 0, "greater than 0") for field in fields]


def unit(*fields: str) -> list[Check]:
    """Values in [0, 1)."""
    return [Check(field, lambda value: 0 <= value < 1, "at least 0 and less than 1") for field in fields]


def check_values(config: Any, checks: Iterable[Check]) -> None:
    """Values that are None (where the type allows it) are not checked.

    Raises:
      InputError: naming the first field whose check does not hold, its value and what is allowed.
    """
    for field, holds, allowed in checks:
        value = getattr(config, field)
        if value is not None and not holds(value):
            raise InputError(f"{field} must be {allowed}; got {value!r}")


def check_choices(config: Any, choices: Mapping[str, Collection[str]]) -> None:
    """Raises InputError for the first field whose value is not among its choices."""
    for field, names in choices.items():
        if getattr(config, field) not in names:
            raise unknown_choice(field, getattr(config, field), names)


_TYPE_NAMES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


class PlainFields:
    """A base of configurations: a field set to a number of NumPy or JAX holds Python's own, which JSON can write."""

    def __post_init__(self) -> None:
        for name in field_names(type(self)):
            object.__setattr__(self, name, plain(getattr(self, name)))


def check_types(config: Any) -> None:
    """Checks that every field of a dataclass of plain values holds its annotated type; a whole number is a float too.

    Raises:
      InputError: naming the field and the value.
    """
    annotations = typing.get_type_hints(type(config))
    for field in field_names(type(config)):
        annotation, value = annotations[field], getattr(config, field)
        options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        if not any(_is_a(value, option) for option in options):
            expected = " or ".join(_TYPE_NAMES.get(option, "None") for option in options)
            raise InputError(f"{field} must be {expected}; got {value!r}")


def _is_a(value: object, expected: type) -> bool:
    if expected is float:
        found = number(value)
        return found is not None and math.isfinite(found)
    return whole(value) is not None if expected is int else isinstance(value, expected)


def field_names(config_type: type) -> tuple[str, ...]:
    """The names of a configuration's fields, in order."""
    return tuple(field.name for field in dataclasses.fields(config_type))
