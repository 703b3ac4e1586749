"""Fixtures and settings for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import jax
import pytest

from jaxdarts.runs.compilation import quicken_compilation

_CACHE_SETTINGS = {"jax_persistent_cache_min_compile_time_secs": 0.5, "jax_persistent_cache_min_entry_size_bytes": -1}


def pytest_configure(config: pytest.Config) -> None:
    """Quick compilation, kept in pytest's own cache folder: most of the suite's time is compilation.

    The machine code is hardly optimised, here and in commands that tests start, which halves the time; what is computed
    is the same program.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
    quicken_compilation()
    cache = getattr(config, "cache", None)
    if cache is None:  # -p no:cacheprovider
        return
    settings = {"jax_compilation_cache_dir": str(cache.mkdir("compiled")), **_CACHE_SETTINGS}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))  # for commands that tests start


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Drops a module's compiled programs: those of the whole suite are more memory mappings than Linux allows."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for one test."""
    previous = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", previous)
