"""How does a command get its memory in large pages, and keep it between steps, which makes them faster?"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from typing import Any

from jaxdarts.runs.messages import flush_streams, open_closed_streams
from jaxdarts.sizes import SMALL

_TEXT_NODES = 8  # of a recurrent cell, about
TUNABLE = "glibc.malloc.hugetlb"
# Options of mallopt(3): all threads share one heap, which is never mapped apart and never trimmed.
_KEEP = {"M_ARENA_MAX": (-8, 1), "M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}


def restart_with_large_pages() -> None:
    """Starts the running command anew, in the same process, with the C library asking for large pages.

    A step's buffers are given back to the system after it, and taken again page by page in the next one: with pages of
    4 KB that costs as much as computing. The setting is read when a process starts, hence the restart, which takes some
    hundredths of a second before anything is imported. Nothing happens where the C library is not glibc 2.35 or newer,
    or if the environment variable GLIBC_TUNABLES names the setting already.
    """
    open_closed_streams()
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in tunables or not _is_new_glibc() or not sys.orig_argv[1:]:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{TUNABLE}=1".lstrip(":")
    flush_streams()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def step_size(settings: Any) -> int | None:
    """How much a step of a search or a training holds, in numbers a layer and cell; None: not known yet."""
    if hasattr(settings, "hidden"):
        return int(settings.batch_size * settings.sequence_length * settings.hidden * _TEXT_NODES)
    if settings.image_size is None:
        return None
    return int(settings.batch_size * settings.image_size**2 * settings.channels * settings.cells)


def keep_freed_memory(size: int | None) -> None:
    """Makes the C library keep what a step frees for the next one, if the network is small enough for that.

    Otherwise a step's buffers go back to the system and are cleared page by page when they are taken again. In return
    the heap grows by up to half: large networks (`size` as of `step_size`), and those whose size is not known yet, are
    left alone. Call it before JAX starts its threads, which get heaps of their own otherwise. Nothing happens without
    glibc.
    """
    small = size is not None and size <= SMALL
    if small and _is_new_glibc():
        library = ctypes.CDLL(None)
        for option, value in _KEEP.values():
            library.mallopt(option, value)


def _is_new_glibc() -> bool:
    name, version = platform.libc_ver()
    try:
        return sys.platform == "linux" and name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except ValueError:
        return False
