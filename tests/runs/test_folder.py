"""Is a run's folder made only when it should be, held by one process, and continued only by the same run?"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.folder import check_creatable, check_resumable, slug
from tests.runs.folders import CONFIG, again, new


def test_a_new_folder_records_the_settings_and_what_is_beside_them(tmp_path: Path) -> None:
    facts = {"class_names": ("a", "b"), "data_digest": {"train": "12"}}
    with new(tmp_path / "a" / "run", **facts) as store:
        recorded = json.loads((store.path / "config.json").read_text())
        assert CONFIG.items() <= recorded.items() and recorded == store.read_config()
        assert recorded["device"] == "2 cores" and "jax" in recorded["versions"]
        assert recorded["class_names"] == ["a", "b"] and recorded["command"] == "search"
        assert recorded["started_in"] == os.getcwd()
        store.write_json("genotypes/epoch_0000.json", {"a": np.float32(0.5), "b": [np.nan, jnp.arange(2)]})
        assert json.loads((store.path / "genotypes" / "epoch_0000.json").read_text()) == {"a": 0.5, "b": [None, [0, 1]]}


def test_default_names_never_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stores = [new(None) for _ in range(3)]
    assert len({store.path for store in stores}) == 3
    assert all(store.path.match("runs/s1-digits-seed3-*") for store in stores)
    names = ["my/own space.toml", "npz:/data/cells.npz", "runs/s1-run/"]
    assert [slug(name) for name in names] == ["own_space", "cells", "s1_run"]
    assert 0 < len(slug("x" * 300)) <= 60 and slug("..")
    for store in stores:
        store.close()


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    new(tmp_path / "run").close()
    with pytest.raises(InputError, match="holds a run; add --resume"):
        new(tmp_path / "run")
    (tmp_path / "other").mkdir()
    for name in ("thesis.tex", ".notes.tmp"):
        (tmp_path / "other" / name).touch()
        with pytest.raises(InputError, match="is not empty"):
            new(tmp_path / "other")
        assert os.listdir(tmp_path / "other") == [name]
        (tmp_path / "other" / name).unlink()


def test_what_a_killed_start_leaves_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999\n")
    (tmp_path / ".jaxdarts-0123456789abcdef.tmp").write_text("{")
    new(tmp_path).close()


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    new(tmp_path / "run", command="evaluate").close()
    with pytest.raises(InputError, match=r"not one of python -m jaxdarts.search; .* python -m jaxdarts.evaluate"):
        again(tmp_path / "run")
    again(tmp_path / "run", command="evaluate").close()
    with pytest.raises(InputError, match=r"differs from .*config.json' in epochs \(3 in the run, 9 now\); leave"):
        again(tmp_path / "run", {**CONFIG, "epochs": 9, "seed": 7}, "evaluate")
    again(tmp_path / "run", {**CONFIG, "seed": 7}, "evaluate").close()


def test_only_its_own_torn_writes_are_swept_on_resume(tmp_path: Path) -> None:
    new(tmp_path / "run").close()
    name = ".jaxdarts-0123456789abcdef.tmp"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "elsewhere")
    for folder in ("member_0/checkpoints", "evaluate"):
        (tmp_path / "run" / folder).mkdir(parents=True)
    (tmp_path / "run" / "evaluate" / "lock").touch()  # a run of its own, which may be writing
    places = [tmp_path / place / name for place in ("run", "run/member_0/checkpoints", "run/evaluate", "elsewhere")]
    for place in places:
        place.write_text("<ht")
    (tmp_path / "run" / ".mine.tmp").touch()
    again(tmp_path / "run").close()
    assert [place.exists() for place in places] == [False, False, True, True]
    assert (tmp_path / "run" / ".mine.tmp").exists()


def test_nothing_is_left_where_the_first_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot create the run folder .*: Not a directory"):
        new(tmp_path / "file" / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # as a full disk
    try:
        with pytest.raises(RunError, match="cannot write .*: File too large") as caught:
            new(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("check", [check_creatable, lambda path: check_resumable(path, "search")])
def test_names_that_no_run_can_have(tmp_path: Path, check: Any) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "purged")
    refused = {
        os.fsdecode(b"caf\xe9"): r"caf\\xe9' is not UTF-8",
        "x" * 300: "can't be a name: it is too long",
        "a\0b": "can't be a name",
        "link": "is a link to '.*purged', which does not exist",
        "link/run": "link' is a link to '.*purged', which does not exist",
    }
    for name, message in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            check(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / "für").mkdir()
    check_creatable(tmp_path / "für")


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder .*leave out --resume"):
        check_resumable(tmp_path / "none", "search")
    with pytest.raises(InputError, match="no config.json"):
        check_resumable(tmp_path, "search")
    for content in ('{"space": ', "[" * 100_000, "[]", '{"space": "\xff'):
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match="resume: .*config.json"):
            check_resumable(tmp_path, "search")
    (tmp_path / "config.json").write_text('\ufeff{"space": "s1"}')  # an editor's mark; names no command
    assert check_resumable(tmp_path, "search") == {"space": "s1"}


HOLD = """
import sys, time
from pathlib import Path
from jaxdarts.runs.folder import create
store = create(Path(sys.argv[1]), "s1", {"space": "s1"}, {}, "cpu", 3)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path, config = tmp_path / "run", {"space": "s1"}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid};"):
            again(path, config)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(10)
        with again(path, config), pytest.raises(InputError, match=f"in use by process {os.getpid()};"):
            again(path, config)
        again(path, config).close()
    finally:
        holder.kill()
        holder.wait(10)
        assert holder.stdout is not None
        holder.stdout.close()
