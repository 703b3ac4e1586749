"""Which library of kernels is loaded? The one for the widest vectors that the processor has, if any was built.

And if none is, why not? Who expects kernels should not have to guess.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.errors import InputError, shorten
from jaxdarts.networks.kernels.build import LEVELS, built_from, digest, levels_of, library, obstacle
from jaxdarts.networks.layers import batch_is_apart

VARIABLE = "JAXDARTS_KERNELS"
"""Environment variable: `on` (the default: where they were built), `off`, or a level of vector instructions."""
BUILD = "python3 -m jaxdarts.networks.kernels"
"""The command that builds them anew."""
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
    return _chosen().level or "none"


def why_none() -> str | None:
    """Why no kernels are used on a CPU, and what can be done, in a phrase for people; None where they are used."""
    return _chosen().reason


class _Choice(NamedTuple):
    level: str | None
    reason: str | None  # why there is no level


def runnable() -> tuple[str, ...]:
    """The levels that were built from these sources and that this processor can run, the plainest first."""
    return _found().levels


def _chosen() -> _Choice:
    wanted = os.environ.get(VARIABLE, "on")
    if wanted == "off":
        return _Choice(None, f"{VARIABLE} is off")
    levels, reason = _found()
    if wanted != "on" and wanted not in levels:
        choices = "".join(f", {level}" for level in levels)
        raise InputError(f"{VARIABLE} must be on, off{choices}; got {wanted!r}" + (f" ({reason})" if reason else ""))
    if not levels:
        return _Choice(None, reason)
    # A process has one library: kernels of two cannot have one name.
    return _loaded(tuple(reversed(levels)) if wanted == "on" else (wanted,))


class _Found(NamedTuple):
    levels: tuple[str, ...]
    reason: str | None  # why there are none


@cache
def _found() -> _Found:
    origin = built_from()
    if origin is None:
        return _Found((), f"not built, {obstacle() or f'{BUILD} does it'}")
    if origin != digest():
        return _Found((), f"built from other sources, {BUILD} builds them anew")
    flags, needed, levels = _flags(), set(), []
    for level in levels_of(platform.machine()):
        needed |= set(LEVELS.get(level, ()))
        if needed <= flags and library(level).is_file():
            levels.append(level)
    return _Found(tuple(levels), None if levels else f"built for another processor, {BUILD} builds them anew")


@cache
def _loaded(levels: tuple[str, ...]) -> _Choice:
    """The first of the levels whose library can be loaded."""
    reasons = []
    for level in levels:
        try:
            functions = ctypes.cdll.LoadLibrary(str(library(level)))
            capsules = {name: jax.ffi.pycapsule(getattr(functions, name)) for name in FUNCTIONS}
            for name, capsule in capsules.items():
                jax.ffi.register_ffi_target(f"jaxdarts_{name}", capsule, platform="cpu")
        except (OSError, AttributeError, RuntimeError) as error:  # of another system, or for another JAX
            reasons.append(" ".join(str(error).split()))
            continue
        return _Choice(level, None)
    return _Choice(None, f"could not be loaded ({shorten(reasons[0])}), {BUILD} builds them anew")


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: the plainest level
        return set()
    return next((set(line.split(":")[1].split()) for line in text.splitlines() if line.startswith("flags")), set())
