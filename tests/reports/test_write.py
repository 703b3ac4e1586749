"""Does a report that fails cost a run anything but the report?"""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxdarts.reports import charts, draw
from jaxdarts.reports.write import report_line, write_pages
from jaxdarts.spaces import S5
from tests.reports.test_search import synthetic_run


@pytest.mark.parametrize("module", [draw, charts])
def test_any_failure_is_one_line_with_the_command_that_writes_it_again(
    module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic_run(tmp_path / "run", S5, epochs=1)

    def fail(*_: object) -> str:
        raise ValueError("no\nsuch glyph")

    monkeypatch.setattr(module, "figure_to_svg", fail)
    write_pages(folder)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"warning: the result is in {str(folder)!r}") and "no such glyph" in line
    assert f"python -m jaxdarts.report {folder} writes it again" in line
    assert (report_line(folder) == f"report: {folder / 'report.html'}") == (folder / "report.html").exists()


def test_a_damaged_folder_and_a_good_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_run(tmp_path / "run", S5, epochs=1)
    metrics = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("{}\n")
    write_pages(folder)
    assert "epoch is missing" in capsys.readouterr().err
    assert report_line(folder) == f"report: none; python -m jaxdarts.report {folder} writes it"
    (folder / "metrics.jsonl").write_text(metrics)
    write_pages(folder)
    assert capsys.readouterr().err == ""
    assert {path.name for path in folder.iterdir()} >= {"report.html", "cells.svg", "cells.png"}
