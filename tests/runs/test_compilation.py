"""Is compiled code kept where it should be, and quietly not where it can't?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxdarts.runs.compilation import OPT_OUT, QUICK_COMPILATION, enable_compilation_cache, quicken_compilation

SETTINGS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def settings_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    monkeypatch.delenv(OPT_OUT, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def test_everything_compiled_is_kept(tmp_path: Path) -> None:
    folder = enable_compilation_cache(tmp_path / "cache")
    assert folder == tmp_path / "cache" and not any(folder.iterdir())
    assert jax.jit(lambda x: x * 3.25 + 1)(jnp.ones(2))[0] == 4.25
    assert any(entry.name.endswith("-cache") for entry in folder.iterdir())


def test_the_default_is_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = enable_compilation_cache()
    assert folder is not None and folder.parent == tmp_path / "jaxdarts" / "compiled" and folder.is_dir()


def test_jax_own_setting_is_respected(tmp_path: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert enable_compilation_cache() == tmp_path / "mine"


def test_opting_out_and_unwritable_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert enable_compilation_cache(tmp_path / "file" / "cache") is None
    assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
    monkeypatch.setenv(OPT_OUT, "off")
    assert enable_compilation_cache(tmp_path / "cache") is None
    assert not getattr(jax.config, SETTINGS[0]) and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, QUICK_COMPILATION),
        ("--xla_dump_to=x", f"--xla_dump_to=x {QUICK_COMPILATION}"),
        ("--xla_backend_extra_options=mine", "--xla_backend_extra_options=mine"),
        (QUICK_COMPILATION, QUICK_COMPILATION),
    ],
)
def test_flags_are_added_once(given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    quicken_compilation()
    assert os.environ["XLA_FLAGS"] == expected


def test_every_flag_is_known_to_this_jaxlib() -> None:
    """An unknown one would end the process."""
    code = "import jaxdarts; jaxdarts.quicken_compilation(); import jax; print(jax.jit(lambda x: x + 1)(1))"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2"), done.stderr
