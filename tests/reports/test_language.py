"""Do the pages of language modelling tell perplexities, of which less is better, and count activations?"""

from __future__ import annotations

import csv
import html
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.reports.measure import Measure, measure_named, measure_of, plural
from jaxdarts.reports.regret import write_regret
from jaxdarts.reports.run_record import complete_diagnostics, read_run
from jaxdarts.reports.search import search_quantities
from jaxdarts.reports.statistics import best_by_validation
from jaxdarts.reports.sweep import write_sweep_report
from jaxdarts.reports.sweep_record import SweepRun, read_result, told
from jaxdarts.reports.table import write_table_report
from jaxdarts.reports.write import write_report
from jaxdarts.spaces import S1, S5, SPACES, RecurrentSpace
from tests.reports.language_runs import (
    RELUS,
    RUNS,
    TANHS,
    THREE,
    averaging_evaluation,
    diagnostics,
    ended_search,
    language_evaluation,
    language_population,
    language_search,
    language_sweep,
    read_json,
    sweep_entries,
    write_json,
)
from tests.reports.test_search import Page, rewritten, synthetic_run
from tests.reports.test_sweep import synthetic_sweep


def page_of(folder: Path) -> str:
    """A page that says nothing of images: no accuracy, no percent in a table, no skip connection."""
    text = write_report(folder).read_text()
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert all(address.startswith(("data:", "#")) or address.endswith("report.html") for address in page.addresses)
    shown = re.sub(r"<[^>]*>", " ", text.partition("</style>")[2])
    for absent in ("ccurac", " error", "kip connection", "Skips", "image", "{{", "None"):
        assert absent not in shown, absent
    assert not re.search(r"class=number>[^<]*%|%</text>|\bnan\b", text)
    return html.unescape(text)


def sections(text: str) -> list[str]:
    return re.findall(r"<h[23]>(.*?)</h[23]>", text)


@pytest.fixture(scope="module")
def search_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(language_search(tmp_path_factory.mktemp("language") / "run"))


def test_a_search_tells_the_least_perplexity_as_the_best(search_page: str) -> None:
    assert "The supernet's validation perplexity after epoch 2 is 90.75 (best: 80.25, epoch 1)." in search_page
    values = "".join(f"<td class=number>{value}</td>" for value in ("120.50", "90.75", "80.25", "120.50", "1"))
    assert f"<td>Validation perplexity</td>{values}" in search_page  # first, last, least, greatest, best in epoch
    assert "<th class=number>Training perplexity</th>" in search_page
    assert {"Perplexities", "Losses", "Recurrent cell"} <= set(sections(search_page))
    assert "The genotype last changed in epoch 1." in search_page


def test_a_search_counts_activations(search_page: str, tmp_path: Path) -> None:
    assert "Activations: 2 relu, 1 tanh." in search_page
    assert "Activations in the genotype" in sections(search_page)
    row = "<td>Activations, tanh</td><td class=number>2</td><td class=number>1</td>"
    assert row in search_page
    assert "<td>Activations, sigmoid</td><td class=number>0</td><td class=number>0</td>" in search_page
    run = read_run(language_search(tmp_path / "run"))
    counts = {name: run.values(f"activation_{name}") for name in ("tanh", "relu", "identity")}
    assert counts == {"tanh": [2, 1, 1], "relu": [0, 2, 2], "identity": [1, 0, 0]}
    assert run.values("skip_normal") == run.values("skip_cell") == [None] * 3
    images = read_run(synthetic_run(tmp_path / "images", S5, epochs=2))
    assert images.values("activation_tanh") == [None] * 2


def test_strengths_of_a_recurrent_cell(search_page: str) -> None:
    assert search_page.count("<img ") == THREE.num_edges
    assert "node 1 \N{LEFTWARDS ARROW} x, h" in search_page and "c_{k" not in search_page
    assert search_page.count("edge chosen") == 3
    assert f"{math.log(5):.2f}: all of 5 operations are alike" in search_page
    assert "<td>Spread of strengths</td>" in search_page and "<td>Entropy of operation weights</td>" in search_page


def test_the_published_space_is_drawn(tmp_path: Path) -> None:
    space = SPACES["rnn"]
    assert isinstance(space, RecurrentSpace)
    genotypes = next(iter(space.genotypes())), space.architecture({"recurrent": (("sigmoid", 0),) * 8})
    text = page_of(language_search(tmp_path / "run", (400.0, 99999.0), space=space, genotypes=genotypes))
    assert text.count("<img ") == 36 and "Activations: 8 sigmoid." in text and "99999.00" in text


def test_the_end_of_a_search(tmp_path: Path) -> None:
    text = page_of(ended_search(tmp_path / "run"))
    for words in (
        "Went back from epoch 2 to the end of epoch 1",
        "Early stopping would have returned the genotype of epoch 1, with the activations 2 relu, 1 tanh (it is",
        "best of 2 finalists among random architectures: with the shared weights its validation perplexity is 88.50.",
        "perplexity on the validation text changes by +25.50 when alpha is replaced",
        "<td>Mixing weights from alpha</td><td class=number>90.00</td><td class=number>4.5</td>",
        "<td>relu</td><td class=number>2 of 3</td>",
        "<th class=number>Validation perplexity</th><th class=number>Activations</th>",
        "<td>2</td><td class=number>98.50</td><td class=number>2 tanh, 1 identity</td>",
        "Activations of the nodes.",
    ):
        assert words in text, words


def test_what_is_missing_is_told_as_damage(tmp_path: Path) -> None:
    images = synthetic_run(tmp_path / "images", S5, epochs=3)
    counts = {name: {"normal": 1, "reduce": 1} for name in ("skip_connect", "parameter_free", "all")}
    write_json(images / "diagnostics.json", diagnostics(operations=counts))
    with pytest.raises(InputError, match="relaxed.accuracy is missing"):
        complete_diagnostics(read_run(images))
    text = language_search(tmp_path / "text")
    found = diagnostics()
    found["discretisation"]["one_hot"]["accuracy"] = found["discretisation"]["one_hot"].pop("perplexity")
    write_json(text / "diagnostics.json", found)
    with pytest.raises(InputError, match="one_hot.perplexity is missing"):
        complete_diagnostics(read_run(text))
    rewritten(text, valid_perplexity=["x", 1.0, 1.0])
    with pytest.raises(InputError, match="valid_perplexity must be a finite number"):
        read_run(text)


def test_a_perplexity_without_bounds_is_missing(tmp_path: Path) -> None:
    text = page_of(language_search(tmp_path / "run", (1e300, None, 123456.0)))
    assert "perplexity after epoch 2 is 1.235e+05, the best of all epochs." not in text  # it is the only one
    assert "perplexity after epoch 2 is 1.235e+05." in text


def test_an_evaluation(tmp_path: Path) -> None:
    text = page_of(language_evaluation(tmp_path / "run"))
    for words in (
        "The test perplexity after the last epoch is 95.00.",
        "Epoch 1 has the best validation perplexity, 80.25; its test perplexity is 84.50.",
        "<dt>Multiply-adds a word</dt><dd>180,000</dd>",
        "<dt>Network</dt><dd>cell of 3 nodes, 100 units</dd>",
        "<td>Test perplexity</td><td class=number>124.75</td><td class=number>95.00</td><td class=number>84.50</td>",
    ):
        assert words in text, words
    assert "Perplexities" in sections(text) and "held out" not in text and "averaged" not in text
    assert text.count("Validation perplexity") == 2  # once in either table
    assert "<h3>Penalty of outputs</h3><svg" in text and "Auxiliary" not in text
    assert "<td>Penalty of outputs</td><td class=number>0.5</td><td class=number>0.25</td>" in text


def test_an_evaluation_that_was_averaged(tmp_path: Path) -> None:
    text = page_of(averaging_evaluation(tmp_path / "run"))
    assert "A loss was not finite in epoch 0" in text
    assert "From after epoch 1 on the mean of the weights is measured (averaged SGD)." in text
    assert text.count(">averaged SGD</text>") == 2  # in both charts


def test_an_unfinished_evaluation(tmp_path: Path) -> None:
    text = page_of(language_evaluation(tmp_path / "run", planned=9, penalised=False))
    assert "Penalty" not in text and "Nothing was measured" not in text
    assert "3 of 9 epochs" in text and "The test perplexity after epoch 2 is 95.00." in text


@pytest.mark.parametrize("retrained", [True, False])
def test_a_population(retrained: bool, tmp_path: Path) -> None:
    text = page_of(language_population(tmp_path / "run", retrained=retrained))
    assert "The genotype returned is that of member 1 (seed 1)." in text
    if retrained:
        assert "on the words that train w, it has the best perplexity on those that train alpha: 77.12." in text
    else:
        assert "With the search's own weights it has the best validation perplexity: 77.12." in text
    row = "<td>1</td><td class=number>seed 1</td><td class=number>85.25</td><td class=number>2.5</td>"
    assert f"{row}<td class=number>2 tanh, 1 identity</td>" in text
    assert ("<th class=number>Retrained: perplexity</th>" in text) is retrained
    assert "Perplexity and eigenvalue are the supernet's" in text
    assert {"Validation perplexity", "Activations: tanh", "Activations: sigmoid"} <= set(sections(text))


def test_a_search_in_stages_by_perturbation(tmp_path: Path) -> None:
    names = ["supernet", "projection"]
    folder = tmp_path / "run"
    for name in names:
        language_search(folder / name, method="darts-pt", stage=name)
    operation = {"cell": "recurrent", "edge": 0, "candidates": ["tanh", "relu"], "weights": [0.5, 0.25]}
    operation |= {"loss": [4.5, 4.25], "perplexity": [90.0, 70.125], "chosen": "tanh"}
    edges = {"cell": "recurrent", "node": 1, "sources": [0, 1], "weights": [0.5, 0.25], "kept": [1]}
    edges |= {"loss": [4.0, 4.5], "perplexity": [55.5, 90.0]}
    rewritten(folder / "projection", projection=[[], [operation], [edges]])
    selection = {"genotype": TANHS.to_json(), "perplexity": 101.0, "loss": 4.6}
    write_json(folder / "projection" / "diagnostics.json", diagnostics(selections={"objective": selection}))
    config = read_json(folder / "supernet" / "config.json")
    del config["stage"]
    write_json(folder / "config.json", config | {"stages": names})
    write_json(folder / "genotype.json", RELUS.to_json())
    text = page_of(folder)
    for words in (
        "Activations: 2 relu, 1 tanh. The numbers at the end",
        "<th class=number>Epochs</th><th class=number>Operations an edge</th><th class=number>Activations</th>"
        "<th class=number>Validation perplexity</th>",
        "<td>supernet</td><td class=number>3 of 3</td><td class=number>5</td><td class=number>2 relu, 1 tanh</td>"
        "<td class=number>90.75</td>",
        "Perplexity is the supernet's",
        "Epoch 1: operation of node 1 \N{LEFTWARDS ARROW} x, h",
        "<th class=number>Perplexity without it</th><th class=number>Loss without it</th>",
        "<td>relu</td><td class=number>0.25</td><td class=number>70.12</td><td class=number>4.25</td>",
        "Epoch 2: edges of node 2",
        "<td>x, h</td><td class=number>0.5</td><td class=number>55.50</td>",
        "<td>By perturbation, perplexity</td><td class=number>101.00</td><td class=number>4.6</td>"
        "<td class=number>2 tanh, 1 identity</td><td class=number>2</td>",
    ):
        assert words in text, words


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    assert write_sweep_report(language_sweep(folder)) == folder / "report.html"
    return folder


def test_a_sweeps_csv(sweep: Path) -> None:
    first, second = csv.DictReader((sweep / "table.csv").open())
    assert [name for name in first if name.endswith("_mean")] == [
        "valid_perplexity_mean",
        "dominant_eigenvalue_mean",
        "perplexity_rise_mean",
        *(f"activation_{name}_mean" for name in ("tanh", "relu", "sigmoid", "identity")),
        "test_perplexity_mean",
    ]
    for row, runs in ((first, RUNS[:2]), (second, RUNS[2:])):
        for name, column in (("dominant_eigenvalue", 3), ("valid_perplexity", 4), ("perplexity_rise", 5)):
            assert float(row[f"{name}_mean"]) == pytest.approx(np.mean([run[column] for run in runs]))
            assert float(row[f"{name}_std"]) == pytest.approx(np.std([run[column] for run in runs], ddof=1))
        assert [float(row[f"activation_{name}_mean"]) for name in ("tanh", "relu", "identity")] == [1, 2, 0]
    # The least perplexity on held-out text: that of seed 1, then of seed 0.
    assert (first["best_run"], first["best_by"]) == ("three-l2_1e-06-seed_1", "held_out_perplexity")
    assert (second["best_run"], float(second["best_test_perplexity"])) == ("three-l2_1e-05-seed_0", 74.0)


def test_a_sweeps_tables(sweep: Path) -> None:
    text = (sweep / "table.md").read_text()
    header, _, first = text.partition("## Mean")[2].splitlines()[2:5]
    assert header == (
        "| space | l2 | runs | Validation perplexity | Dominant eigenvalue | Discretisation rise | Activations, tanh | "
        "Activations, relu | Activations, sigmoid | Activations, identity | Test perplexity | "
        "Best seed's test perplexity |"
    )
    # Of two values the deviation is half their distance times sqrt 2.
    assert first == (
        "| three | 1e-06 | 2 of 2 | 92.00 ± 2.83 | 0.6000 ± 0.1414 | 20.00 ± 14.14 | 1.0 ± 0.0 | 2.0 ± 0.0 | 0.0 ± 0.0 "
        "| 0.0 ± 0.0 | 81.00 ± 4.24 | 78.00 |"
    )
    assert "chosen by validation perplexity (retrained, on held-out words), never by the test perplexity." in text
    assert "the discretisation rise what its perplexity gains without retraining." in text
    eigenvalues, tests = ([run[column] for run in RUNS] for column in (3, 7))
    wanted = f"eigenvalue and test perplexity over 4 runs: {np.corrcoef(eigenvalues, tests)[0, 1]:.3f}, 95 %"
    assert wanted in text and "%, by" not in text


def test_a_sweeps_page(sweep: Path) -> None:
    text = page_of(sweep)
    assert "Curvature and test perplexity" in sections(text)
    assert "<td>three-l2_1e-06-seed_0</td><td class=number>done</td><td class=number>90.00</td>" in text
    assert told(sweep / "three-l2_1e-06-seed_0") == ["valid perplexity 90.00", "test perplexity 84.00"]
    result = read_result(sweep / "three-l2_1e-06-seed_0")
    assert (result["perplexity_rise"], result["held_out_perplexity"]) == (30.0, 80.0)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep_report(mixed_sweep(tmp_path_factory.mktemp("mixed") / "sweep")).parent


def mixed_sweep(folder: Path) -> Path:
    """Five runs with images, one that failed, and two searches of recurrent cells."""
    folder.mkdir(parents=True)
    synthetic_sweep(folder)
    content = read_json(folder / "sweep.json")
    for entry, method in zip(sweep_entries(folder)[::2], ("darts", "darts-es"), strict=True):
        entry["values"] = {"space": "three", "method": method, "seed": 0}
        content["runs"].append(entry)
    write_json(folder / "sweep.json", content)
    return folder


def test_a_sweep_of_both_tasks_has_the_columns_of_its_runs(mixed: Path) -> None:
    rows = {(row["space"], row["method"]): row for row in csv.DictReader((mixed / "table.csv").open())}
    images, text = rows["s1", "darts"], rows["three", "darts"]
    assert float(images["valid_accuracy_mean"]) == pytest.approx(0.65) and images["valid_perplexity_mean"] == ""
    assert float(text["valid_perplexity_mean"]) == 90.0 and text["valid_accuracy_mean"] == text["test_error_mean"] == ""
    assert (images["best_test_error"], images["best_test_perplexity"]) == ("0.2", "")
    assert (text["best_test_error"], text["best_test_perplexity"], text["best_by"]) == (
        "",
        "84.0",
        "held_out_perplexity",
    )
    markdown = (mixed / "table.md").read_text()
    by_method = markdown.partition("## Test perplexity, by method")[2].strip().splitlines()
    assert by_method[:3] == ["| space | darts | darts-es |", "| --- | --- | --- |", "| three | 84.00 | 74.00 |"]
    errors = markdown.partition("## Test error, %, by method")[2].partition("##")[0]
    assert "| s1 | 23.00 ± 4.24 | 11.00 ± 1.41 |" in errors and "three" not in errors
    best = markdown.partition("## Test error of the best seed by validation, %, by method")[2].partition("##")[0]
    assert "| s1 | 20.00 | 10.00 |" in best and "three" not in best
    best = markdown.partition("## Test perplexity of the best seed by validation, by method")[2].partition("##")[0]
    assert "| three | 84.00 | 74.00 |" in best and "s1" not in best
    assert "eigenvalue and test error over 5 runs" in markdown
    assert "No correlation of dominant eigenvalue and test perplexity" in markdown
    page = (mixed / "report.html").read_text()
    assert len(set(ids := Page(page).ids)) == len(ids)
    for heading, percent in (("Curvature and test error", True), ("Curvature and test perplexity", False)):
        chart = page.partition(f"<h2>{heading}</h2>")[2].partition("</svg>")[0]
        assert ("%</text>" in chart) is percent and "dominant eigenvalue</text>" in chart
    for note in (
        "by validation accuracy (retrained, on held-out images)",
        "by validation perplexity (retrained, on held-",
    ):
        assert note in page


def test_the_best_seed_has_the_least_perplexity() -> None:
    def run(valid: float | None, held_out: float | None) -> SweepRun:
        result = {"valid_perplexity": valid, "held_out_perplexity": held_out, "test_perplexity": 1.0}
        return SweepRun("run", {}, "done", None, result, measure=measure_of(THREE))

    runs = [run(90.0, 80.0), run(80.0, 70.0), run(70.0, 70.0)]
    assert best_by_validation(runs) == (runs[1], "held_out_perplexity")  # the first of equals
    assert best_by_validation([*runs, run(75.0, None)]) == (runs[2], "valid_perplexity")
    assert best_by_validation([run(None, None)]) is None and best_by_validation([]) is None


PAIR = RecurrentSpace.uniform("pair", ("relu", "identity"), num_nodes=2)


def language_table(folder: Path) -> Path:
    """All eight cells with one seed: the first has 70, each other 1.25 more than the one before."""
    entries = [
        {"genotype": genotype.to_json(), "seed": 0, "test_perplexity": 70 + 1.25 * i, "valid_perplexity": 60.0 + i}
        | {"parameters": 1000, "multiply_adds": 900, "train_loss": 4.0, "seconds": 1.0}
        for i, genotype in enumerate(PAIR.genotypes())
    ]
    content: dict[str, Any] = {"command": "tabulate", "space": "pair", "dataset": "pydoc", "seeds": 1, "hidden": 32}
    write_json(folder / "table.json", content | {"search_space": PAIR.to_json(), "entries": entries})
    return folder


def test_a_table_and_regret(tmp_path: Path) -> None:
    table, genotypes = language_table(tmp_path / "table"), list(PAIR.genotypes())
    text = write_table_report(table).read_text()
    Page(text)
    for words in (
        "Test perplexities go from 70.00 to 78.75, their median is 74.38.",
        "The best have relu(0), relu(0) in the recurrent cell.",
        "<td>2</td><td class=number>71.25</td><td class=number>1.25</td><td class=number>1,000</td>",
        "<dd>cell of 2 nodes, 32 units</dd>",
    ):
        assert words in text, words
    row = list(csv.DictReader((table / "table.csv").open()))[3]
    assert (row["test_perplexity"], row["regret"], row["valid_perplexities"]) == ("73.75", "3.75", "63.0")
    run = language_search(tmp_path / "run", (90.0, 80.0), space=PAIR, genotypes=[genotypes[4], genotypes[2]])
    text = write_regret(table, [run]).read_text()
    Page(text)
    for words in (
        "darts: the mean regret is least after epoch 1, 2.50, and 2.50 after the last.",
        "<dt>Least test perplexity</dt><dd>70.00</dd>",
        "<th class=number>Least mean</th>",
        "<td>darts</td><td class=number>1</td><td class=number>5.00</td><td class=number>2.50</td>",
        "<td>run</td><td class=number>1</td><td class=number>2.50</td><td class=number>1</td>",
    ):
        assert words in text, words
    assert "%</text>" not in text and "% -->" not in (table / "regret.svg").read_text()
    assert [row["test_perplexity"] for row in csv.DictReader((table / "regret.csv").open())] == ["75.0", "72.5"]
    (tmp_path / "table" / "table.json").write_text(
        (table / "table.json").read_text().replace("test_perpl", "test_perl")
    )
    with pytest.raises(InputError, match=r"entries\[0\].test_perplexity is missing"):
        write_table_report(table)


def test_measures() -> None:
    images, text = measure_of(S1), measure_of(RELUS)
    assert (images.objective, images.result, images.best) == ("accuracy", "error", max)
    assert (text.objective, text.result, text.best) == ("perplexity", "perplexity", min)
    assert images.result_of({"test_accuracy": 0.75}, "test") == 0.25
    assert text.result_of({"test_perplexity": 75.0}, "test") == 75.0 and text.result_of({}, "test") is None
    assert [images.text(0.12345), images.rounded(0.12345), images.change(-0.5)] == ["12.35%", "12.3%", "-50.0 points"]
    assert [text.text(75.678), text.rounded(75.678), text.change(-0.5)] == ["75.68", "75.68", "-0.50"]
    assert (images.text(None), images.change(None)) == ("", "an unknown number of points")
    assert [plural(name) for name in ("accuracy", "loss", "error")] == ["accuracies", "losses", "errors"]
    for name in ("train_loss", "seconds", "dominant_eigenvalue"):
        assert measure_named(name) is None
    found = [measure_named(name) for name in ("benchmark/cifar10/accuracy", "test_error", "valid_perplexity")]
    assert [measure and measure.percent for measure in found] == [True, True, False]


def test_a_task_that_is_compared_by_its_loss() -> None:
    """Its page has no second card and no second row of it."""
    measure = Measure("loss", "error", more=False, percent=False, is_metric=False)
    names = [name for name, *_ in search_quantities(measure)]
    assert len(set(names)) == len(names) and "valid_loss" in names
    assert measure.text(0.01234) == "0.0123"
