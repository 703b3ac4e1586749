"""How does a command get its memory in large pages, which makes steps up to 1.4 times as fast?"""

from __future__ import annotations

import os
import platform
import sys

TUNABLE = "glibc.malloc.hugetlb"


def restart_with_large_pages() -> None:
    """Starts the running command anew, in the same process, with the C library asking for large pages.

    A step's buffers are given back to the system after it, and taken again page by page in the next one: with pages of
    4 KB that costs as much as computing. The setting is read when a process starts, hence the restart, which takes some
    hundredths of a second before anything is imported. Nothing happens where the C library is not glibc 2.35 or newer,
    or if the environment variable GLIBC_TUNABLES names the setting already.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if TUNABLE in tunables or not _is_new_glibc() or not sys.orig_argv[1:]:
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{TUNABLE}=1".lstrip(":")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_new_glibc() -> bool:
    name, version = platform.libc_ver()
    try:
        return sys.platform == "linux" and name == "glibc" and tuple(map(int, version.split(".")[:2])) >= (2, 35)
    except ValueError:
        return False
