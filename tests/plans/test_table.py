"""A whole table as a function: are its entries evaluations, and does nothing that interrupts it change them?"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxdarts.errors import InputError, RunError, RunInterrupted
from jaxdarts.evaluate import run_evaluation
from jaxdarts.plans.training_settings import EvaluateConfig
from jaxdarts.reports.table import write_table_report
from jaxdarts.reports.table_record import Entry, read_table
from jaxdarts.runs import engine
from jaxdarts.runs.command_line import parse_tabulate
from jaxdarts.runs.progress import RunProgress
from jaxdarts.runs.store import Store
from jaxdarts.spaces import Genotype, load_space
from jaxdarts.tabulate import TabulationResult, run_tabulation
from tests.runs.dying import death_at
from tests.runs.tiny import tiny_tabulation

CONFIGS = Path(__file__).parents[2] / "configs" / "tables"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> TabulationResult:
    return run_tabulation(tiny_tabulation(folder), folder / "unbroken", stream=io.StringIO())


def without_times(entries: tuple[Entry, ...]) -> list[Entry]:
    return [dataclasses.replace(entry, seconds=0.0) for entry in entries]


def test_every_architecture_is_there_once_with_every_seed(folder: Path, unbroken: TabulationResult) -> None:
    genotypes = [genotype.canonical() for genotype in load_space(str(folder / "pair.toml")).genotypes()]
    assert len(set(genotypes)) == 2
    table = unbroken.table
    assert table.is_finished and table.planned == 4
    assert sorted((genotypes.index(e.genotype), e.seed) for e in table.entries) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for genotype, error in table.errors.items():
        errors = [entry.test_error for entry in table.entries if entry.genotype == genotype]
        assert error == pytest.approx(sum(errors) / 2)
    assert list(table.errors.values()) == sorted(table.errors.values())


@pytest.mark.parametrize("index", [0, 3])
def test_an_entry_is_an_evaluation_to_the_bit(
    index: int, folder: Path, unbroken: TabulationResult, tmp_path: Path
) -> None:
    entry = unbroken.table.entries[index]
    (tmp_path / "genotype.json").write_text(json.dumps(entry.genotype.to_json()))
    tabulate = tiny_tabulation(folder)
    settings = {name: value for name, value in tabulate.given.items() if name not in ("space", "seeds")}
    settings |= {"seed": entry.seed}
    config = EvaluateConfig(**settings | {"genotype": str(tmp_path / "genotype.json")})
    result = run_evaluation(config, tmp_path / "run", stream=io.StringIO())
    last = result.metrics[-1]
    assert (entry.test_error, entry.train_loss) == (result.test_error, last["train_loss"])
    assert entry.valid_error == 1 - last["valid_accuracy"]
    assert (entry.parameters, entry.multiply_adds) == (result.parameters, result.multiply_adds)


def test_interrupted_table_goes_on_without_repeating(
    folder: Path, unbroken: TabulationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, advance, steps = folder / "interrupted", RunProgress.advance, []

    def interrupted(self: RunProgress, step: int, epoch: int) -> None:
        advance(self, step, epoch)
        steps.append(step)
        if step == 11:  # in the middle of the second training
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "advance", interrupted)
        with pytest.raises(RunInterrupted, match="what has ended is saved.*--resume --run-dir"):
            run_tabulation(tiny_tabulation(folder), path, stream=io.StringIO())
        first = read_table(path).entries
        assert len(first) == 1 and not read_table(path).is_finished
        page = write_table_report(path).read_text()
        assert "1 of 4 trainings have ended" in page
        steps.clear()
        stream = io.StringIO()
        patch.setattr(
            RunProgress, "advance", lambda self, step, epoch: (steps.append(step), advance(self, step, epoch))
        )
        result = run_tabulation(tiny_tabulation(folder), path, resume=True, stream=stream)
    assert steps == list(range(9, 33))  # 8 steps a training; the first is not repeated
    assert "resumed   after 1 of 4 trainings" in stream.getvalue() and " left" in stream.getvalue()
    assert result.table.entries[0] == first[0]
    assert without_times(result.table.entries) == without_times(unbroken.table.entries)


def test_a_killed_table_keeps_its_rows(
    folder: Path, unbroken: TabulationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second training's last epoch, with no time to write table.json; the next row was half written."""
    path, written = folder / "killed", Store.write_json
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_json", lambda *args: None if args[-1].get("entries") else written(*args))
        with death_at(engine, "measure", 4):
            run_tabulation(tiny_tabulation(folder), path, stream=io.StringIO())
    lines = (path / "metrics.jsonl").read_text()
    assert lines.count("\n") == 1 == len(read_table(path).entries)
    assert json.loads((path / "table.json").read_text())["entries"] == []
    (path / "metrics.jsonl").write_text(lines + '{"genotype": {"nor')
    result = run_tabulation(tiny_tabulation(folder), path, resume=True, stream=io.StringIO())
    assert (path / "metrics.jsonl").read_text().startswith(lines)
    assert without_times(result.table.entries) == without_times(unbroken.table.entries)


def test_a_table_is_continued_with_its_own_settings_only(folder: Path, unbroken: TabulationResult) -> None:
    with pytest.raises(InputError, match=r"seeds \(2 in the run, 3 now\)"):
        run_tabulation(tiny_tabulation(folder, seeds=3), unbroken.run_dir, resume=True)
    with pytest.raises(InputError, match="holds a run; add --resume"):
        run_tabulation(tiny_tabulation(folder), unbroken.run_dir)


def test_a_loss_that_is_not_finite_ends_it_and_names_the_architecture(folder: Path) -> None:
    config = tiny_tabulation(folder, learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(RunError, match=r"not finite in epoch 0 .*Genotype\(normal=.*seed 0"):
        run_tabulation(config, folder / "diverged", stream=io.StringIO())
    assert read_table(folder / "diverged").entries == ()


def test_files_agree_with_the_table(unbroken: TabulationResult) -> None:
    path, table = unbroken.run_dir, unbroken.table
    rows = list(csv.DictReader((path / "table.csv").open()))
    assert [float(row["test_error"]) for row in rows] == list(table.errors.values())
    assert [Genotype.from_text(row["genotype"]) for row in rows] == list(table.errors)
    assert float(rows[0]["regret"]) == 0 and float(rows[1]["regret"]) == pytest.approx(
        float(rows[1]["test_error"]) - float(rows[0]["test_error"])
    )
    page = (path / "report.html").read_text()
    for text in ("All architectures of pair", "max_pool_3x3(1)", "Standard deviation", "2 of 2"):
        assert text in page
    assert "<script" not in page and "unfinished" not in page.split("<body")[-1]


@pytest.mark.parametrize("content", ["", "[]", '{"entries": []}', '{"search_space": {}, "entries": 1}'])
def test_what_is_no_table_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(content)
    for path in (tmp_path, tmp_path / "table.json"):
        with pytest.raises(InputError, match="table: .*table.json"):
            read_table(path)
    with pytest.raises(InputError, match="cannot read 'nowhere'"):
        read_table("nowhere")


def test_seeds_share_the_compiled_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    counts = []
    append = Store.append

    def counting(self: Store, record: Any) -> None:
        append(self, record)
        counts.append(sum(event.startswith("/jax/core/compile/backend") for event in compiled))

    monkeypatch.setattr(Store, "append", counting)
    try:
        run_tabulation(tiny_tabulation(folder, seeds=3, epochs=1), folder / "counted", stream=io.StringIO())
    finally:
        jax.monitoring.clear_event_listeners()
    of_trainings = counts[1::2]  # an epoch's record is followed by the training's
    assert len(of_trainings) == 6 and of_trainings[0] == of_trainings[2] < of_trainings[3] == of_trainings[5]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configurations_are_possible(path: Path) -> None:
    config, _ = parse_tabulate(["--config", str(path)])
    config.check()
    assert f"--config configs/tables/{path.name}" in path.read_text()
