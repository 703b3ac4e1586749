"""May a run begin in a folder, or go on there, and who makes the folder and holds it?"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxdarts.errors import InputError, one_line_errors, shorten
from jaxdarts.json_files import is_temporary, remove_temporary
from jaxdarts.paths import check_name, exists, is_file, is_folder
from jaxdarts.runs.config_json import CONFIG_FILE, read_config, run_command, run_facts
from jaxdarts.runs.lock import LOCK_FILE, lock_folder
from jaxdarts.runs.store import Store


def create(
    run_dir: Path | None, name: str, settings: Mapping[str, Any], facts: Mapping[str, Any], device: str, keep: int
) -> Store:
    """A new run's folder holding config.json: the settings, versions, the device and `facts`.

    To be called when everything else about the run has been checked, so that bad input leaves no folder behind.

    Args:
      run_dir: None makes a new folder below `runs/`, whose name begins with `name`.
      name: such as what is searched.
      settings: with the `command`.
      facts: what a reader or a continuation may want to know beside.
      device: as a person would name it.
      keep: how many of the newest checkpoints stay.

    Raises:
      InputError: the folder holds files or belongs to a running process.
      RunError: the folder cannot be written.
    """
    check_creatable(run_dir)
    with one_line_errors("create the run folder", run_dir or "runs"):
        path, is_new = _make_folder(run_dir, name, settings)
    store = None
    try:
        store = Store(path, path, keep, lock_folder(path))
        check_creatable(path)  # again, under the lock: another process may have been faster
        store.write_json(CONFIG_FILE, {**settings, **run_facts(device), "started_in": os.getcwd(), **facts})
    except BaseException:
        if store is not None and is_new:
            (path / LOCK_FILE).unlink(missing_ok=True)
        if store is not None:
            store.close()
        if is_new:
            with contextlib.suppress(OSError):  # not empty: it became another process's
                path.rmdir()
        raise
    return store


def reopen(run_dir: Path, keep: int) -> Store:
    """The folder of an earlier run, to continue it; to be called after `check_resumable`.

    Raises:
      InputError: it is still running.
    """
    store = Store(run_dir, run_dir, keep, lock_folder(run_dir))
    with one_line_errors("write", run_dir):
        remove_temporary(run_dir, is_foreign=lambda folder: (folder / LOCK_FILE).exists())
    return store


def check_creatable(run_dir: Path | None) -> None:
    """Raises InputError if a new run must not start in this folder; makes nothing."""
    if run_dir is None:
        return
    check_spelling(run_dir, "run_dir")
    if not exists(run_dir):
        return
    if not is_folder(run_dir):
        raise InputError(f"run_dir must be a folder; {str(run_dir)!r} is a file")
    with one_line_errors("read", run_dir):
        content = {entry.name for entry in run_dir.iterdir()}
    if CONFIG_FILE in content:
        raise InputError(f"run_dir: {str(run_dir)!r} holds a run; add --resume to continue it or choose another folder")
    if any(not _is_ours_and_empty(name) for name in content):
        raise InputError(f"run_dir: {str(run_dir)!r} is not empty; choose a folder that is empty or does not exist")


def check_spelling(path: Path, argument: str) -> None:
    """Raises InputError for what no run's folder can be called, and for links that lead nowhere."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # it could be written into no file
        text = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(f"{argument}: the name '{text}' is not UTF-8; choose one that is") from None
    check_name(path, argument)
    for link in () if exists(path) else (path, *path.parents):
        if link.is_symlink() and not exists(link):
            raise InputError(
                f"{argument}: {str(link)!r} is a link to {os.readlink(link)!r}, which does not exist; make that "
                "folder, or choose another"
            )


def check_resumable(run_dir: Path, command: str, part: bool = False) -> dict[str, Any]:
    """What the config.json of a run says that this command could continue.

    Raises:
      InputError: there is no such run.
    """
    check_spelling(run_dir, "resume")
    if not exists(run_dir):
        raise InputError(f"resume: there is no folder {str(run_dir)!r}; leave out --resume to start a run there")
    if not is_file(run_dir / CONFIG_FILE):
        raise InputError(f"resume: {str(run_dir)!r} holds no {CONFIG_FILE}, so it is not the folder of a run")
    recorded = read_config(run_dir, "resume")
    found = run_command(recorded)
    if "part_of" in recorded and not part:
        raise InputError(
            f"resume: {str(run_dir)!r} is a part of the run in {os.path.normpath(run_dir / recorded['part_of'])!r}; "
            "continue that"
        )
    if found != command:
        raise InputError(
            f"resume: the run in {str(run_dir)!r} is not one of python -m jaxdarts.{command}; "
            f"continue it with python -m jaxdarts.{found}"
        )
    return recorded


def _make_folder(run_dir: Path | None, name: str, settings: Mapping[str, Any]) -> tuple[Path, bool]:
    if run_dir is not None:
        is_new = not exists(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        return run_dir, is_new
    when = time.strftime("%Y%m%d-%H%M%S")
    name = f"{name}-{slug(str(settings.get('dataset', '')))}-seed{settings.get('seed', 0)}-{when}"
    number = 1
    while True:
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path, True
        except FileExistsError:
            number += 1


def slug(name: str) -> str:
    """`path/to/my space.toml` -> `my_space`, `npz:/data/x.npz` -> `x`, `s1` -> `s1`."""
    stem = Path(name.partition(":")[2] or name).stem
    return shorten(re.sub(r"[^A-Za-z0-9_.]+", "_", stem), 60).replace("...", "") or "data"


def _is_ours_and_empty(name: str) -> bool:
    """Left by a run that was killed before it had written anything: still counts as an empty folder."""
    return name == LOCK_FILE or is_temporary(name)
