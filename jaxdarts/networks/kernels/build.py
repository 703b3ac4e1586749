"""How are the kernels compiled?

    python jaxdarts/networks/kernels/build.py             # again, after a change of source/
    python jaxdarts/networks/kernels/build.py -g -O1      # with more flags

The package's build calls this file by its path, where neither JAX nor the package is installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-w")
SOURCE, BUILT = (Path(__file__).parent / name for name in ("source", "built"))
# By level of vector instructions, the processor's flags that it needs beyond those of the level before, as Linux names
# them. There is a library of each, and the last one that a processor can run is loaded.
LEVELS: Mapping[str, Sequence[str]] = {
    "x86-64": (),
    "x86-64-v3": ("avx2", "fma", "bmi2"),
    "x86-64-v4": ("avx512f", "avx512dq", "avx512bw", "avx512vl"),
}


def levels_of(machine: str) -> list[str]:
    """What is built for a kind of machine: elsewhere than on x86 one library, for its plainest processor."""
    return list(LEVELS) if machine in ("x86_64", "AMD64") else [machine]


def library(level: str) -> Path:
    """Where a level's library is once it is built."""
    return BUILT / f"kernels-{level}.so"


def compile_all(flags: Sequence[str] = FLAGS) -> str | None:
    """Makes all libraries anew, all or none; returns what went wrong, if something did.

    Compilers are the command in the environment variable CXX, or c++. They run side by side, some 20 s each.
    """
    shutil.rmtree(BUILT, ignore_errors=True)
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if sys.platform not in ("linux", "darwin"):
        return f"nothing is known of building them on {sys.platform}"
    if not shutil.which(compiler[0]):
        return f"there is no C++ compiler {compiler[0]!r}; CXX names another"
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        return "there is no jaxlib, which has the headers"
    BUILT.mkdir(parents=True)
    common = [*compiler, *flags, f"-I{Path(jaxlib.origin).parent / 'include'}", *map(str, sorted(SOURCE.glob("*.cc")))]
    if sys.platform == "darwin":
        common += ["-undefined", "dynamic_lookup"]
    running = [
        subprocess.Popen(
            [*common, *([f"-march={level}"] if level in LEVELS else []), "-o", str(library(level))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for level in levels_of(platform.machine())
    ]
    said = [(process.communicate()[0], process.returncode) for process in running]
    failed = [text for text, code in said if code]
    if not failed:
        return None
    shutil.rmtree(BUILT)
    errors = [line for line in failed[0].splitlines() if "error" in line] or failed[0].splitlines()
    return errors[0] if errors else f"{compiler[0]} failed"


if __name__ == "__main__":
    reason = compile_all([*FLAGS, *sys.argv[1:]])
    sys.exit(f"error: {reason}" if reason else 0)
