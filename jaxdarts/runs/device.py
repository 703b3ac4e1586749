"""Where does a run compute, and how precisely?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax


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
