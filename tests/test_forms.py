"""Does a diagnostics.json of the wrong form end in one line that names the field?"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.report import main
from jaxdarts.spaces import S1
from tests.reports.test_search import synthetic_run

COUNTS = {"normal": 3, "reduce": 2}
GOOD: dict[str, Any] = {
    "epoch": 2,
    "operations": {"skip_connect": COUNTS, "parameter_free": COUNTS, "all": {"normal": 8, "reduce": 8}},
    "discretisation": {
        "relaxed": {"accuracy": 0.7, "loss": 1.0},
        "one_hot": {"accuracy": 0.2, "loss": 2},
        "accuracy_change": -0.5,
    },
    "eigenvalues": {"values": [0.5, -0.25], "residuals": [0.0, 1e-9], "of": 56},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with another value at a.b.c; without the field where it is `...`."""
    result = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    part = result
    for name in parents:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return result


DIVERGED = changed("discretisation.one_hot.loss", None) | {
    "eigenvalues": {"values": [None, 0.5], "residuals": [None, None], "of": 56}
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "it must be an object; got [1, 2]"),
        (None, "it must be an object; got None"),
        (changed("epoch", "last"), "epoch must be a whole number; got 'last'"),
        (changed("epoch", True), "epoch must be a whole number; got True"),
        (changed("operations", ...), "operations is missing"),
        (changed("operations", 3), "operations must be an object; got 3"),
        (changed("operations.all.reduce", ...), "operations.all.reduce is missing"),
        (changed("operations.skip_connect", []), "operations.skip_connect must be an object; got []"),
        (changed("discretisation", ["x" * 90]), "discretisation must be an object; got ['xxx"),
        (changed("discretisation.relaxed.loss", "x"), "discretisation.relaxed.loss must be a finite number; got 'x'"),
        (changed("eigenvalues.values", []), "eigenvalues.values must be a list with at least one entry; got []"),
        (changed("eigenvalues.values", [1.0, float("nan")]), "eigenvalues.values[1] must be a finite number; got nan"),
        (
            changed("candidates", [{"genotype": "x", "accuracy": 0.5}]),
            "candidates[0].genotype: genotype: expected an object",
        ),
    ],
)
def test_the_report_command_names_the_field(
    tmp_path: Path, content: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = synthetic_run(tmp_path / "run", S1)
    (folder / "diagnostics.json").write_text(json.dumps(content))
    assert main([str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: run_dir: ") and "diagnostics.json' is not what jaxdarts writes: " in line
    assert words in line and not (folder / "report.html").exists()


@pytest.mark.parametrize(
    "content", [GOOD, changed("discretisation", None), changed("eigenvalues", None), GOOD | {"more": 1}, DIVERGED]
)
def test_what_a_search_may_write_is_reported(tmp_path: Path, content: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_run(tmp_path / "run", S1)
    (folder / "diagnostics.json").write_text(json.dumps(content))
    assert main([str(folder)]) == 0, capsys.readouterr().err
    assert "3 of 8" in (folder / "report.html").read_text()
