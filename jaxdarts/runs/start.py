"""How does a command's run begin and end: its folder, its precision, its signals, its report?"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax

from jaxdarts.errors import InputError
from jaxdarts.networks import kernels
from jaxdarts.plans.base import Built
from jaxdarts.precision import check_devices, device_name, precision
from jaxdarts.runs import folder, tensorboard
from jaxdarts.runs.compilation import enable_compilation_cache
from jaxdarts.runs.config_json import CHANGEABLE, check_same_data, check_same_settings
from jaxdarts.runs.interrupt import catch_interrupts
from jaxdarts.runs.processes import from_first, is_first
from jaxdarts.runs.steps import traced_for
from jaxdarts.runs.store import Store
from jaxdarts.runs.surroundings import Surroundings


class Opened(NamedTuple):
    """A run between its folder's opening and closing."""

    store: Store
    around: Surroundings
    built: Built | None  # of the first stage


@contextlib.contextmanager
def started(
    settings: Any,
    run_dir: str | Path | None,
    resume: bool,
    stream: TextIO | None,
    build: Callable[[Mapping[str, Any]], tuple[Built | None, Mapping[str, Any]]],
    *,
    name: str,
    on_result: Callable[[Path], None],
    unit: str = "epoch",
) -> Iterator[Opened]:
    """A run's folder, held by this process, and what goes with it.

    Args:
      settings: of the command.
      run_dir: where its files go; None makes a new folder below `runs/`.
      resume: continue the run in `run_dir`.
      stream: where progress is shown; standard output if None.
      build: what config.json recorded (of a new run nothing) -> the first stage, and the facts for config.json. It is
        called before anything is written, so that bad input leaves no folder behind.
      name: how a new folder's name begins.
      on_result: called when a folder has its result: writes its report.
      unit: what a line of progress is about.

    Raises:
      InputError: something given cannot be used; nothing was compiled or written.
    """
    path = None if run_dir is None else Path(run_dir)
    check_devices()
    recorded = from_first(lambda: _check(settings, path, resume))
    devices = getattr(settings, "devices", 1)
    with precision(settings.precision), traced_for(devices):
        enable_compilation_cache()
        built, facts = build(recorded)
        keep = getattr(settings, "checkpoints_to_keep", 1)
        if resume:
            assert path is not None
            check_same_data(recorded, facts, settings.dataset)
            store = _by_first(lambda: folder.reopen(path, keep), keep)
        else:
            full = {"command": settings.command, **settings.flat()}
            store = _by_first(lambda: folder.create(path, folder.slug(name), full, facts, _device(), keep), keep)
        with store, catch_interrupts() as interrupt:
            around = Surroundings(
                settings.command,
                interrupt,
                stream if is_first() else io.StringIO(),  # one of several processes speaks
                _device_line(recorded.get("device")),
                getattr(settings, "checkpoint_every_minutes", 5.0),
                getattr(settings, "tensorboard", False),
                unit,
                on_result,
            )
            yield Opened(store, around, built)


def _device() -> str:
    """The device and what computes layers on it."""
    return device_name() + (f", kernels {kernels.described()}" if jax.default_backend() == "cpu" else "")


def _device_line(begun_on: str | None) -> str:
    """The device for people: also why it has no kernels, and of a continued run where it began, if that differs.

    There the last digits of what is computed may be others than those of an unbroken run.
    """
    now = _device()
    reason = kernels.why_none() if jax.default_backend() == "cpu" else None
    line = f"{now}: {reason}" if reason else now
    return line if begun_on in (None, now) else f"{line} (the run began on {begun_on}: last digits may differ)"


def _by_first(open_store: Callable[[], Store], keep: int) -> Store:
    """The store that the first process opens; in the others one that writes nothing."""
    opened: list[Store] = []

    def make() -> str:
        opened.append(open_store())
        return str(opened[0].path)

    where = Path(from_first(make))
    return opened[0] if opened else Store(where, where, keep)


def _check(settings: Any, run_dir: Path | None, resume: bool) -> dict[str, Any]:
    """What config.json recorded of a run to continue. Raises InputError if it can't, or if a new one can't be made."""
    if getattr(settings, "tensorboard", False):
        tensorboard.check_installed()
    if not resume:
        folder.check_creatable(run_dir)
        return {}
    if run_dir is None:
        raise InputError("resume: name the run to continue with --run-dir")
    recorded = folder.check_resumable(run_dir, settings.command)
    check_same_settings(settings.flat(), recorded, run_dir, CHANGEABLE)
    return recorded
