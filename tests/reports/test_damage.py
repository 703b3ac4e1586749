"""Does a damaged folder of any kind end in one line that names the file, whatever is damaged and how?"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.report import main
from jaxdarts.reports import charts, draw
from jaxdarts.reports.regret import write_regret
from jaxdarts.reports.write import write_report
from jaxdarts.runs.events import ROLL_BACK, STOP
from jaxdarts.spaces import S5
from tests.reports.language_runs import (
    averaging_evaluation,
    ended_search,
    language_population,
    language_sweep,
)
from tests.reports.test_evaluate import synthetic_evaluation
from tests.reports.test_regret import synthetic_search, synthetic_table
from tests.reports.test_search import DIAGNOSTICS, rewritten, synthetic_run
from tests.reports.test_sweep import synthetic_sweep

ABSENT = object()
EXAMPLES = 60


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def search(folder: Path) -> Path:
    """With an event, diagnostics and candidates."""
    edges = {"normal": [0.1, -0.2], "reduce": [0.0, 0.3]}
    given = {"gdas_temperature": [10.0, 0.1], "alpha_edges": [edges, edges]}
    rewritten(synthetic_run(folder, S5, epochs=2), {"edge_normalisation": True}, **given)
    genotype = _json(folder / "genotype.json")
    event = {"action": ROLL_BACK, "decided_at": 1, "epoch": 0, "genotype": genotype, "l2": 0.01, "l2_before": 0.001}
    event["abandoned"] = [{"epoch": 1, "dominant_eigenvalue": 0.5, "valid_accuracy": None}]
    stop = {"action": STOP, "decided_at": 1, "epoch": 1, "genotype": genotype}
    (folder / "events.json").write_text(json.dumps([event, stop]))
    candidates = [{"genotype": genotype, "accuracy": 0.5}]
    (folder / "diagnostics.json").write_text(json.dumps(DIAGNOSTICS | {"epoch": 1, "candidates": candidates}))
    return folder


def evaluation(folder: Path) -> Path:
    return synthetic_evaluation(folder, epochs=2)


def population(folder: Path) -> Path:
    """Of two, with a retraining."""
    for member in (0, 1):
        search(folder / f"member_{member}")
    genotype = _json(folder / "member_0" / "genotype.json")
    config = _json(folder / "member_0" / "config.json") | {"retrain_epochs": 2}
    config["members"] = [{"seed": seed, "l2": 0.1, "drop_path": 0.0, "cutout": False} for seed in (0, 1)]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "genotype.json").write_text(json.dumps(genotype))
    (folder / "metrics.jsonl").write_text('{"epoch": 0, "seconds": 1.5, "train_loss": [1, 2]}\n')
    own = {"genotype": genotype, "accuracy": 0.5, "loss": 1.0}
    found = {"member": 0, "chosen_by": "retraining", "candidates": [{"member": i, **own} for i in (0, 1)]}
    (folder / "diagnostics.json").write_text(json.dumps(_json(folder / "member_0" / "diagnostics.json") | found))
    return folder


def sweep(folder: Path) -> Path:
    folder.mkdir()
    return synthetic_sweep(folder)


def table(folder: Path) -> Path:
    synthetic_table(folder)
    content = _json(folder / "table.json")
    del content["entries"][100:]  # some trainings have not ended
    (folder / "table.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({name: content[name] for name in content if name != "entries"}))
    return folder


def regret(folder: Path) -> Path:
    folder.mkdir()
    synthetic_table(folder / "table")
    synthetic_search(folder / "run", [80, 40])
    return folder


KINDS: dict[str, Callable[[Path], Path]] = {
    made.__name__: made
    for made in (
        *(search, evaluation, population, sweep, table, regret),
        *(ended_search, averaging_evaluation, language_population, language_sweep),
    )
}
VALUES = [
    None, True, -1, 0, 7, 2**70, 1e300, float("nan"), "", "x", "$_", "\ud800", [], [[]], [None], ["x"], {}, {"x": 1},
]  # fmt: skip


def report(folder: Path) -> None:
    """Of the folder, whichever kind it is."""
    if (folder / "table").is_dir():
        write_regret(folder / "table", [folder / "run"])
    else:
        write_report(folder)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something may be damaged."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*path, key))


def damaged(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """The value with another one, or none, at a place."""
    if not path:
        return by
    changed = value.copy()
    if by is ABSENT and len(path) == 1:
        del changed[path[0]]
        return changed
    changed[path[0]] = damaged(value[path[0]], path[1:], by)
    return changed


@functools.cache
def files_of(kind: str, folder: Path) -> list[Path]:
    KINDS[kind](folder)
    return sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl"))


@st.composite
def damage(draw: st.DrawFn, files: list[Path]) -> tuple[Path, bytes]:
    """A file and what it holds instead."""
    path = draw(st.sampled_from(files))
    content = path.read_bytes()
    if draw(st.integers(0, 5)) == 0:
        return path, content[: draw(st.integers(0, len(content) - 1))]
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    place = draw(st.sampled_from(list(places(value))))
    by = draw(st.sampled_from([*VALUES, *([ABSENT] if place else [])]))
    lines[number] = json.dumps(damaged(value, place, by)).encode()
    return path, b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("kind", KINDS)
def test_only_input_errors_come_of_damage(
    kind: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp(kind) / kind
    files = files_of(kind, folder)
    report(folder)
    # Else most of the time is for drawing what is all right.
    for module in (draw, charts):
        monkeypatch.setattr(module, "figure_to_svg", lambda *_: "<svg></svg>")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(files))
    def check(found: tuple[Path, bytes]) -> None:
        path, content = found
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            report(folder)
        except InputError as error:
            assert "\n" not in str(error)
        finally:
            path.write_bytes(before)

    check()


@pytest.mark.parametrize(
    ("kind", "file", "place", "by", "words"),
    [
        ("population", "metrics.jsonl", ("seconds",), "long", "seconds must be a finite number; got 'long'"),
        ("population", "diagnostics.json", ("candidates",), ABSENT, "candidates is missing"),
        ("population", "diagnostics.json", ("candidates", 0, "member"), 5, "each of 2 members once; got [5, 1]"),
        ("population", "config.json", ("members",), [], "members must be a list with at least one entry"),
        ("population", "member_1/metrics.jsonl", ("train_loss",), "x", "line 1 of"),
        ("search", "metrics.jsonl", ("train_loss",), "x", "train_loss must be a finite number; got 'x'"),
        ("search", "events.json", (0, "l2"), ABSENT, "l2 is missing"),
        ("evaluation", "config.json", ("epochs",), "x", "epochs must be a whole number; got 'x'"),
        ("sweep", "sweep.json", ("runs", 0, "values", "space"), ABSENT, "lack space"),
        ("table", "table.json", ("entries", 1, "test_error"), None, "entries[1].test_error must be a finite number"),
    ],
)
def test_the_command_names_file_and_field(
    kind: str, file: str, place: Any, by: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = KINDS[kind](tmp_path / kind)
    first, *rest = (folder / file).read_text().splitlines()
    first, rest = (first, rest) if file.endswith("jsonl") else ((folder / file).read_text(), [])
    (folder / file).write_text("\n".join([json.dumps(damaged(json.loads(first), place, by)), *rest]))
    assert main([str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and str(folder / file) in line and words in line


@pytest.mark.parametrize("kind", [search, evaluation, population])
def test_what_is_not_finite_is_shown_as_missing(kind: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = kind(tmp_path / "run")
    for path in folder.rglob("metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for number, line in enumerate(lines):
            for name, value in line.items():
                if isinstance(value, float) and (number or "loss" in name):
                    line[name] = None
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report(folder).read_text()
    assert "None" not in text and not re.search(r"\bnan\b", text)
