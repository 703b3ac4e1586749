"""How are a command's settings kept? In small groups, each beside the code that uses it, and flat for whoever asks."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import textwrap
import types as types_module
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from jaxdarts.checks import Check, PlainFields, check_choices, check_types, check_values, field_names
from jaxdarts.errors import InputError, unknown_choice


class Use(NamedTuple):
    """What some settings of a group are for: with other values of the group they have no effect."""

    fields: tuple[str, ...]
    owner: str  # who uses them, for people
    holds: Callable[[Any], bool]  # whether settings use them; their values may not have been checked


class Group(PlainFields):
    """A base of groups of settings: frozen dataclasses of plain values, checked when they are made.

    The docstring is the group's title in `--help`, that below a field describes it, its first sentence in short.
    """

    checks: ClassVar[Sequence[Check]] = ()
    uses: ClassVar[Sequence[Use]] = ()

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """The values that fields with names may have."""
        return {}

    def __post_init__(self) -> None:
        """Raises InputError naming the first field that cannot be used, its value and what is allowed."""
        super().__post_init__()
        check_types(self)
        kind: Any = type(self)
        for name, annotation in field_types(kind).items():
            value = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool) and int not in options(annotation):
                object.__setattr__(self, name, float(value))
        check_values(self, self.checks)
        check_choices(self, self.choices())
        self.check()

    def check(self) -> None:
        """What must hold of several fields together. Raises InputError."""


class Settings:
    """All settings of a command: `settings.epochs`, whichever group that is in. Immutable, equal by value.

    Values that are not given come from the preset. Subclasses say which groups there are.
    """

    command: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}

    groups: tuple[Any, ...]
    given: Mapping[str, Any]  # what was not left to the preset

    def __init__(self, **values: Any) -> None:
        """Raises InputError for an unknown name or a value that cannot be used."""
        self._set(values)
        unused = self.unused(values)
        if unused:
            name, owner = next(iter(unused.items()))
            raise InputError(f"{name} {getattr(self, name)!r} is only for {owner}")
        self.check_together()

    def _set(self, values: Mapping[str, Any]) -> None:
        types = self.group_types(values)
        known = {name: group for group in types for name in field_names(group)}
        for name in values:
            if name not in known:
                raise self.unknown(name, values)
        every = {**self.defaults(values), **values}
        groups = tuple(group(**{name: every[name] for name in field_names(group) if name in every}) for group in types)
        flat = {name: getattr(group, name) for group in groups for name in field_names(type(group))}
        self.__dict__.update(flat, groups=groups, given={name: flat[name] for name in values})

    @classmethod
    def group_types(cls, values: Mapping[str, Any]) -> Sequence[type]:
        """The groups of settings with these values."""
        raise NotImplementedError

    @classmethod
    def every(cls) -> Sequence[Mapping[str, Any]]:
        """Values with which there is every group that may ever be."""
        return [{}]

    @classmethod
    def defaults(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's values, where they are not the groups' own."""
        preset = values.get("preset", "quick")
        if preset not in cls.presets:
            raise unknown_choice("preset", preset, cls.presets)
        return {"preset": preset, **cls.presets[preset]}

    @classmethod
    def unknown(cls, name: str, values: Mapping[str, Any]) -> InputError:
        """The error for a name that is not among the settings."""
        names = cls.names(values)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return InputError(f"unknown setting {name!r}{hint}; python -m jaxdarts.{cls.command} --help lists all")

    @classmethod
    def names(cls, values: Mapping[str, Any]) -> list[str]:
        """All names of settings with these values."""
        return [name for group in cls.group_types(values) for name in field_names(group)]

    @classmethod
    def unused(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """Those of the values, given and not the defaults, that have no effect, with who would use them."""
        types = cls.group_types(values)
        left_out = {field.name: field.default for group in types for field in dataclasses.fields(group)}
        left_out |= cls.defaults(values)
        settings = types_module.SimpleNamespace(**{**left_out, **values})
        return {
            name: use.owner
            for group in types
            for use in getattr(group, "uses", ())
            for name in use.fields
            if name in values and values[name] != left_out[name] and not use.holds(settings)
        }

    @classmethod
    def used(cls, fixed: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """The values of both, `own` before `fixed`; of `fixed` only those that there are, and that have an effect."""
        values = {**fixed, **own}
        names, unused = cls.names(values), cls.unused(values)
        return {name: v for name, v in values.items() if name in own or (name in names and name not in unused)}

    def check_together(self) -> None:
        """What must hold of settings of several groups. Raises InputError."""

    def check(self) -> None:
        """What can only be checked with a space or a network's size at hand. Raises InputError; compiles nothing."""

    def replace(self, **changes: Any) -> Self:
        """The same with other values; what was left to the preset follows another preset."""
        return type(self)(**{**self.given, **changes})

    def flat(self) -> dict[str, Any]:
        """All settings by name, in the groups' order: JSON values."""
        return {name: getattr(group, name) for group in self.groups for name in field_names(type(group))}

    @classmethod
    def from_recorded(cls, recorded: Mapping[str, Any]) -> Self:
        """Of a run's config.json, to report it: it may hold more, and what an older version let pass."""
        found = cls.__new__(cls)
        found._set(cls.used(recorded, {}))
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings cannot be changed; use replace({name}=...)")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no setting {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Settings) and self.flat() == other.flat()

    def __hash__(self) -> int:
        return hash(tuple(self.flat().items()))

    def __repr__(self) -> str:
        given = self.__dict__.get("given", {})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __reduce__(self) -> Any:
        return _restored, (type(self), self.given)


def _restored(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    return kind(**given)


@functools.cache
def field_types(group: Any) -> dict[str, Any]:
    """The types of a group's fields."""
    hints = typing.get_type_hints(group)
    return {name: hints[name] for name in field_names(group)}


def options(annotation: Any) -> tuple[type, ...]:
    """The types that a field may have: those of a union, or the only one."""
    return typing.get_args(annotation) or (annotation,)


@functools.cache
def descriptions(group: Any) -> dict[str, str]:
    """The text below each field of a group, on one line; CHOICES stands for those that the field has."""
    found: dict[str, str] = {}
    for base in reversed(group.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body  # type: ignore[arg-type]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    for name, choices in group.choices().items():
        found[name] = found[name].replace("CHOICES", ", ".join(choices))
    return found
