"""Does a run's report show what its files say, whatever state the run is in?"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.json_files import append_line
from jaxdarts.methods import METHODS
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.report import main
from jaxdarts.reports.strengths import operation_strengths
from jaxdarts.reports.write import write_report
from jaxdarts.spaces import CELL_TYPES, DARTS, S1, S5, SearchSpace, discretise, space_to_json


def synthetic_run(
    folder: Path, space: SearchSpace, *, epochs: int = 3, planned: int | None = None, eigenvalues: bool = True
) -> Path:
    """A run folder with plausible numbers; unfinished if more epochs were planned."""
    folder.mkdir(parents=True)
    planned = planned or epochs
    rng = np.random.default_rng(0)
    config: dict[str, Any] = {"space": space.name, "dataset": "photos10", "method": "darts", "seed": 1}
    config |= {
        "hypergradient": "unrolled",
        "epochs": planned,
        "batch_size": 32,
        "data_dir": None,
        "learning_rate": 0.025,
    }
    config |= {"versions": {"python": "3.11.2", "jax": "0.10.2", "flax": "0.12.8"}, "device": "2-core CPU"}
    (folder / "config.json").write_text(json.dumps(config | {"search_space": space_to_json(space)}))
    steps = {cell: rng.normal(0, 0.1, space.alpha_shape(cell)) for cell in CELL_TYPES}
    alpha = {cell: np.zeros(space.alpha_shape(cell)) for cell in CELL_TYPES}
    genotype = None
    for epoch in range(epochs):
        progress = (epoch + 1) / planned
        strengths = {}
        for cell in CELL_TYPES:
            alpha[cell] = alpha[cell] + steps[cell] + rng.normal(0, 0.05, steps[cell].shape)
            strengths[cell] = np.full(alpha[cell].shape, 9.0)  # padding, to be ignored
            for edge, values in enumerate(operation_strengths(alpha[cell].tolist(), space.operations(cell))):
                strengths[cell][edge, : len(values)] = values
        genotype = discretise(space, strengths)
        noise = rng.normal(0, 0.02, 8)
        record: dict[str, Any] = {"epoch": epoch, "step": 31 * (epoch + 1), "seconds": 9.5 + noise[0]}
        record |= {"train_loss": 2.1 - 1.6 * progress**0.5 + noise[1], "train_accuracy": 0.2 + 0.65 * progress**0.5}
        record |= {
            "alpha_loss": 2.1 - 1.3 * progress**0.5 + noise[2],
            "valid_loss": 2.2 - 1.2 * progress**0.5 + noise[3],
        }
        record |= {"valid_accuracy": 0.18 + 0.55 * progress**0.5 + noise[4], "learning_rate": 0.025 * (1 - progress)}
        record |= {"l2": 3e-4, "drop_path": 0.0, "hypergradient_norm": 0.3 + noise[5]}
        dominant = 0.15 + 0.5 * progress**2 + 4 * abs(noise[6]) if eigenvalues else None
        record |= {"dominant_eigenvalue": dominant, "largest_magnitude_eigenvalue": dominant, "local_average": None}
        record |= {"smallest_eigenvalue": -abs(noise[7]) if eigenvalues else None, "alpha": dict(alpha)}
        record |= {"genotype": genotype.to_json(), "skip_connections": genotype.count("skip_connect")}
        append_line(folder / "metrics.jsonl", record)
    if epochs == planned and genotype is not None:
        (folder / "genotype.json").write_text(json.dumps(genotype.to_json()))
    return folder


def rewritten(folder: Path, config: dict[str, Any] | None = None, **quantities: list[Any]) -> Path:
    """With other settings, and with these quantities, of which there is one entry an epoch."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").unlink()
    for number, record in enumerate(records):
        own = {name: values[number] for name, values in quantities.items()}
        append_line(folder / "metrics.jsonl", record | own)
    return folder


class Page(HTMLParser):
    """Collects what a browser would load, ids, and whether elements are closed."""

    void = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _svg_elements(text: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def s1_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(synthetic_run(tmp_path_factory.mktemp("report") / "s1", S1)).read_text()


def test_loads_nothing_and_is_well_formed(s1_page: str) -> None:
    page = Page(s1_page)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", s1_page)
    assert len(set(page.ids)) == len(page.ids)
    references = re.findall(r"url\(#([^)]*)\)", s1_page) + [a[1:] for a in page.addresses if a.startswith("#")]
    assert set(references) <= set(page.ids)
    assert not {"script", "link", "iframe"} & set(page.tags)
    for svg in _svg_elements(s1_page):
        ElementTree.fromstring(svg)


def test_shows_every_edge_with_its_candidates_and_no_padding(s1_page: str) -> None:
    assert s1_page.count("node 3 \N{LEFTWARDS ARROW} c_{k-1}") == 2
    assert s1_page.count("<img ") == 2 * S1.num_edges
    assert 'alt="strengths of max_pool_3x3, skip_connect over epochs"' in s1_page
    assert s1_page.count("edge chosen") == 16
    assert "{{" not in s1_page and not re.search(r"\bnan\b", s1_page)


def test_header_and_numbers(s1_page: str) -> None:
    for text in ("photos10", "unrolled", "2-core CPU", "jax 0.10.2", "3 of 3", "Genotype(normal=[", "0.025"):
        assert text in s1_page
    # Cells, eigenvalues, losses, accuracies, skip connections, norm; of the strengths spread, entropy and share.
    assert len(_svg_elements(s1_page)) == 9


OUTCOME = '<div class="card outcome "><p>'
DRAWS = [(method, name, heading) for method, entry in METHODS.items() for name, heading in entry.draws.items()]


@pytest.mark.parametrize(("method", "name", "heading"), DRAWS)
def test_the_method_is_told_and_its_schedules_are_drawn(method: str, name: str, heading: str, tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=2, eigenvalues=False)
    config = {"method": method, "hypergradient": SearchConfig(method=method).hypergradient}
    text = write_report(rewritten(folder, config, **{name: [8.5, 0.125]})).read_text()
    Page(text)
    assert f"{OUTCOME}{method} returns {METHODS[method].says}. " in text
    assert f"<h3>{heading}</h3><svg" in text and f'id="{name}-' in text
    assert f"<td>{heading}</td><td class=number>8.5</td><td class=number>0.125</td>" in text  # in the summary
    assert f"<th class=number>{heading}</th>" in text  # of every epoch
    for _, _, absent in DRAWS:
        assert absent == heading or absent not in text


def test_a_run_of_an_older_version(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=1, eigenvalues=False)
    config = json.loads((folder / "config.json").read_text())
    del config["method"]
    (folder / "config.json").write_text(json.dumps(config))
    text = write_report(folder).read_text()
    assert f"{OUTCOME}The supernet" in text and "returns the" not in text
    for absent in ("Edge weights", "Partial channels", "Warm-up", "Levels", *(heading for *_, heading in DRAWS)):
        assert absent not in text


def test_parts_that_are_on(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=1, planned=10, eigenvalues=False)
    given = {"hypergradient": "first_order", "partial_channels": 4, "edge_normalisation": True, "alpha_warm_up": 0.3}
    text = write_report(rewritten(folder, given | {"single_level": True})).read_text()
    for fact, value in (
        ("Partial channels", "1/4 of them go through operations"),
        ("Weights of edges", "softmax over the edges to a node"),
        ("Warm-up", "alpha rests for 3 of 10 epochs"),
        ("Levels", "one, alpha and w have the same gradient"),
    ):
        assert f"<dt>{fact}</dt><dd>{value}</dd>" in text


def test_what_learns_no_alpha_has_no_cards_of_its_strengths(tmp_path: Path) -> None:
    folder = rewritten(synthetic_run(tmp_path / "s5", S5, epochs=1), {"method": "random"}, alpha=[None])
    text = write_report(folder).read_text()
    for absent in ("Spread of", "Entropy of", "Share of", "Partial channels"):
        assert absent not in text


def test_a_search_by_fair_darts(tmp_path: Path) -> None:
    """Its strengths are sigmoids, and of its cells is shown what exists."""
    folder = synthetic_run(tmp_path / "fair", S5, epochs=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"method": "fair-darts", "hypergradient": "first_order"}))
    cells = {"normal": [["sep_conv_3x3", 2, 1]], "reduce": [["skip_connect", 0], ["max_pool_3x3", 1]]}
    genotype = cells | {"normal_concat": [2], "reduce_concat": [2]}
    (folder / "genotype.json").write_text(json.dumps(genotype))
    (record,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    (folder / "metrics.jsonl").write_text(json.dumps(record | {"genotype": genotype}) + "\n")
    text = write_report(folder).read_text()
    Page(text)
    assert "Sigmoid of alpha, each operation by itself" in text and "Softmax" not in text
    assert "0 of 1 operations in the normal cell, 1 of 2 operations in the reduction cell" in text
    assert f"{1 / (1 + np.exp(-record['alpha']['normal'][0][0])):.3f}" in text


def test_one_epoch_without_eigenvalues(tmp_path: Path) -> None:
    text = write_report(synthetic_run(tmp_path / "s5", S5, epochs=1, eigenvalues=False)).read_text()
    Page(text)
    assert "Nothing was measured." in text
    assert text.count("<img ") == 4


def test_unfinished_run(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=2, planned=5)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_')  # killed while writing
    text = write_report(folder).read_text()
    assert "has not finished: 2 of 5 epochs" in text
    assert "Cells after epoch 1" in text


def test_returned_genotype_of_an_earlier_epoch_is_pointed_out(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "s1", S1)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["genotype"] != records[2]["genotype"]
    (folder / "genotype.json").write_text(json.dumps(records[0]["genotype"]))
    assert "The genotype returned is that of epoch 0" in write_report(folder).read_text()


DIAGNOSTICS: dict[str, Any] = {
    "epoch": 4,
    "operations": {
        "skip_connect": {"normal": 5, "reduce": 1},
        "parameter_free": {"normal": 6, "reduce": 7},
        "all": {"normal": 8, "reduce": 8},
    },
    "discretisation": {
        "relaxed": {"loss": 0.9, "accuracy": 0.7125},
        "one_hot": {"loss": 2.5, "accuracy": 0.25},
        "accuracy_change": -0.4625,
    },
    "eigenvalues": {"values": [0.5, -0.25, 0.125], "residuals": [0.0, 1e-9, 1e-8], "of": 56},
}


def with_events(folder: Path, *events: dict[str, Any], method: str, **diagnostics: Any) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"method": method}))
    genotype = json.loads((folder / "genotype.json").read_text())
    (folder / "events.json").write_text(json.dumps([{"genotype": genotype, **event} for event in events]))
    (folder / "diagnostics.json").write_text(json.dumps(DIAGNOSTICS | diagnostics))
    return write_report(folder).read_text()


def test_diagnostics_and_roll_backs(tmp_path: Path) -> None:
    abandoned = [{"epoch": epoch, "dominant_eigenvalue": 0.7, "valid_accuracy": 0.5} for epoch in (3, 4)]
    event = {"action": "roll back", "decided_at": 4, "epoch": 2, "l2_before": 3e-4, "l2": 3e-3, "abandoned": abandoned}
    page = with_events(synthetic_run(tmp_path / "run", S1, epochs=5), event, method="darts-ada")
    Page(page)
    for words in (
        "Went back from epoch 4 to the end of epoch 2, L2 from 0.0003 to 0.003.",
        "Early stopping would have returned the genotype of epoch 2",
        "given up, L2 0.0003",
        "the centred mean of 3 measurements",  # of the preset's rule
        "<td class=number>5 of 8</td>",
        "<td class=number>71.25%</td><td class=number>0.9</td>",
        "changes by -46.2 points",
        "The 3 largest by magnitude of 56 eigenvalues",
        "exact up to rounding",
        'id="spectrum-',
        'id="distribution-',
    ):
        assert words in page, words


def test_an_early_stop_is_said_once(tmp_path: Path) -> None:
    event = {"action": "stop", "decided_at": 4, "epoch": 2}
    page = with_events(synthetic_run(tmp_path / "run", S1, epochs=5), event, method="darts-es")
    assert page.count("the genotype of epoch 2 is returned") == 1
    assert "The genotype returned is that of epoch" not in page


def test_random_search_has_finalists(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "run", S1, eigenvalues=False)
    candidates = [{"genotype": json.loads((folder / "genotype.json").read_text()), "accuracy": 0.625}]
    page = with_events(
        folder, method="random-ws", epoch=2, candidates=candidates, discretisation=None, eigenvalues=None
    )
    Page(page)
    assert "best of 1 finalists" in page and "62.5%" in page and "<td class=number>62.50%</td>" in page
    assert "Discretisation without" not in page and 'id="spectrum-' not in page


def test_text_from_the_run_is_escaped(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "<b>run", S5, epochs=1)
    config = json.loads((folder / "config.json").read_text())
    name = "conv<script>alert(1)</script>&$x$"
    config["dataset"] = "npz:<img src=x>.npz {{facts}}"
    config["search_space"]["normal"] = [[name], [name]]
    (folder / "config.json").write_text(json.dumps(config))
    genotype = json.loads((folder / "genotype.json").read_text())
    genotype["normal"] = [[name, 0], [name, 1]]
    (folder / "genotype.json").write_text(json.dumps(genotype))
    page = Page(text := write_report(folder).read_text())
    assert "script" not in page.tags
    assert "<img src=x>" not in text and "<b>run" not in text
    assert text.count('<dl class="facts">') == 1


def test_full_darts_space_stays_small(tmp_path: Path) -> None:
    path = write_report(synthetic_run(tmp_path / "darts", DARTS, epochs=50))
    assert path.stat().st_size < 1_000_000


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=1)
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"space": "s1"}')
    for arguments, message in (
        ([], "required: DIR"),
        ([str(tmp_path / "absent")], "there is no folder"),
        ([str(tmp_path / "empty")], "holds no config.json"),
        ([str(tmp_path / "new")], "no finished epoch"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[1]", "it must be an object"),
        ("config.json", "{", "cannot read"),
        ("config.json", '{"search_space": {"name": "x"}}', "search_space: num_nodes is missing"),
        ("metrics.jsonl", '{"step": 1}\n', "epoch is missing"),
        ("metrics.jsonl", '{"epoch": 0, "alpha": {"normal": [[1.0]]}}\n', "does not fit space"),
        ("metrics.jsonl", '{"epoch": 0, "alpha_edges": {"normal": [1.0]}}\n', "alpha_edges.* does not fit space"),
        ("genotype.json", "{}", "genotype"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = synthetic_run(tmp_path / "s5", S5, epochs=1)
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        write_report(folder)
