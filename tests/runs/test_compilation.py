"""Is compiled code kept where it should be, and quietly not where it can't?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from jaxdarts.runs.compilation import OPT_OUT, enable_compilation_cache

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
