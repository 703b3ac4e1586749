"""Which settings do a command line, a file and a preset give together?"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxdarts.checks import field_names
from jaxdarts.errors import InputError
from jaxdarts.paths import read_text
from jaxdarts.recorded import find_again
from jaxdarts.runs.config_json import CONFIG_FILE, RECORDED_FACTS
from jaxdarts.runs.folder import check_resumable
from jaxdarts.settings import Group, Settings, descriptions, field_types, options

# What people set; the others are in --help-all.
COMMON = tuple(
    "space dataset data_dir preset method hypergradient epochs batch_size channels cells hidden image_size limit "  # noqa: SIM905
    "learning_rate population seed devices genotype seeds run_dir resume config".split()
)

FLAGS = {"from_run": "--from"}  # those that aren't called as their settings are: a word of Python


@dataclasses.dataclass(frozen=True)
class RunOptions(Group):
    """Where the run's files lie."""

    run_dir: str | None = None
    """Folder for the run's files; a new one under runs/ if not given."""
    resume: bool = False
    """Continue the run in --run-dir from its last checkpoint, with the settings recorded there."""
    config: str | None = None
    """TOML file with values for any setting, or the config.json of an earlier run. Flags win over the file."""


@dataclasses.dataclass(frozen=True)
class ProcessOptions(RunOptions):
    """Where the run's files lie, and which processes make it."""

    coordinator: str | None = None
    """HOST:PORT of the first of several processes that make one run, or auto: as the cluster says (Slurm, Open MPI,
    Kubernetes and others). Batches are split over the devices of all."""
    process_id: int | None = None
    """Which of them this is, counted from 0; the first one writes the files. The cluster says it if not given."""
    process_count: int | None = None
    """How many there are. The cluster says it if not given."""
    coordinator_timeout: int = 120
    """Seconds to wait for the others at the start."""


def parse_search(argv: Sequence[str] | None = None) -> tuple[Any, ProcessOptions]:
    """The settings and the other flags that a command line (without the program's name) asks for.

    A value comes from its flag, the last of several; else from the `--config` file, or the resumed run; else from the
    method's or the preset's own.

    Raises:
      InputError: naming the flag, or the file and its key.
    """
    from jaxdarts.plans.search_settings import SearchConfig

    return parse(
        SearchConfig,
        ProcessOptions,
        argv,
        "Searches for a network's cells by gradient (DARTS and what made it robust) or at random, and writes the found "
        "genotype, its drawing, the curvature on the way and a report to a run folder.",
    )


def parse_evaluate(argv: Sequence[str] | None = None) -> tuple[Any, ProcessOptions]:
    """As `parse_search`, for the evaluate command."""
    from jaxdarts.plans.training_settings import EvaluateConfig

    return parse(
        EvaluateConfig,
        ProcessOptions,
        argv,
        "Trains a genotype's network from scratch and writes its test error, size and a report to a run folder.",
    )


def parse_tabulate(argv: Sequence[str] | None = None) -> tuple[Any, RunOptions]:
    """As `parse_search`, for the tabulate command."""
    from jaxdarts.plans.training_settings import TabulateConfig

    return parse(
        TabulateConfig,
        RunOptions,
        argv,
        "Trains every architecture of a small space from scratch and writes a table of their test errors.",
    )


def parse(
    kind: type[Settings], options_type: type[RunOptions], argv: Sequence[str] | None, description: str
) -> tuple[Any, Any]:
    """As `parse_search`, for any settings and options."""
    words = _dashed(sys.argv[1:] if argv is None else argv)
    given = _read(kind, options_type, words)
    chosen = options_type(**{name: given.pop(name) for name in field_names(options_type) if name in given})
    if _asks_for_help(words):
        _print_help(kind, options_type, given, description, everything="--help-all" in words)
    if chosen.resume:
        if chosen.run_dir is None:
            raise InputError("resume needs --run-dir: the folder of the run to continue")
        check_resumable(Path(chosen.run_dir), kind.command)
    file = chosen.config
    if file is None and chosen.resume:
        file = str(Path(chosen.run_dir or "") / CONFIG_FILE)
    from_file = {} if file is None else read_config_file(Path(file), kind, given)
    try:
        return kind(**{**from_file, **given}), chosen
    except InputError as error:
        # Told of the flag where a flag said it, else of the file.
        name = str(error).split()[0]
        if from_file and name in from_file and name not in given:
            raise InputError(f"in {file}: {error}") from None
        raise InputError(f"{_flag(name)}{str(error)[len(name) :]}" if name in given else str(error)) from None


def read_config_file(path: Path, kind: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a TOML file, or in the config.json of a run, less the facts that the run recorded beside them.

    Args:
      path: of the file.
      kind: of settings; a config.json may hold others, which an older version recorded.
      given: by flags, which win: they may name another method.

    Raises:
      InputError: naming the file and what is wrong in it; an unknown key gets a suggestion.
    """
    text = read_text(path, "config")
    is_json = path.suffix == ".json"
    try:
        table = json.loads(text) if is_json else tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, JSONDecodeError
        raise InputError(f"config: {str(path)!r} is not {path.suffix[1:].upper() or 'TOML'}: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"config: {str(path)!r} must hold one object with a value for each setting")
    if is_json:
        table = find_again(table, table.get("started_in"))
        table = {name: value for name, value in table.items() if name not in RECORDED_FACTS}
        left_out = _left_to_the_method(kind, table, given)
        table = {name: value for name, value in table.items() if name not in left_out}
    types = {name: t for group in kind.group_types(table) for name, t in field_types(group).items()}
    names = kind.names({**table, **given})
    for name, value in table.items():
        if not isinstance(value, bool | int | float | str | None):
            raise InputError(f"in {path}: {name} must be one value, not a list or a table; got {value!r}")
        if not is_json and _is_none(value, types.get(name)):
            table[name] = None
    unknown = [name for name in table if name not in types and name not in names]
    if unknown and not is_json:
        raise InputError(f"in {path}: {kind.unknown(unknown[0], {**table, **given})}")
    # What a flag turns off, or a run has recorded beside what it used, is not asked for.
    idle = kind.unused({**table, **given}).keys() - ({} if is_json else kind.unused(table)).keys()
    return {name: value for name, value in table.items() if name in names and name not in idle}


def _left_to_the_method(kind: type[Settings], recorded: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """Settings that a run had from its method, where a flag now names another method."""
    if "method" not in given or "method" not in recorded:
        return set()
    methods = [{**recorded, "method": method} for method in (recorded["method"], given["method"])]
    before, now = ({**_own_defaults(kind, values), **kind.defaults(values)} for values in methods)
    return {name for name, value in before.items() if recorded.get(name) == value != now.get(name)} - {"preset"}


def _own_defaults(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(group, name) for group in kind.group_types(values) for name in field_types(group)}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def _read(kind: type[Settings], options_type: type[RunOptions], words: Sequence[str]) -> dict[str, Any]:
    """The values that flags give, by name."""
    every = _every_group(kind)
    parser = _Parser(add_help=False, allow_abbrev=False, exit_on_error=False, argument_default=argparse.SUPPRESS)
    known = {"help", "help_all"}
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help-all", action="store_true")
    for group in (options_type, *every):
        for name, annotation in field_types(group).items():
            if name not in known:
                known.add(name)
                _add_flag(parser, name, annotation)
    _check_flags(words, known, every)
    try:
        found, extra = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        name, text = str(error.argument_name).split("/")[0], error.message
        text = text.replace("expected one argument", "needs a value")
        raise InputError(f"{name} {text.replace('ignored explicit argument', 'takes no value; got')}") from None
    if extra:
        raise InputError(f"unexpected argument: {extra[0]}")
    return {name: value for name, value in vars(found).items() if not name.startswith("help")}


def _add_flag(parser: argparse.ArgumentParser, name: str, annotation: Any) -> None:
    if options(annotation) == (bool,):
        parser.add_argument(_flag(name), action=argparse.BooleanOptionalAction)
    else:
        parser.add_argument(_flag(name), dest=name, type=_converter(annotation))


def _converter(annotation: Any) -> Callable[[str], Any]:
    """From a flag's text to its value."""
    kinds = options(annotation)

    def convert(text: str) -> Any:
        if _is_none(text, annotation):
            return None
        if str in kinds:
            return text
        wanted = "a whole number" if int in kinds else "a number"
        wanted += " or None" if type(None) in kinds else ""
        try:
            return int(text) if int in kinds else float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {wanted}; got {text!r}") from None

    return convert


def _every_group(kind: type[Settings]) -> list[type]:
    """All groups of settings, of whichever method: an option of another one is told by name, not as unknown."""
    return list(dict.fromkeys(group for values in kind.every() for group in kind.group_types(values)))


def _check_flags(words: Sequence[str], known: set[str], every: Sequence[type]) -> None:
    """Refuses a flag that does not exist, with a suggestion."""
    switches = {n for group in every for n, a in field_types(group).items() if options(a) == (bool,)} | {"resume"}
    flags = [_flag(name) for name in known] + [f"--no-{name.replace('_', '-')}" for name in switches]
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag == "--set":
            raise InputError("--set is no more: give the setting's own flag, e.g. --epochs 3")
        if word.startswith("--") and flag not in flags:
            close = difflib.get_close_matches(flag, flags, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InputError(f"unknown flag {flag!r}{hint}; see --help for all")


def _is_none(value: Any, annotation: Any) -> bool:
    """Whether a value from a flag or a TOML file, which has no such value itself, means None."""
    return isinstance(value, str) and value.lower() == "none" and type(None) in options(annotation)


def _dashed(words: Sequence[str]) -> list[str]:
    """Flags with underscores in their usual spelling, and -1e-3 behind one as a value, which argparse takes for one."""
    found: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            found.append(f"{flag.replace('_', '-')}{equals}{value}")
        elif re.match(r"-\.?\d", word) and found and found[-1].startswith("--") and "=" not in found[-1]:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _asks_for_help(words: Sequence[str]) -> bool:
    return bool({"-h", "--help", "--help-all"} & set(words))


def _flag(name: str) -> str:
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _print_help(
    kind: type[Settings], options_type: type[RunOptions], given: Mapping[str, Any], description: str, everything: bool
) -> NoReturn:
    """The common flags, and in full what the chosen method has or changes; or all of them. Ends the process."""
    from jaxdarts.methods import METHODS

    chosen = {name: given[name] for name in ("space", "genotype", "method", "preset") if name in given}
    defaults, groups = kind.defaults(chosen), [*kind.group_types(chosen), options_type]
    full = groups if everything else []
    if "method" in chosen:
        entry = METHODS[chosen["method"]]
        description += f" Method {chosen['method']} returns {entry.says}."
        changed = {name for changes in entry.defaults.values() for name in changes} - set(COMMON)
        in_full = [group for group in groups if group in entry.settings or changed & set(field_types(group))]
        full = full or in_full
    print(f"usage: python -m jaxdarts.{kind.command} [--FLAG VALUE ...]\n\n{_wrapped(description, 0)}")
    if not everything:
        common = [(group, name) for group in groups for name in field_types(group) if name in COMMON]
        print("\nCommon settings:")
        for group, name in sorted(common, key=lambda pair: COMMON.index(pair[1])):
            print(_line(group, name, defaults, re.split(r"[.;](?= |$)", descriptions(group)[name])[0]))
    for group in full:
        print(f"\n{(group.__doc__ or '').strip().rstrip('.')}:")
        for name in field_types(group):
            print(_line(group, name, defaults, descriptions(group)[name]))
    if not everything:
        methods = "; --method NAME --help shows a method's own" if kind.command == "search" else ""
        print(f"\n--help-all lists every setting{methods}.")
    sys.exit(0)


def _line(group: type, name: str, defaults: Mapping[str, Any], text: str) -> str:
    default, flag = defaults.get(name, getattr(group, name)), _flag(name)
    if options(field_types(group)[name]) == (bool,) and default:
        flag, text = f"--no-{name.replace('_', '-')}", f"Turns off: {text[0].lower()}{text[1:]}"
    shown = default not in (None, "") and not isinstance(default, bool)
    known = f" [{default}]" if shown else ""
    return f"  {flag:<28} " + _wrapped(f"{text.strip().rstrip('.')}{known}", 31).lstrip()


def _wrapped(text: str, indent: int) -> str:
    return textwrap.fill(text, 118, initial_indent=" " * indent, subsequent_indent=" " * indent)
