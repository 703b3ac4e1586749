"""How do users wait less for the compiler: quick settings, and a cache so that the next run starts at once?"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
from pathlib import Path

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

OPT_OUT = "JAXDARTS_COMPILATION_CACHE"  # set to 0, off, no or false

# Not --xla_cpu_use_fusion_emitters=false: jaxlib 0.11 no longer has it, and ends a process that names an unknown flag.
# An unknown extra option is passed over.
QUICK_COMPILATION = (
    "--xla_backend_extra_options="
    "xla_cpu_disable_loop_unrolling,xla_cpu_disable_slp_vectorizer,xla_cpu_disable_new_fusion_emitters"
)


def enable_compilation_cache(folder: str | Path | None = None) -> Path | None:
    """Lets JAX keep everything it compiles from now on, on disk.

    Args:
      folder: None is JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) if there is one, else `jaxdarts/compiled` in the
        user's cache folder with a part for each kind of processor, as compiled code may not run on another one.

    Returns:
      The folder in use; None if the environment variable JAXDARTS_COMPILATION_CACHE is 0, off, no or false, or if the
      folder cannot be written.
    """
    if os.environ.get(OPT_OUT, "").lower() in ("0", "off", "no", "false"):
        jax.config.update("jax_enable_compilation_cache", False)
        return None
    configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    try:
        chosen = folder or configured or _user_cache() / "jaxdarts" / "compiled" / _processor()
        if "://" not in str(chosen):  # else a bucket, which JAX reaches by itself
            Path(chosen).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=chosen):
                pass
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    # Hundreds of small functions run while a search is set up: together they take seconds, so they are kept as well.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    reset_cache()  # JAX decides whether to use a cache when it first compiles, which may have been before this
    # An entry torn by a kill is compiled again; that is no news to the user.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    return Path(chosen)


def quicken_compilation() -> None:
    """Adds options to XLA_FLAGS that halve the time the CPU backend compiles these networks in.

    Call it before anything is compiled; later it has no effect. The commands do, the library does not by itself. The
    generated loops are neither unrolled nor searched for vectorisable straight-line code, and fusions go through the
    older emitter, which needs no MLIR context for each: half the compile time, and steps as fast or faster
    (docs/performance.md). XLA_FLAGS with extra options of its own stays as it is; other backends look at none of these.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if QUICK_COMPILATION.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {QUICK_COMPILATION}".strip()


def _user_cache() -> Path:
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured)
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _processor() -> str:
    """A name for the processor's instruction set."""
    try:
        found = re.search(r"^(flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        features = " ".join(sorted(found[2].split())) if found else platform.processor()
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
