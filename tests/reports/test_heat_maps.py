"""Do heat maps of edges show the weights that were recorded?"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from jaxdarts.reports.heat_maps import edge_maps
from jaxdarts.reports.run_record import RunRecord, read_run
from jaxdarts.spaces import S3, S5
from tests.reports.test_search import Page, rewritten, synthetic_run

EDGES: list[dict[str, Any]] = [
    {"normal": [0.0, 0.0], "reduce": [0.0, 0.0]},
    {"normal": [0.0, float(np.log(3))], "reduce": [float(np.log(1.5)), 0.0]},
]


def weighed(folder: Path, config: dict[str, Any] | None = None, **quantities: list[Any]) -> RunRecord:
    given = {"edge_normalisation": True, **(config or {})}
    return read_run(rewritten(synthetic_run(folder, S5, epochs=2), given, alpha_edges=EDGES, **quantities))


def images(text: str) -> list[np.ndarray]:
    """The pixels of each, [rows, epochs, RGB]."""
    found = re.findall(r"data:image/png;base64,([^\"]*)", text)
    return [imread(io.BytesIO(base64.b64decode(data)))[..., :3] for data in found]


def test_a_row_an_edge_and_a_column_an_epoch(tmp_path: Path) -> None:
    text = edge_maps(weighed(tmp_path / "run"))
    Page(text)
    assert "Softmax of the edges' alpha over those" in text
    assert '<div class="number">0.250<br>0.750</div>' in text and '<div class="number">0.600<br>0.400</div>' in text
    assert text.count("<b>node 0 \N{LEFTWARDS ARROW} c_{k-2}</b><br><b>node 0 \N{LEFTWARDS ARROW} c_{k-1}</b>") == 2
    assert "<span>0.500</span><i></i><span>1.500</span>" in text  # twice the least and the greatest weight
    normal, reduction = images(text)
    colours = matplotlib.colormaps["viridis"]
    for pixels, values in ((normal, [[0.5, 0.0], [0.5, 1.0]]), (reduction, [[0.5, 0.7], [0.5, 0.3]])):
        np.testing.assert_allclose(pixels, colours(np.array(values))[..., :3], atol=0.02)


def test_a_temperature_divides_them_too(tmp_path: Path) -> None:
    run = weighed(tmp_path / "softmax", temperature=[1.0, 0.5])
    np.testing.assert_allclose(run.edge_strengths("normal")[1], [0.1, 0.9])
    assert "Softmax of the edges' alpha / temperature over those" in edge_maps(run)
    update = weighed(tmp_path / "update", {"temperature_form": "update"}, temperature=[1.0, 1.5])
    np.testing.assert_allclose(update.edge_strengths("normal")[1], [0.25, 0.75])


def test_a_map_has_a_part_for_every_node(tmp_path: Path) -> None:
    folder = synthetic_run(tmp_path / "run", S3, epochs=1)
    edges = {cell: [0.1 * edge for edge in range(S3.num_edges)] for cell in S3.cell_types}
    text = edge_maps(read_run(rewritten(folder, {"edge_normalisation": True}, alpha_edges=[edges])))
    assert [pixels.shape[:2] for pixels in images(text)] == 2 * [(2, 1), (3, 1), (4, 1), (5, 1)]
    assert "node 3 \N{LEFTWARDS ARROW} node 2" in text and text.count("<b>") == 2 * 8


@pytest.mark.parametrize("edges", [{}, {"normal": [None, None]}])
def test_without_weights_there_is_no_section(edges: dict[str, Any], tmp_path: Path) -> None:
    folder = rewritten(synthetic_run(tmp_path / "run", S5, epochs=1), alpha_edges=[edges])
    assert edge_maps(read_run(folder)) == ""
