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


@pytest.mark.skipif(not allocator._is_new_glibc(), reason="needs glibc")
@pytest.mark.parametrize(("image_size", "kept"), [(16, True), (512, False), (None, False)])
def test_freed_memory_is_kept_for_small_networks(image_size: int | None, kept: bool) -> None:
    code = (
        "import resource\n"
        "from jaxdarts.runs.allocator import keep_freed_memory\n"
        f"keep_freed_memory(None if {image_size} is None else 32 * {image_size or 0} ** 2 * 8 * 3)\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    bytearray(1 << 26)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults()\n"
        "print(faults())\n"
    )
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 100) == kept  # 16,384 pages of 4 KB otherwise
