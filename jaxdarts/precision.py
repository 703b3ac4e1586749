"""How precisely does a run compute, on what, and in how many programs?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.errors import InputError, shorten


def working_dtype(precision: str) -> Any:
    """Of w, alpha and the examples."""
    return jnp.dtype(jnp.float32 if precision == "bfloat16" else precision)


def compute_dtype(precision: str) -> Any:
    """Of what goes through the network in a step, if that is another."""
    return jnp.bfloat16 if precision == "bfloat16" else None


def is_whole(step_compilation: str) -> bool:
    """Whether a step is one program: `whole`, `parts`, or `auto`, which is parts on a CPU."""
    return step_compilation == "whole" or (step_compilation == "auto" and jax.default_backend() != "cpu")


def check_devices() -> None:
    """Raises InputError if JAX finds no device of the kind that JAX_PLATFORMS asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS") or "unset"
        reason = shorten(" ".join(str(error).split()), 200) or "there is none"
        raise InputError(
            f"no device can be used with the environment variable JAX_PLATFORMS {asked!r} ({reason}); "
            "JAX_PLATFORMS=cpu always works"
        ) from error


def device_name() -> str:
    """The first device as a person would name it, how many there are, and JAX's version."""
    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind}), {len(jax.devices())} of them, jax {jax.__version__}"


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Double precision for the length of a run if that is the name."""
    previous = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", name == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", previous)
