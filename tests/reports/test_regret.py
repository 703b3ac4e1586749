"""Is the regret of searches what a table says of their genotypes, and is what doesn't belong together refused?"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import append_line
from jaxdarts.regret import main
from jaxdarts.reports.regret import write_regret
from jaxdarts.reports.regret_curves import group_curves, run_regret
from jaxdarts.reports.table_record import Table, read_table
from jaxdarts.spaces import S1, S5, Genotype, SearchSpace, space_to_json

GENOTYPES = [genotype.canonical() for genotype in S5.genotypes()]


def error_of(index: int) -> float:
    """The table's mean error: the best is architecture 40, at 0.1."""
    return 0.1 + abs(index - 40) / 100


def synthetic_table(folder: Path, **changes: Any) -> Path:
    """All of S5 with two seeds, whose errors differ by 0.02 around the mean."""
    folder.mkdir()
    numbers = {"valid_error": None, "train_loss": 1.0, "parameters": 10, "multiply_adds": 100, "seconds": 1.0}
    entries = [
        {"genotype": genotype.to_json(), "seed": seed, "test_error": error_of(index) + (0.01, -0.01)[seed], **numbers}
        for index, genotype in enumerate(GENOTYPES)
        for seed in (0, 1)
    ]
    content = {"command": "tabulate", "space": "s5", "dataset": "photos10", "seeds": 2, "entries": entries}
    (folder / "table.json").write_text(json.dumps(content | {"search_space": space_to_json(S5)} | changes))
    return folder


def reversed_edges(genotype: Genotype) -> Genotype:
    """The same network, each node's edges in the other order."""
    return dataclasses.replace(genotype, normal=genotype.normal[::-1], reduce=genotype.reduce[::-1])


def synthetic_search(folder: Path, indices: list[int | None], *, space: SearchSpace = S5, **changes: Any) -> Path:
    """A search whose genotype after each epoch is given; the last one is returned. None: nothing was selected."""
    folder.mkdir()
    config = {"space": space.name, "dataset": "photos10", "method": "darts", "l2": 3e-4, "seed": 0} | changes
    (folder / "config.json").write_text(json.dumps(config | {"search_space": space_to_json(space)}))
    selects = config["method"] == "random-ws"
    for epoch, index in enumerate(indices):
        value = None if index is None else reversed_edges(GENOTYPES[index]).to_json()
        drawn = GENOTYPES[0].to_json()  # which must not count
        record: dict[str, Any] = {"epoch": epoch, "valid_accuracy": 0.5}
        record |= {"genotype": drawn, "alpha": None} if selects else {"genotype": value, "alpha": {}}
        append_line(folder / "metrics.jsonl", record | ({"selected": value} if selects and value else {}))
    last = next(index for index in reversed(indices) if index is not None)
    (folder / "genotype.json").write_text(json.dumps(GENOTYPES[last].to_json()))
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return read_table(synthetic_table(tmp_path / "table"))


def test_regret_is_the_mean_error_minus_the_least(table: Table, tmp_path: Path) -> None:
    assert list(table.errors.values())[0] == pytest.approx(0.1)
    assert table.errors[GENOTYPES[43]] == pytest.approx(0.13)
    found = run_regret(table, synthetic_search(tmp_path / "run", [80, 40, 35]))
    assert found.regrets == pytest.approx([0.40, 0.0, 0.05])
    assert found.returned == pytest.approx(0.05)


def test_random_search_is_judged_by_what_it_selects(table: Table, tmp_path: Path) -> None:
    found = run_regret(table, synthetic_search(tmp_path / "run", [None, 42, None, 41], method="random-ws"))
    assert found.genotypes[0] is None and found.regrets[0] is None and found.regrets[2] is None
    assert [found.regrets[1], found.regrets[3], found.returned] == pytest.approx([0.02, 0.01, 0.01])


def test_curves_are_means_over_seeds_and_tell_settings_apart(table: Table, tmp_path: Path) -> None:
    runs = [
        synthetic_search(tmp_path / "a", [40, 42, 50], seed=0),
        synthetic_search(tmp_path / "b", [44, 40, 60], seed=1),
        synthetic_search(tmp_path / "c", [41, 45], seed=0, l2=0.0243),  # its method stopped it
        synthetic_search(tmp_path / "d", [None, 43, 43], method="random-ws", seed=7, select_every=1),
    ]
    first, second, third = group_curves([run_regret(table, run) for run in runs])
    assert [curve.label for curve in (first, second, third)] == ["darts, l2 0.0003", "darts, l2 0.0243", "random-ws"]
    assert first.mean == pytest.approx([0.02, 0.01, 0.15])
    assert first.least == pytest.approx([0.0, 0.0, 0.1]) and first.greatest == pytest.approx([0.04, 0.02, 0.2])
    assert second.mean == pytest.approx([0.01, 0.05, 0.05])
    assert third.mean[0] is None and third.mean[1:] == pytest.approx([0.03, 0.03])


def test_files_hold_what_was_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = synthetic_table(tmp_path / "table")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    synthetic_search(sweep / "a", [40, 42, 50])
    synthetic_search(sweep / "b", [44, 40, 60], seed=1)
    states = {"a": "done", "b": "done", "c": "failed"}
    entries = [{"name": name, "values": {}, "state": state} for name, state in states.items()]
    (sweep / "sweep.json").write_text(json.dumps({"runs": entries}))
    single = synthetic_search(tmp_path / "single", [None, 43, 43], method="random-ws")
    assert main([str(table), str(sweep), str(single)]) == 0
    assert capsys.readouterr().out == f"report: {table / 'regret.html'}\n"
    rows = list(csv.DictReader((table / "regret.csv").open()))
    assert [row["run"] for row in rows] == ["a"] * 3 + ["b"] * 3 + ["single"] * 3
    known = [row for row in rows if row["regret"]]
    assert len(known) == 8
    for row in known:
        index = GENOTYPES.index(Genotype.from_text(row["genotype"]))
        assert float(row["test_error"]) == pytest.approx(error_of(index))
        assert float(row["regret"]) == pytest.approx(error_of(index) - 0.1)
    page = (table / "regret.html").read_text()
    for text in ("darts: the mean regret is least after epoch 1, 1.00%, and 15.00% after the last.", "15.00 ± 7.07"):
        assert text in page
    assert (table / "regret.svg").read_text().count("FillBetween") == 2  # a band behind each line


def expect(words: str, table: Path, *runs: Path) -> None:
    with pytest.raises(InputError, match=words):
        write_regret(table, runs, table.parent / "out")
    assert not (table.parent / "out").exists()


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    table = synthetic_table(tmp_path / "table")
    good = synthetic_search(tmp_path / "good", [40])
    renamed = dataclasses.replace(S5, name="mine", normal=tuple(edge[::-1] for edge in S5.normal))
    assert write_regret(table, [good, synthetic_search(tmp_path / "same", [40], space=renamed)]).is_file()
    expect("searched space 's1', the table is of 's5'", table, good, synthetic_search(tmp_path / "s1", [40], space=S1))
    other = synthetic_search(tmp_path / "other", [40], dataset="digits")
    expect("searched on data set 'digits', the table is of 'photos10'", table, other)
    expect("is given twice", table, good, good)
    expect("no folder", table, tmp_path / "nothing")
    expect("jaxdarts.tabulate; regret needs", table, _recorded(tmp_path / "not_a_search", "tabulate"))
    unfinished = synthetic_table(tmp_path / "unfinished", seeds=3)
    expect("has 162 of 243 trainings", unfinished, good)
    drawn = synthetic_search(tmp_path / "drawn", [40], method="random-ws")
    text = (drawn / "metrics.jsonl").read_text()
    (drawn / "metrics.jsonl").write_text(text.replace('"selected"', '"something"'))
    expect("only at its end.*--select-every 1", table, drawn)


def _recorded(folder: Path, command: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"command": command}))
    return folder


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "the following arguments are required: TABLE, RUN_DIR"),
        (["nowhere", "run"], "table: cannot read 'nowhere'"),
        (["nowhere", "run", "--out", "x", "--colour"], "--colour"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert not list(tmp_path.iterdir())
