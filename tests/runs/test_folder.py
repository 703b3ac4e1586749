"""Is a run's folder made only when it should be, held by one process, and never half written?"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdarts.errors import InputError, RunError
from jaxdarts.runs.evaluate.config import EvaluateConfig
from jaxdarts.runs.folder import RunFolder, check_creatable, check_resumable, check_same_config, stored_config
from jaxdarts.runs.search.config import SearchConfig

CONFIG = SearchConfig(seed=3)


def test_a_new_folder_records_the_whole_configuration(tmp_path: Path) -> None:
    with RunFolder.create(CONFIG, tmp_path / "a" / "run", device="2 cores") as folder:
        recorded = json.loads((folder.path / "config.json").read_text())
        assert dataclasses.asdict(CONFIG).items() <= recorded.items()
        assert recorded["device"] == "2 cores" and "jax" in recorded["versions"]
        folder.write_json("genotypes/epoch_0000.json", {"a": 1})
        assert json.loads((folder.path / "genotypes" / "epoch_0000.json").read_text()) == {"a": 1}
    assert stored_config(tmp_path / "a" / "run") == dataclasses.asdict(CONFIG)


def test_default_names_say_what_the_run_is_and_never_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = SearchConfig(space="my/own space.toml", dataset="npz:/data/cells.npz", seed=3)
    folders = [RunFolder.create(config) for _ in range(3)]
    assert len({folder.path for folder in folders}) == 3
    assert all(folder.path.name.startswith("own_space-cells-seed3-") for folder in folders)
    folders.append(RunFolder.create(EvaluateConfig(genotype="runs/s1-run/", dataset="cifar10", seed=4)))
    assert folders[-1].path.name.startswith("evaluate-s1_run-cifar10-seed4-")
    for folder in folders:
        folder.close()


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    RunFolder.create(CONFIG, tmp_path / "run").close()
    with pytest.raises(InputError, match="holds a run; add --resume"):
        RunFolder.create(CONFIG, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for attempt in (lambda path: RunFolder.create(CONFIG, path), check_creatable):
        with pytest.raises(InputError, match="is not empty"):
            attempt(tmp_path / "other")
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        RunFolder.create(CONFIG, tmp_path / "other" / "thesis.tex")


def test_a_folder_of_another_command_is_not_continued(tmp_path: Path) -> None:
    evaluation = EvaluateConfig(genotype="DARTS_V2")
    RunFolder.create(evaluation, tmp_path / "run").close()
    with pytest.raises(InputError, match=r"not one of python -m jaxdarts.search; .* python -m jaxdarts.evaluate"):
        RunFolder.reopen(CONFIG, tmp_path / "run")
    RunFolder.reopen(evaluation, tmp_path / "run").close()
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))  # names no command
    RunFolder.reopen(CONFIG, tmp_path / "older").close()


def test_what_a_killed_start_leaves_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("99999\n")
    (tmp_path / ".config.json.99999.tmp").write_text("{")
    RunFolder.create(CONFIG, tmp_path).close()


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    for attempt in (lambda path: RunFolder.reopen(CONFIG, path), check_resumable):
        with pytest.raises(InputError, match="no folder .*leave out --resume"):
            attempt(tmp_path / "none")
        with pytest.raises(InputError, match="no config.json"):
            attempt(tmp_path)
    assert not (tmp_path / "none").exists() and not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text('{"space": ')
    with pytest.raises(InputError, match="cannot read"):
        RunFolder.reopen(CONFIG, tmp_path)


def test_a_configuration_that_differs_is_refused_with_both_values(tmp_path: Path) -> None:
    RunFolder.create(CONFIG, tmp_path / "run").close()
    changed = dataclasses.replace(CONFIG, epochs=99, l2=0.5, checkpoints_to_keep=7, data_dir="elsewhere")
    with pytest.raises(InputError) as caught:
        check_same_config(changed, tmp_path / "run")
    message = str(caught.value)
    assert f"epochs ({CONFIG.epochs} in the run, 99 now), l2 (0.0003 in the run, 0.5 now);" in message
    assert "checkpoints_to_keep" not in message and "data_dir" not in message and "\n" not in message
    RunFolder.reopen(dataclasses.replace(CONFIG, checkpoints_to_keep=7), tmp_path / "run").close()


def test_torn_writes_are_swept_on_resume(tmp_path: Path) -> None:
    RunFolder.create(CONFIG, tmp_path / "run").close()
    torn = tmp_path / "run" / ".report.html.123.tmp"
    torn.write_text("<ht")
    RunFolder.reopen(CONFIG, tmp_path / "run").close()
    assert not torn.exists()


def test_nothing_is_left_where_the_first_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot create the run folder .*: Not a directory"):
        RunFolder.create(CONFIG, tmp_path / "file" / "run")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # as a full disk
    try:
        with pytest.raises(RunError, match="cannot write .*: File too large") as caught:
            RunFolder.create(CONFIG, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


HOLD = """
import sys, time
from pathlib import Path
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.folder import RunFolder
folder = RunFolder.create(SearchConfig(seed=3), Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"in use by process {holder.pid};"):
            RunFolder.reopen(CONFIG, path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait(10)
        with RunFolder.reopen(CONFIG, path), pytest.raises(InputError, match=f"in use by process {os.getpid()};"):
            RunFolder.reopen(CONFIG, path)
        RunFolder.reopen(CONFIG, path).close()
    finally:
        holder.kill()
        holder.wait(10)
        assert holder.stdout is not None
        holder.stdout.close()
