"""Does any text come through pictures, pages and graphs as it is?"""

from __future__ import annotations

import dataclasses
import json
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxdarts.nasbench201.baselines import Curve
from jaxdarts.reports import baselines, charts
from jaxdarts.reports.charts import FIRST, SECOND, Line, Points
from jaxdarts.reports.draw import draw_cells, figure_to_svg, save_cells
from jaxdarts.reports.graphs import to_dot, to_mermaid
from jaxdarts.reports.texts import LONGEST, escape, label
from jaxdarts.reports.write import write_report
from jaxdarts.spaces import Genotype
from tests.reports.test_sweep import synthetic_sweep

TEXTS = (
    "npz:/data/$HOME_$USER.npz", "$x_", "$\\frac$", "a\\$b$", "_hidden", "__", "50 %", "%%{init}", "\\alpha\\n",
    "<&>'\"--", "été 数据 🙂", "{{facts}}", "l" * 300, "a\tb",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_warnings() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def texts_of(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.mark.parametrize("text", TEXTS)
def test_charts_show_it_in_legends_axes_and_marks(text: str) -> None:
    lines = [Line(text, [1.0, None, 2.0], FIRST), Line("other", [2.0, 1.0, None], SECOND)]
    shown = texts_of(charts.line_chart("a", range(3), lines, marks=[(1, text)]))
    assert shown.count(label(text)) == 2 and "other" in shown
    groups = [Points(text, text + "1", [(1, 2)], FIRST), Points("b", "c", [(1, 2)], SECOND)]
    shown = texts_of(charts.scatter_chart("a", groups, (text, text)))
    assert shown.count(label(text)) == 3 and label(text + "1") in shown
    assert label(text) in texts_of(charts.bar_chart("a", np.arange(2), np.arange(2), 1, text, FIRST))


@pytest.mark.parametrize("text", TEXTS)
def test_cells_and_graphs_show_it(text: str, tmp_path: Path) -> None:
    genotype = Genotype(((text, 0), (text, 1)), (2,), ((text, 0), ("none", 1)), (2,))
    figure = draw_cells(genotype, title=text)
    assert [found.get_text() for found in figure.axes[0].texts].count(label(text)) == 4
    assert figure.get_figwidth() < 15
    save_cells(genotype, tmp_path / "a.svg", tmp_path / "a.png", title=text)
    ElementTree.parse(tmp_path / "a.svg")
    plain = dataclasses.replace(genotype, normal=(("none", 0),) * 2, reduce=(("none", 0),) * 2)
    for write in (to_dot, to_mermaid):
        assert len(write(genotype).splitlines()) == len(write(plain).splitlines())


def test_graphs_escape_what_their_languages_read() -> None:
    genotype = Genotype((('a"b\\N', 0), ("#quot;$$%%<b>`|", 1)), (2,), (("none", 0), ("none", 1)), (2,))
    assert '[label="a\\"b\\\\N"];' in to_dot(genotype)
    mermaid = to_mermaid(genotype)
    assert '|"a#quot;b#92;N"|' in mermaid
    assert '|"#35;quot;#36;#36;#37;#37;#60;b#62;#96;#124;"|' in mermaid


def test_labels_are_one_line_of_bounded_length() -> None:
    assert label("a\nb\x00\ud800") == "a b\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert len(label("x" * 61)) == LONGEST and label("x" * 60) == "x" * 60
    assert escape("<\x00\ud800\n>") == "&lt;\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\n&gt;"


def test_a_legend_of_many_long_names_leaves_room_for_the_lines() -> None:
    figure, axes = Figure(figsize=(5.6, 2.7), layout="constrained"), None
    axes = figure.add_subplot()
    entries = [(f"{i} {'long ' * 20}", Line2D([], [])) for i in range(30)]
    charts.legend(figure, entries, columns=3)
    figure_to_svg(figure, "a")
    assert axes.get_position().height * figure.get_figheight() > 1.5


def test_a_sweep_over_paths_with_dollars_gets_its_report(tmp_path: Path) -> None:
    folder = synthetic_sweep(tmp_path)
    content = json.loads((folder / "sweep.json").read_text())
    for entry in content["runs"]:
        entry["values"]["space"] = f"npz:/data/$HOME_$USER/{entry['values']['space']}"
        entry["values"]["method"] = f"_{entry['values']['method']}$"
    (folder / "sweep.json").write_text(json.dumps(content))
    page = write_report(folder).read_text()
    assert page.count(">_darts$</text>") >= 2 and "/data/$HOME_$USER/s1" in page


def test_curves_of_baselines(tmp_path: Path) -> None:
    values = np.arange(1.0, 21.0)
    for path in baselines.write_curves({"_a$": Curve(values, values, values, values)}, tmp_path, "$x_ %", 20.0):
        assert path.stat().st_size
    assert "<!-- _a$ -->" in (tmp_path / "baselines.svg").read_text()
