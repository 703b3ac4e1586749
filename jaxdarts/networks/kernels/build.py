"""How are the kernels compiled?

    python3 -m jaxdarts.networks.kernels                  # again, where the package is installed
    python3 jaxdarts/networks/kernels/build.py -g -O1     # with more flags

The package's build calls this file by its path, where neither JAX nor the package is installed.
"""

from __future__ import annotations

import hashlib
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


def digest() -> str:
    """Of all that a library is made from: libraries of other sources may read arguments in another order."""
    sources = [Path(__file__), *sorted(path for path in SOURCE.iterdir() if path.suffix in (".cc", ".h"))]
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)).hexdigest()


def built_from() -> str | None:
    """The digest of what the libraries were built from; None where there are none."""
    try:
        return (BUILT / "digest").read_text() if any(BUILT.glob("*.so")) else None
    except OSError:  # libraries by an earlier version, or a compilation that was stopped
        return ""


def obstacle() -> str | None:
    """What is missing here to build them, if something is."""
    compiler = _compiler()[0]
    if sys.platform not in ("linux", "darwin"):
        return f"nothing is known of building them on {sys.platform}"
    if not shutil.which(compiler):
        return f"there is no C++ compiler {compiler!r}; CXX names another"
    return None if _headers() else "there is no jaxlib, which has the headers"


def compile_all(flags: Sequence[str] = FLAGS) -> str | None:
    """Makes all libraries anew, all or none; returns what went wrong, if something did.

    Compilers are the command in the environment variable CXX, or c++. They run side by side, some 20 s each.
    """
    shutil.rmtree(BUILT, ignore_errors=True)
    if reason := obstacle():
        return reason
    BUILT.mkdir(parents=True)
    compiler, made_from = _compiler(), digest()
    common = [*compiler, *flags, f"-I{_headers()}", *map(str, sorted(SOURCE.glob("*.cc")))]
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
        (BUILT / "digest").write_text(made_from)
        return None
    shutil.rmtree(BUILT)
    errors = [line for line in failed[0].splitlines() if "error" in line] or failed[0].splitlines()
    return errors[0] if errors else f"{compiler[0]} failed"


def main() -> None:
    """Builds them with the flags on the command line beside our own."""
    reason = compile_all([*FLAGS, *sys.argv[1:]])
    sys.exit(f"error: {reason}" if reason else 0)


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "")) or ["c++"]


def _headers() -> Path | None:
    jaxlib = importlib.util.find_spec("jaxlib")
    return None if jaxlib is None or jaxlib.origin is None else Path(jaxlib.origin).parent / "include"


if __name__ == "__main__":
    main()
