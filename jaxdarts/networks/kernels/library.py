"""Which library of kernels is loaded? The one for the widest vectors that the processor has, if any was built."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxdarts.errors import InputError
from jaxdarts.networks.kernels.build import LEVELS, levels_of, library
from jaxdarts.networks.layers import batch_is_apart

VARIABLE = "JAXDARTS_KERNELS"
"""Environment variable: `on` (the default: where they were built), `off`, or a level of vector instructions."""
_LAYERS = ("Separable", "Pool", "Recurrent")
_WAYS = ("Forward", "Backward")
FUNCTIONS = (
    *(f"{layer}{way}{tangent}" for layer in _LAYERS for way in _WAYS for tangent in ("", "Tangent")),
    "Mix",
    "MixBack",
    "Join",
    "Split",
)


def usable(dtype: jax.typing.DTypeLike, target: str | None = None) -> bool:
    """Whether layers that are traced now are computed by kernels.

    They are for float32 and float64, where programs are made for a CPU (`target`, or JAX's default backend) and one
    device has the whole batch.

    Raises:
      InputError: the environment variable JAXDARTS_KERNELS says something else than `on`, `off` or a level that this
        processor has and that was built.
    """
    return (
        (target or jax.default_backend()) == "cpu"
        and jnp.dtype(dtype) in (jnp.float32, jnp.float64)
        and not batch_is_apart()
        and described() != "none"
    )


def described() -> str:
    """What is used on a CPU, for people and records: a level of vector instructions, or `none`."""
    wanted = os.environ.get(VARIABLE, "on")
    if wanted == "off":
        return "none"
    levels = runnable()
    if wanted != "on" and wanted not in levels:
        raise InputError(f"{VARIABLE} must be on, off{''.join(f', {level}' for level in levels)}; got {wanted!r}")
    # A process has one library: kernels of two cannot have one name.
    return _loaded(tuple(reversed(levels)) if wanted == "on" else (wanted,)) or "none"


@cache
def runnable() -> tuple[str, ...]:
    """The levels that were built and that this processor can run, the plainest first."""
    flags, needed, found = _flags(), set(), []
    for level in levels_of(platform.machine()):
        needed |= set(LEVELS.get(level, ()))
        if needed <= flags and library(level).is_file():
            found.append(level)
    return tuple(found)


@cache
def _loaded(levels: tuple[str, ...]) -> str | None:
    """The first of the levels whose library can be loaded."""
    for level in levels:
        try:
            functions = ctypes.cdll.LoadLibrary(str(library(level)))
            capsules = {name: jax.ffi.pycapsule(getattr(functions, name)) for name in FUNCTIONS}
            for name, capsule in capsules.items():
                jax.ffi.register_ffi_target(f"jaxdarts_{name}", capsule, platform="cpu")
        except (OSError, AttributeError, RuntimeError):  # built for another system, another version, or another JAX
            continue
        return level
    return None


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: the plainest level
        return set()
    return next((set(line.split(":")[1].split()) for line in text.splitlines() if line.startswith("flags")), set())
