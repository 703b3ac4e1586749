"""Are a run's files never half written, and whole when it goes on?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.store import Store
from tests.runs.folders import again, half_way, new, state


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
