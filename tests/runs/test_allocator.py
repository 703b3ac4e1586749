"""Does a command start anew with large pages, once, and keep its arguments?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaxdarts.runs import allocator


@pytest.mark.parametrize("given", [None, "glibc.malloc.hugetlb=0", "glibc.malloc.arena_max=2"])
def test_restart(given: str | None) -> None:
    code = (
        "import os, sys\n"
        "from jaxdarts.runs.allocator import restart_with_large_pages\n"
        "print('started', flush=True)\n"
        "restart_with_large_pages()\n"
        "print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if given is not None:
        environment["GLIBC_TUNABLES"] = given
    done = subprocess.run(
        [sys.executable, "-c", code, "--a b", "c"], env=environment, capture_output=True, text=True, check=True
    )
    *starts, last = done.stdout.splitlines()
    if not allocator._is_new_glibc():
        assert (len(starts), last) == (1, f"{given} ['--a b', 'c']")
    elif given is not None and "hugetlb" in given:
        assert (len(starts), last) == (1, "glibc.malloc.hugetlb=0 ['--a b', 'c']")
    else:
        before = "" if given is None else f"{given}:"
        assert (len(starts), last) == (2, f"{before}glibc.malloc.hugetlb=1 ['--a b', 'c']")
