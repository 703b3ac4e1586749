"""Do a sweep's tables agree with numbers computed by hand?"""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import append_line
from jaxdarts.report import main
from jaxdarts.reports.charts import FIRST, SECOND
from jaxdarts.reports.measure import measure_of
from jaxdarts.reports.statistics import Estimate, best_by_validation, correlation, estimate
from jaxdarts.reports.sweep import write_sweep_report
from jaxdarts.reports.sweep_record import SweepRun, read_result
from jaxdarts.spaces import S1, S4, load_genotype
from tests.reports.test_search import Page, synthetic_run

# Of each run: space, method, seed, eigenvalue, validation accuracy, accuracy change, held out, test error.
RUNS = [
    ("s1", "darts", 0, 0.50, 0.70, -0.30, 0.80, 0.20),
    ("s1", "darts", 1, 0.70, 0.60, -0.10, 0.78, 0.26),
    ("s1", "darts-es", 0, 0.10, 0.50, -0.02, 0.90, 0.10),
    ("s1", "darts-es", 1, 0.20, 0.55, -0.04, 0.88, 0.12),
    ("s2", "darts", 0, 0.40, 0.65, -0.20, 0.85, 0.15),
]


def synthetic_sweep(folder: Path, *, evaluated: bool = True) -> Path:
    """Five finished runs, and one that failed."""
    entries = []
    for space, method, seed, eigenvalue, accuracy, change, held_out, error in RUNS:
        name = f"{space}-{method}-seed_{seed}"
        path = synthetic_run(folder / name, S1)
        (path / "metrics.jsonl").unlink()
        for epoch in range(3):  # epoch 1 is returned; the last one must not count
            record = {"epoch": epoch, "valid_accuracy": accuracy if epoch == 1 else 0.0, "genotype": None}
            append_line(path / "metrics.jsonl", record | {"dominant_eigenvalue": eigenvalue if epoch < 2 else 9.0})
        diagnostics = {"epoch": 1, "discretisation": {"accuracy_change": change}}
        (path / "diagnostics.json").write_text(json.dumps(diagnostics))
        if evaluated:
            (path / "evaluate").mkdir()
            (path / "evaluate" / "result.json").write_text(json.dumps({"test_error": error}))
            append_line(path / "evaluate" / "metrics.jsonl", {"epoch": 0, "valid_accuracy": held_out})
        values = {"space": space, "method": method, "seed": seed}
        entries.append({"name": name, "values": values, "state": "done", "error": None})
    failed = {"name": "s2-darts-seed_1", "values": {"space": "s2", "method": "darts", "seed": 1}}
    entries.append(failed | {"state": "failed", "error": "the loss is not finite | in epoch 3"})
    content: dict[str, Any] = {"search": {"epochs": 3}, "fields": ["space", "method", "seed"], "runs": entries}
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = synthetic_sweep(tmp_path_factory.mktemp("sweep"))
    assert write_sweep_report(folder) == folder / "report.html"
    return folder


def test_mean_and_sample_deviation() -> None:
    assert estimate([None, 1.0, 2.0, 4.5]) == Estimate(2.5, pytest.approx(math.sqrt(3.25)), 3)  # type: ignore[arg-type]
    assert estimate([3.0]) == Estimate(3.0, None, 1)
    assert estimate([None]) is None


def test_correlation_and_its_interval() -> None:
    # By hand: sums of squares 10 and 10, of products 8; artanh 0.8 = 1.098612, 1.959964 / sqrt 2 = 1.385904.
    found = correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert found is not None and found == pytest.approx((0.8, math.tanh(-0.287292), math.tanh(2.484516), 5), abs=1e-6)
    # Zela et al. 2020, figure 4: 0.867 over 24 architectures.
    centre, reach = math.atanh(0.867), 1.959964 / math.sqrt(21)
    generator = np.random.default_rng(0)
    first, other = generator.normal(size=(2, 24))
    first, other = first - first.mean(), other - other.mean()
    other -= first * (first @ other) / (first @ first)
    second = 0.867 * first / np.linalg.norm(first) + math.sqrt(1 - 0.867**2) * other / np.linalg.norm(other)
    found = correlation(first.tolist(), second.tolist())
    assert found == pytest.approx((0.867, math.tanh(centre - reach), math.tanh(centre + reach), 24), abs=1e-6)
    assert correlation([1, 2, 3, 4], [2, 4, 6, 8]) == (1, 1, 1, 4)
    assert correlation([1, 2, 3], [1, 3, 2]) is None and correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None


def test_the_best_seed_is_chosen_by_validation_only() -> None:
    def run(valid: float | None, held_out: float | None, test: float) -> SweepRun:
        result = {"valid_accuracy": valid, "held_out_accuracy": held_out, "test_error": test}
        return SweepRun("run", {}, "done", None, result, measure=measure_of(S1))

    runs = [run(0.5, 0.8, 0.1), run(0.6, 0.9, 0.3), run(0.7, 0.9, 0.2)]
    assert best_by_validation(runs) == (runs[1], "held_out_accuracy")
    assert best_by_validation([*runs, run(0.65, None, 0.0)]) == (runs[2], "valid_accuracy")
    assert best_by_validation([run(None, None, 0.1)]) is None


def test_csv_has_the_numbers(sweep: Path) -> None:
    rows = list(csv.DictReader((sweep / "table.csv").open()))
    assert [(row["space"], row["method"], row["runs"], row["runs_planned"]) for row in rows] == [
        ("s1", "darts", "2", "2"),
        ("s1", "darts-es", "2", "2"),
        ("s2", "darts", "1", "2"),
    ]
    wanted = {"valid_accuracy": (0.65, 0.05), "dominant_eigenvalue": (0.6, 0.1), "accuracy_drop": (0.2, 0.1)}
    wanted |= {"test_error": (0.23, 0.03)}
    for name, (mean, half) in wanted.items():  # of two values the deviation is half their distance times sqrt 2
        assert float(rows[0][f"{name}_mean"]) == pytest.approx(mean)
        assert float(rows[0][f"{name}_std"]) == pytest.approx(half * math.sqrt(2))
    assert rows[2]["test_error_std"] == "" and float(rows[2]["test_error_mean"]) == 0.15
    assert (rows[0]["best_run"], rows[0]["best_by"]) == ("s1-darts-seed_0", "held_out_accuracy")
    assert float(rows[0]["best_test_error"]) == 0.2


def test_markdown_has_tables_like_the_papers(sweep: Path) -> None:
    text = (sweep / "table.md").read_text()
    assert "| s1 | darts | 2 of 2 | 65.00 ± 7.07 | 0.6000 ± 0.1414 | 20.00 ± 14.14 |" in text
    by_method = text.partition("## Test error, %, by method")[2]
    assert by_method.strip().splitlines()[:4] == [
        "| space | darts | darts-es |",
        "| --- | --- | --- |",
        "| s1 | 23.00 ± 4.24 | 11.00 ± 1.41 |",
        "| s2 | 15.00 |  |",
    ]
    assert "| s1 | 20.00 | 10.00 |" in text.partition("## Test error of the best seed")[2]
    assert "- `s2-darts-seed_1`: the loss is not finite" in text
    eigenvalues, errors = [0.5, 0.7, 0.1, 0.2, 0.4], [0.2, 0.26, 0.1, 0.12, 0.15]
    assert f"over 5 runs: {np.corrcoef(eigenvalues, errors)[0, 1]:.3f}, 95 % confidence interval" in text


def test_page_loads_nothing_and_names_every_run(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(set(page.ids)) == len(page.ids) and "{{" not in text
    assert text.count("<svg") == 3  # a chart a space, and one of all runs
    assert "5 of 6 runs have finished, 1 failed." in text
    for name in [run.name for run in sweep.iterdir() if run.is_dir()]:
        assert f"<td>{name}</td>" in text


def test_a_point_a_run_and_their_correlation(sweep: Path) -> None:
    text = (sweep / "report.html").read_text()
    section = text.partition("<h2>Curvature and test error</h2>")[2].partition("<h2>")[0]
    eigenvalues, errors = [0.5, 0.7, 0.1, 0.2, 0.4], [0.2, 0.26, 0.1, 0.12, 0.15]
    assert f"over 5 runs: {np.corrcoef(eigenvalues, errors)[0, 1]:.3f}, 95 % confidence interval" in section
    svg = ElementTree.fromstring(section[section.index("<svg") : section.index("</svg>") + len("</svg>")])
    markers = [element.attrib for element in svg.iter() if element.tag.endswith("use") and "style" in element.attrib]
    places: list[tuple[float, float]] = []
    for colour, number in ((FIRST, 3), (SECOND, 2)):  # darts and darts-es; the legend has one more of each
        found = [marker for marker in markers if colour in marker["style"]]
        assert len(found) == number + 1
        places += [(float(marker["x"]), float(marker["y"])) for marker in found[:number]]
    order = [0, 1, 4, 2, 3]  # of darts first s1, then s2
    horizontal, vertical = zip(*places, strict=True)
    assert np.corrcoef(horizontal, np.take(eigenvalues, order))[0, 1] == pytest.approx(1)
    assert np.corrcoef(vertical, np.take(errors, order))[0, 1] == pytest.approx(-1)  # y grows downwards


def test_eigenvalues_are_also_a_figure(sweep: Path) -> None:
    svg = (sweep / "eigenvalues.svg").read_text()
    drawn = [element.attrib["style"] for element in ElementTree.fromstring(svg).iter() if "style" in element.attrib]
    lines = [style for style in drawn if "stroke-width: 1.2" in style]
    assert [sum(colour in style for style in lines) for colour in (FIRST, SECOND)] == [3 + 1, 2 + 1]  # and the legend
    assert not (sweep / "benchmark_accuracies.svg").exists()


def test_variants_are_columns(tmp_path: Path) -> None:
    folder = synthetic_sweep(tmp_path)
    content = json.loads((folder / "sweep.json").read_text())
    for entry in content["runs"]:
        entry["values"]["variant"] = entry["values"].pop("method")
    content |= {"fields": ["variant", "space", "seed"], "variants": {"darts": {}, "darts-es": {"method": "darts-es"}}}
    (folder / "sweep.json").write_text(json.dumps(content))
    write_sweep_report(folder)
    by_variant = (folder / "table.md").read_text().partition("## Test error, %, by variant")[2]
    assert by_variant.strip().splitlines()[:3:2] == [
        "| space | darts | darts-es |",
        "| s1 | 23.00 ± 4.24 | 11.00 ± 1.41 |",
    ]
    content["fields"].remove("space")
    (folder / "sweep.json").write_text(json.dumps(content))
    write_sweep_report(folder)
    assert "by variant" not in (folder / "table.md").read_text()


def test_report_command_without_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_sweep(tmp_path / "sweep", evaluated=False)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "Test error" not in (folder / "table.md").read_text()
    assert "Curvature and test error" not in (folder / "report.html").read_text()
    assert list(csv.DictReader((folder / "table.csv").open()))[0]["best_by"] == "valid_accuracy"


def test_noise_is_counted_where_there_is_some(tmp_path: Path) -> None:
    found = {space.name: read_result(synthetic_run(tmp_path / space.name, space)) for space in (S1, S4)}
    assert (found["s1"]["noise_normal"], found["s1"]["noise_reduce"]) == (None, None)
    genotype = load_genotype(tmp_path / "s4" / "genotype.json")
    noises = [sum(name == "noise" for name, _ in pairs) for pairs in (genotype.normal, genotype.reduce)]
    assert [found["s4"]["noise_normal"], found["s4"]["noise_reduce"]] == noises and sum(noises) > 0


def test_a_selecting_methods_accuracy_is_the_chosen_ones(sweep: Path, tmp_path: Path) -> None:
    path = synthetic_run(tmp_path / "run", S1)
    (path / "diagnostics.json").write_text(json.dumps({"epoch": 2, "candidates": [{"accuracy": 0.25}]}))
    result = read_result(path)
    assert result["valid_accuracy"] == 0.25 and result["accuracy_drop"] is None and result["test_error"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"fields": [], "runs": []}', "no run of the sweep"), ("{", "cannot read"), ("{}", "runs is missing")],
)
def test_a_broken_or_empty_sweep(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(InputError, match=message):
        write_sweep_report(tmp_path)
