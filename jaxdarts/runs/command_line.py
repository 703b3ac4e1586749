"""Which configuration do a command line, a file and a preset give together?"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.paths import read_text
from jaxdarts.runs.checks import field_names
from jaxdarts.runs.evaluate.config import EVALUATE_PRESETS, EvaluateConfig
from jaxdarts.runs.folder import CONFIG_FILE, RECORDED_FACTS, check_resumable
from jaxdarts.runs.search.config import PRESETS, SearchConfig
from jaxdarts.runs.table.config import TABULATE_PRESETS, TabulateConfig

# From tyro's wording to ours, which says what is allowed before what was given.
_REWORDINGS = (
    (r"^Error parsing (\S+): invalid literal for int\(\) with base 10:", r"\1 must be a whole number; got"),
    (r"^Error parsing (\S+): could not convert string to float:", r"\1 must be a number; got"),
    (
        r"^Error parsing (\S+): no type matching \S*INT\S* .*? from \['(.*?)'\].*",
        r"\1 must be a whole number or None; got '\2'",
    ),
    (
        r"^Error parsing (\S+): no type matching \S*FLOAT\S* .*? from \['(.*?)'\].*",
        r"\1 must be a number or None; got '\2'",
    ),
    (r"^Missing value for argument '(\S+)'.*", r"\1 needs a value"),
    (r"^Unrecognized options:", "unexpected argument:"),
)

Arguments = TypeVar("Arguments", bound="RunOptions")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Flags of a command that are no part of its configuration."""

    run_dir: str | None = None
    """Folder for the run's files; a new one under runs/ if not given."""
    resume: bool = False
    """Continue the run in --run-dir from its last checkpoint, with the configuration recorded there."""
    config: str | None = None
    """TOML file with values for any field, or the config.json of an earlier run. Flags win over the file."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """FIELD=VALUE, the same as the field's flag."""


@dataclasses.dataclass(frozen=True)
class ProcessOptions(RunOptions):
    """The same, of a command that several processes can run together."""

    coordinator: str | None = None
    """HOST:PORT of the first of several processes that make one run; batches are split over the devices of all."""
    process_id: int | None = None
    """Which of them this is, counted from 0; the first one writes the files."""
    process_count: int | None = None
    """How many there are."""
    coordinator_timeout: int = 120
    """Seconds to wait for the others at the start."""


@dataclasses.dataclass(frozen=True)
class SearchArguments(SearchConfig, ProcessOptions):
    """All flags of the search command."""


@dataclasses.dataclass(frozen=True)
class EvaluateArguments(EvaluateConfig, ProcessOptions):
    """All flags of the evaluate command."""


@dataclasses.dataclass(frozen=True)
class TabulateArguments(TabulateConfig, RunOptions):
    """All flags of the tabulate command."""


def parse_search(argv: Sequence[str] | None = None) -> tuple[SearchConfig, ProcessOptions]:
    """The configuration and the other flags that a command line (without the program's name) asks for.

    A value comes from its flag or `--set`, the last of them; else from the `--config` file, or the resumed run; else
    from the preset. Values have the right type but are otherwise unchecked; `check_config` does that.

    Raises:
      InputError: naming the flag, or the file and its key.
    """
    arguments = parse(
        SearchArguments,
        PRESETS,
        argv,
        prog="python -m jaxdarts.search",
        description="Searches for a network's cells by gradient (DARTS, RobustDARTS) or at random and writes the found "
        "genotype, its drawing, the curvature on the way and a report to a run folder.",
    )
    config = SearchConfig(**{name: getattr(arguments, name) for name in field_names(SearchConfig)})
    return config, ProcessOptions(**{name: getattr(arguments, name) for name in field_names(ProcessOptions)})


def parse_evaluate(argv: Sequence[str] | None = None) -> tuple[EvaluateConfig, ProcessOptions]:
    """As `parse_search`, for the evaluate command."""
    arguments = parse(
        EvaluateArguments,
        EVALUATE_PRESETS,
        argv,
        prog="python -m jaxdarts.evaluate",
        description="Trains a genotype's network from scratch and writes its test error, size and a report to a run "
        "folder.",
    )
    config = EvaluateConfig(**{name: getattr(arguments, name) for name in field_names(EvaluateConfig)})
    return config, ProcessOptions(**{name: getattr(arguments, name) for name in field_names(ProcessOptions)})


def parse_tabulate(argv: Sequence[str] | None = None) -> tuple[TabulateConfig, RunOptions]:
    """As `parse_search`, for the tabulate command."""
    arguments = parse(
        TabulateArguments,
        TABULATE_PRESETS,
        argv,
        prog="python -m jaxdarts.tabulate",
        description="Trains every architecture of a small space from scratch and writes a table of their test errors.",
    )
    config = TabulateConfig(**{name: getattr(arguments, name) for name in field_names(TabulateConfig)})
    return config, RunOptions(**{name: getattr(arguments, name) for name in field_names(RunOptions)})


def parse(
    arguments_type: type[Arguments],
    presets: Mapping[str, Any],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
) -> Arguments:
    """As `parse_search`, for any dataclass with RunOptions' fields and a `preset`, and its presets (name -> config)."""
    flags = _expand_set(list(sys.argv[1:] if argv is None else argv), arguments_type)
    _check_flags(flags, arguments_type)

    def call(preset: str, args: list[str]) -> Arguments:
        default = arguments_type(**dataclasses.asdict(presets[preset]))
        return _call_tyro(arguments_type, default, args, prog, description)

    arguments = call("quick", flags)
    if arguments.resume:
        if arguments.run_dir is None:
            raise InputError("resume needs --run-dir: the folder of the run to continue")
        check_resumable(Path(arguments.run_dir), presets["quick"].command)
    file = arguments.config
    if file is None and arguments.resume:
        file = str(Path(arguments.run_dir or "") / CONFIG_FILE)
    table = {} if file is None else read_config_file(Path(file), field_names(type(presets["quick"])))
    preset = vars(arguments)["preset"] if _given("--preset", flags) else table.get("preset", "quick")
    if preset not in presets:
        raise unknown_choice("preset", preset, presets)
    try:
        from_file = [_flag(name, value, arguments_type) for name, value in table.items()]
        return call(preset, from_file + flags)
    except InputError as error:
        message = re.sub(r"--[a-z0-9-]+", lambda flag: flag[0][2:].replace("-", "_"), str(error))  # keys, not flags
        raise InputError(f"in {file}: {message}") from None


def read_config_file(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The table in a TOML file, or in the config.json of a run without the facts that the run recorded beside it.

    Raises:
      InputError: naming the file and what is wrong in it; a key that is not in `names` gets a suggestion.
    """
    text = read_text(path, "config")
    try:
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, JSONDecodeError
        raise InputError(f"config: {str(path)!r} is not {path.suffix[1:].upper() or 'TOML'}: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"config: {str(path)!r} must hold one object with a value for each field")
    if path.suffix == ".json":
        table = {name: value for name, value in table.items() if name not in RECORDED_FACTS}
    for name, value in table.items():
        if name not in names:
            raise InputError(f"in {path}: unknown key {name!r}{_did_you_mean(name, names)}; see --help for all")
        if not isinstance(value, bool | int | float | str | None):
            raise InputError(f"in {path}: {name} must be one value, not a list or a table; got {value!r}")
    return table


def _flag(name: str, value: Any, arguments_type: type) -> str:
    """One command-line token that sets a field; written `--name=value`, so that no value is taken for a flag."""
    flag = name.replace("_", "-")
    if name in _switches(arguments_type):
        on = {"true": True, "false": False}.get(str(value).lower())
        if on is None:
            raise InputError(f"{name} must be true or false; got {value!r}")
        return f"--{flag}" if on else f"--no-{flag}"
    return f"--{flag}={value}"


def _switches(arguments_type: type) -> list[str]:
    return [field.name for field in dataclasses.fields(arguments_type) if field.type in (bool, "bool")]


def _expand_set(argv: list[str], arguments_type: type) -> list[str]:
    """Replaces every `--set FIELD=VALUE` by the field's flag, in its place."""
    names = [name for name in field_names(arguments_type) if name not in field_names(ProcessOptions)]
    flags, rest = [], iter(_none(word) for word in argv)
    for token in rest:
        if token != "--set" and not token.startswith("--set="):
            flags.append(token)
            continue
        assignment = next(rest, "") if token == "--set" else token.removeprefix("--set=")
        name, equals, value = assignment.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set needs FIELD=VALUE, e.g. --set epochs=3; got {assignment!r}")
        if name not in names:
            raise InputError(f"--set: unknown field {name!r}{_did_you_mean(name, names)}; see --help for all")
        flags.append(_flag(name, value.strip(), arguments_type))
    return flags


def _none(word: str) -> str:
    """`none` in the spelling that the parser knows: it is a value, on the command line, of fields that may be None."""
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}None" if value.lower() == "none" else word


def _check_flags(flags: Sequence[str], arguments_type: type) -> None:
    """Refuses a flag that does not exist, which tyro would report together with the values behind it."""
    known = ["--help", *(f"--{name.replace('_', '-')}" for name in field_names(arguments_type))]
    known += [f"--no-{name.replace('_', '-')}" for name in _switches(arguments_type)]
    for token in flags:
        flag = token.partition("=")[0].replace("_", "-")
        if token.startswith("--") and flag not in known:
            raise InputError(f"unknown flag {flag!r}{_did_you_mean(flag, known)}; see --help for all")


def _given(flag: str, flags: Sequence[str]) -> bool:
    return any(token == flag or token.startswith(f"{flag}=") for token in flags)


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _call_tyro(
    arguments_type: type[Arguments], default: Arguments, args: list[str], prog: str, description: str
) -> Arguments:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(arguments_type, default=default, args=args, prog=prog, description=description)
    except SystemExit as error:
        if not error.code:  # --help
            raise
        raise InputError(_first_message(printed.getvalue())) from None


def _first_message(box: str) -> str:
    """The message in the box that tyro draws, as one line: the rows up to the first rule."""
    rows = [row.strip("│ \t") for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    rule = next((number for number, row in enumerate(rows) if row and not row.strip("─")), len(rows))
    message = " ".join(" ".join(rows[:rule]).split()).removesuffix(".")
    for pattern, replacement in _REWORDINGS:
        message = re.sub(pattern, replacement, message)
    return message
