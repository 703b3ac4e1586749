"""Is a drawn cell right and legible, whatever the genotype?"""

from __future__ import annotations

import itertools
import os
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from PIL import Image

from jaxdarts.reports.draw import draw_cells, operation_colour, save_cells
from jaxdarts.spaces import DARTS, GENOTYPES, Architecture, Genotype, RecurrentGenotype

OPERATIONS = [*DARTS.operation_names, "noise", "conv_7x1_1x7"]


def random_genotype(num_nodes: int, seed: int = 0, names: list[str] = OPERATIONS) -> Genotype:
    rng = random.Random(seed)

    def cell() -> tuple[tuple[str, int], ...]:
        sources = [rng.sample(range(node + 2), 2) for node in range(num_nodes)]
        return tuple((rng.choice(names), source) for pair in sources for source in pair)

    concat = tuple(range(2, num_nodes + 2))
    return Genotype(cell(), concat, cell(), concat)


def _boxes(figure: Figure) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of operations, states and legend entries, in inches."""
    result = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, Circle):
            (x, y), r = patch.center, patch.radius
            result.append((x - r, y - r, x + r, y + r))
        elif isinstance(patch, FancyBboxPatch):
            x, y = patch.get_x(), patch.get_y()
            result.append((x, y, x + patch.get_width(), y + patch.get_height()))
    return result


def _wires(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(patch.get_path().vertices) for patch in figure.axes[0].patches if isinstance(patch, PathPatch)]


CASES = [
    *(random_genotype(num_nodes) for num_nodes in (1, 2, 3, 4, 7)),
    random_genotype(3, names=["an_operation_with_quite_a_long_name_$x$", "skip_connect"]),
    Genotype((("noise", 1), ("noise", 1), ("none", 2), ("noise", 2)), (3,), (("noise", 0), ("none", 0)) * 2, (0,)),
    # Fewer edges, and nodes that don't exist: the first, the last, all but one.
    Genotype((("noise", 1), ("none", 3), ("noise", 0)), (3, 4), (("noise", 1),), (2,), (0, 1, 2), (1, 0, 0)),
    Genotype((("noise", 1),), (5,), (("noise", 1), ("noise", 0), ("none", 3)), (3, 5), (0, 0, 0, 1), (0, 1, 1, 1)),
    GENOTYPES["DARTS_V1_RNN"],
    GENOTYPES["DARTS_V2_RNN"],
    GENOTYPES["ENAS"],
    RecurrentGenotype((("sigmoid", 0),), (1,)),
    RecurrentGenotype((("identity", 0),) * 9, (0,)),
]


@pytest.mark.parametrize("genotype", CASES)
def test_nothing_overlaps(genotype: Architecture) -> None:
    figure = draw_cells(genotype, title="A title")
    boxes, wires = _boxes(figure), _wires(figure)
    assert len(wires) == sum(len(genotype.edges(cell)) for cell in genotype.cell_types)
    circles = sum(isinstance(patch, Circle) for patch in figure.axes[0].patches)
    assert circles == sum(len(set(genotype.nodes(cell))) for cell in genotype.cell_types)
    for one, two in itertools.combinations(boxes, 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    for wire, (left, top, right, bottom) in itertools.product(wires, boxes):
        steps = np.linspace(0, 1, 40)[:, None, None]
        points = (wire[:-1] * (1 - steps) + wire[1:] * steps).reshape(-1, 2)
        inside = (points > [left + 1e-6, top + 1e-6]) & (points < [right - 1e-6, bottom - 1e-6])
        assert not inside.all(axis=1).any()

    width, height = figure.get_size_inches()
    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for left, top, right, bottom in boxes)
    texts = [text.get_window_extent() for text in figure.axes[0].texts]
    for a, b in itertools.combinations(texts, 2):
        assert not a.overlaps(b)
    assert all(text.x0 >= 0 and text.x1 <= width * figure.dpi and text.y0 >= 0 for text in texts)


def test_operations_stand_left_of_their_node_and_fit_their_boxes() -> None:
    genotype = CASES[5]
    figure = draw_cells(genotype)
    names = [text.get_text() for text in figure.axes[0].texts]
    for name in {name for name, _ in genotype.normal + genotype.reduce}:
        assert names.count(name) == sum(edge[0] == name for edge in genotype.normal + genotype.reduce)
    boxes = [box for box in _boxes(figure) if box[3] - box[1] == pytest.approx(0.27)]
    assert len(boxes) == 4 * genotype.num_nodes
    for text in figure.axes[0].texts:
        if text.get_text() in OPERATIONS + ["an_operation_with_quite_a_long_name_$x$"]:
            extent = text.get_window_extent()
            centre = text.get_position()[0]
            box = next(box for box in boxes if box[0] < centre < box[2] and box[1] < text.get_position()[1] < box[3])
            assert extent.width / figure.dpi < box[2] - box[0]


def test_every_wire_runs_from_its_source_to_its_operation() -> None:
    genotype = Genotype(
        (("sep_conv_3x3", 1), ("skip_connect", 0), ("max_pool_3x3", 2), ("dil_conv_3x3", 0)),
        (2, 3),
        (("skip_connect", 0), ("skip_connect", 1)) * 2,
        (2, 3),
    )
    figure = draw_cells(genotype)
    text_at = {text.get_text(): text.get_position() for text in figure.axes[0].texts}
    starts_and_ends = [(wire[0], wire[-1]) for wire in _wires(figure)[:4]]
    circle_y = [patch.center[1] for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    inputs_y = [text.get_position()[1] for text in figure.axes[0].texts if "k-" in text.get_text()]
    source_y = [*inputs_y[:2], *circle_y[:2]]
    for name, source in genotype.normal:
        if name == "skip_connect":
            continue
        ends = [start for start, end in starts_and_ends if abs(end[1] - text_at[name][1]) < 1e-6]
        assert len(ends) == 1 and ends[0][1] == pytest.approx(source_y[source])


def test_a_recurrent_cell() -> None:
    """Wires run from the source's height down to the upper side of the node's own activation, left of the node."""
    genotype = GENOTYPES["DARTS_V2_RNN"]
    figure = draw_cells(genotype)
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert {"Recurrent cell", "$x, h$", "$h$", "mean", *map(str, range(1, 9))} <= set(texts)
    names = [text.get_text() for text in figure.axes[0].texts]
    assert {name: names.count(name) for name in ("tanh", "relu", "sigmoid", "identity")} == {  # and in the legend
        "tanh": 2 + 1,
        "relu": 3 + 1,
        "sigmoid": 2 + 1,
        "identity": 1 + 1,
    }
    circles = [patch.center for patch in figure.axes[0].patches if isinstance(patch, Circle)]
    heights = [texts["$x, h$"].get_position()[1], *(y for _, y in circles)]
    activations = [patch for patch in figure.axes[0].patches if getattr(patch, "get_height", float)() == 0.27]
    labels = [text for text in figure.axes[0].texts if text.get_color() == "#fefefe"]
    for node, (name, source) in enumerate(genotype.edges("recurrent")):
        box, label, wire = activations[node], labels[node], _wires(figure)[node]
        assert label.get_text() == name and to_hex(box.get_facecolor()) == operation_colour(name)
        assert box.get_x() < label.get_position()[0] < box.get_x() + box.get_width() < circles[node][0]
        assert label.get_position()[1] == pytest.approx(circles[node][1])
        assert wire[0][1] == pytest.approx(heights[source])
        assert wire[-1] == pytest.approx((box.get_x() + box.get_width() / 2, box.get_y()))
    assert len({operation_colour(name) for name in ("none", "tanh", "relu", "sigmoid", "identity", "other")}) == 6


def test_recurrent_cells_of_equal_size_have_equal_places() -> None:
    one, two = (draw_cells(GENOTYPES[f"DARTS_V{version}_RNN"]) for version in (1, 2))
    assert one.get_figwidth() == two.get_figwidth() < 14
    nodes = [[patch.center for patch in figure.axes[0].patches if isinstance(patch, Circle)] for figure in (one, two)]
    assert nodes[0] == nodes[1] and len(nodes[0]) == 8


def test_files(tmp_path: Path) -> None:
    genotype = random_genotype(4)
    save_cells(genotype, tmp_path / "a.svg", tmp_path / "a.png", title="s1 <&>")
    save_cells(genotype, tmp_path / "b.svg", title="s1 <&>")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.svg", "b.svg"]
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert "date" not in (tmp_path / "a.svg").read_text().lower()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1500
    with pytest.raises(OSError):
        save_cells(genotype, tmp_path / "absent" / "a.svg")
