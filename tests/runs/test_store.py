"""Is a run's folder made only when it should be, held by one process, never half written, and whole when it goes on?"""

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
from jaxdarts.runs.store import (
    Store,
    check_creatable,
    check_resumable,
    check_same_data,
    check_same_settings,
    create,
    reopen,
    slug,
)

CONFIG = {"space": "s1", "epochs": 3, "l2": 3e-4, "seed": 3}


def new(path: Path | None, config: dict[str, Any] = CONFIG, command: str = "search", **facts: Any) -> Store:
    settings = {"command": command, "dataset": "digits", **config}
    return create(path, "s1", settings, facts, device="2 cores", keep=3)


def again(path: Path, config: dict[str, Any] = CONFIG, command: str = "search") -> Store:
    check_same_settings(config, check_resumable(path, command), path, ("seed",))
    return reopen(path, 3)


def state(step: int) -> dict[str, Any]:
    return {"w": jnp.full(3, step, jnp.float32)}


def half_way(path: Path, epochs: int = 3) -> Path:
    """A run of so many epochs of 10 steps, left."""
    with new(path) as store:
        for epoch in range(epochs):
            store.append({"epoch": epoch, "loss": 0.5})
            store.write_json(f"genotypes/epoch_{epoch:04d}.json", {"epoch": epoch})
            store.save(10 * (epoch + 1), state(epoch), {"events": []})
    return path


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


def test_records_come_back_as_a_file_gives_them(tmp_path: Path) -> None:
    with new(tmp_path / "run") as store:
        store.append({"epoch": np.int64(0), "loss": np.nan, "alpha": {"normal": np.eye(2, dtype=np.float32)}})
        (added,) = store.records
        assert added == {"epoch": 0, "loss": None, "alpha": {"normal": [[1.0, 0.0], [0.0, 1.0]]}}
        assert added == json.loads((store.path / "metrics.jsonl").read_text())
    with again(tmp_path / "run") as store:
        store.load()
        assert store.records == [added]


def test_forgotten_epochs_leave_no_line_and_no_file(tmp_path: Path) -> None:
    half_way(tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    lines = metrics.read_bytes().replace(b'"epoch": 0,', b'"epoch":0  ,').splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines))
    (tmp_path / "run" / "genotypes" / "epoch_mine.json").touch()
    with again(tmp_path / "run") as store:
        store.forget(2)
        assert [record["epoch"] for record in store.records] == [0, 1]
    assert metrics.read_bytes() == b"".join(lines[:2])
    names = ["epoch_0000.json", "epoch_0001.json", "epoch_mine.json"]
    assert sorted(os.listdir(tmp_path / "run" / "genotypes")) == names


def test_a_run_goes_on_where_its_checkpoint_stands(tmp_path: Path) -> None:
    half_way(tmp_path / "run")
    with again(tmp_path / "run") as store:
        restored = store.restore_latest(state(0))
        assert restored is not None and (restored.step, restored.extra) == (30, {"events": []})
        assert float(restored.state["w"][0]) == 2.0
        assert float(store.restore(20, state(0)).state["w"][0]) == 1.0
        store.append({"epoch": 3, "loss": 0.1})  # killed before the checkpoint
    with again(tmp_path / "run") as store:
        store.forget(3)
        assert [record["epoch"] for record in store.records] == [0, 1, 2]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("lines", "missing"), [((), 0), (None, 0), ((0, 1), 2), ((0, 2), 1), ((0, 1, 1, 2), 2), ((1, 2), 0)]
)
def test_numbers_that_are_missing_are_named(tmp_path: Path, lines: tuple[int, ...] | None, missing: int) -> None:
    half_way(tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    whole = metrics.read_text().splitlines(keepends=True)
    metrics.unlink()
    if lines is not None:
        metrics.write_text("".join(whole[number] for number in lines))
    before = sorted(tmp_path.rglob("*"))
    message = f"run/metrics.jsonl' lacks epoch {missing} .counted from 0., and the checkpoint is at the end of epoch 2"
    with again(tmp_path / "run") as store, pytest.raises(RunError, match=message) as caught:
        store.forget(3)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_events_are_a_file_only_if_there_are_any(tmp_path: Path) -> None:
    with new(tmp_path / "run") as store:
        store.write_events([])
        assert not (store.path / "events.json").exists()
        store.write_events([{"epoch": 1}])
        assert json.loads((store.path / "events.json").read_text()) == [{"epoch": 1}]
        store.write_events([])
        assert not (store.path / "events.json").exists()


def test_a_part_keeps_what_it_recorded(tmp_path: Path) -> None:
    with new(tmp_path / "run", members=[1], class_names=["a"]) as store:
        part = store.part("member_0", {"command": "search", "seed": 7})
        part.append({"epoch": 0})
        part.part("retrain", {"command": "evaluate"}).save(1, state(1))
    config = tmp_path / "run" / "member_0" / "config.json"
    recorded = json.loads(config.read_text())
    assert recorded["seed"] == 7 and recorded["class_names"] == ["a"]
    assert recorded["part_of"] == ".." and "members" not in recorded and "jax" in recorded["versions"]
    with pytest.raises(InputError, match="is a part of the run in .*run'; continue that"):
        again(tmp_path / "run" / "member_0")
    with pytest.raises(InputError, match="is a part of the run in .*run'; continue that"):
        again(tmp_path / "run" / "member_0" / "retrain")
    config.write_text(config.read_text().replace('"jax": "', '"jax": "0.0.'))
    before = config.read_bytes()
    with again(tmp_path / "run") as store:
        part = store.part("member_0", {"command": "search", "seed": 7})
        part.load()
        assert part.records == [{"epoch": 0}]
        part.write_json("diagnostics.json", {})
        restored = part.part("retrain", {}).restore_latest(state(0))
        assert restored is not None and restored.step == 1
    assert config.read_bytes() == before


def test_a_stage_in_memory_leaves_no_file(tmp_path: Path) -> None:
    with new(tmp_path / "run") as run:
        store = Store.in_memory(run)
        store.append({"epoch": 0})
        store.save(1, state(1))
        store.write_text("x", "y")
        store.forget(0)
        assert store.restore_latest(state(0)) is None and store.records == [{"epoch": 0}]
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "lock"]


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


def test_settings_that_differ_are_named_with_both_values(tmp_path: Path) -> None:
    recorded = {"epochs": 3, "l2": 0.1, "cells": [1, 2], "seed": 0, "flag": True}
    now = {"epochs": 4, "l2": 0.1, "cells": (1, 2), "seed": 1, "flag": 1, "new": 5}
    with pytest.raises(InputError) as caught:
        check_same_settings(now, recorded, tmp_path, ["seed"])
    assert "in epochs (3 in the run, 4 now), flag (True in the run, 1 now); leave" in str(caught.value)


def test_data_that_changed_are_refused() -> None:
    check_same_data({"data_digest": "12"}, {"data_digest": "12"}, "npz:d.npz")
    check_same_data({}, {"data_digest": "12"}, "npz:d.npz")  # of an older version
    with pytest.raises(InputError, match="data of 'npz:d.npz' have changed .* began .digest 12 then, 34 now."):
        check_same_data({"data_digest": "12"}, {"data_digest": "34"}, "npz:d.npz")


HOLD = """
import sys, time
from pathlib import Path
from jaxdarts.runs.store import create
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


def test_other_processes_than_the_first_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new(tmp_path / "run") as store:
        monkeypatch.setattr("jaxdarts.runs.store.is_first", lambda: False)
        other = Store(store.path, store.path, 3)
        other.append({"epoch": 0})
        other.append({"epoch": 1})
        other.write_text("report.html", "x")
        other.write_events([])
        other.save(1, state(1))
        other.part("stage_2", {}).append({"epoch": 0})
        assert other.records == [{"epoch": 0}, {"epoch": 1}]
    assert sorted(os.listdir(tmp_path / "run")) == ["config.json", "lock"]
