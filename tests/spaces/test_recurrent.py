"""Are recurrent cells chosen, counted, written and read as in the DARTS code, and others refused?"""

from __future__ import annotations

import json
from dataclasses import replace
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from jaxdarts.errors import InputError
from jaxdarts.forms import genotype as genotype_form
from jaxdarts.forms import space as space_form
from jaxdarts.networks import OPERATIONS
from jaxdarts.spaces import (
    ACTIVATION_NAMES,
    GENOTYPES,
    RNN,
    RNN_ROBUST,
    S5,
    Genotype,
    RecurrentGenotype,
    RecurrentSpace,
    discretise,
    find_genotype,
    genotype_from_json,
    load_genotype,
    load_space,
    one_hot,
    space_from_json,
    space_to_json,
)
from jaxdarts.spaces.files import genotype_from_text

# As the DARTS code lists them (rnn/genotypes.py).
V1 = (
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1), "
    "('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
V2 = (
    "Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5), "
    "('tanh', 3), ('relu', 5)], concat=range(1, 9))"
)
CNN = "[('skip_connect', 0), ('noise', 1)], [2], [('skip_connect', 0), ('noise', 1)], [2]"
SMALL = RecurrentGenotype((("tanh", 0), ("relu", 1)), (1, 2))
# 8 candidates in all, the second edge with one, the third without tanh.
RAGGED = RecurrentSpace("ragged", 2, (("none", "tanh", "relu"), ("identity",), ("none", "relu", "sigmoid", "identity")))


@st.composite
def genotypes(draw: st.DrawFn) -> RecurrentGenotype:
    """Any cell of one to nine nodes, any states averaged, the first among them."""
    nodes = draw(st.integers(1, 9))
    edges = tuple((draw(st.sampled_from(ACTIVATION_NAMES[1:])), draw(st.integers(0, node))) for node in range(nodes))
    concat = draw(st.lists(st.integers(0, nodes), min_size=1, unique=True))
    return RecurrentGenotype(edges, tuple(concat))


def test_the_published_spaces() -> None:
    assert RNN.recurrent == (("none", "tanh", "relu", "sigmoid", "identity"),) * 36
    assert RNN_ROBUST.recurrent == (("relu", "identity"),) * 36
    for space in (RNN, RNN_ROBUST):
        assert (space.num_nodes, space.num_edges, space.concat) == (8, 36, tuple(range(1, 9)))
        assert (space.cell_types, space.macro, space.task) == (("recurrent",), "recurrent", "language")
        assert space.alpha_shape("recurrent") == (36, len(space.recurrent[0])) and space.mask("recurrent").all()
    assert RNN.edges[:6] == ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))
    assert [RNN.incoming(node) for node in (0, 1, 7)] == [slice(0, 1), slice(1, 3), slice(28, 36)]


def test_how_many_cells_there_are() -> None:
    """Node i has i + 1 sources, each with four activations."""
    assert RNN.num_genotypes() == factorial(8) * 4**8
    assert RNN_ROBUST.num_genotypes() == factorial(8) * 2**8
    assert RAGGED.num_genotypes() == 2 * (1 + 3)
    cells = list(RAGGED.genotypes())
    assert len(set(cells)) == len(cells) == 8
    assert {cell.recurrent[1] for cell in cells} == {("identity", 0), ("relu", 1), ("sigmoid", 1), ("identity", 1)}
    for cell in cells:
        RAGGED.check_genotype(cell)
        assert discretise(RAGGED, one_hot(RAGGED, cell)) == cell
    np.testing.assert_array_equal(RAGGED.mask("recurrent"), [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])


def test_one_hot_by_hand() -> None:
    weights = one_hot(RAGGED, RecurrentGenotype((("relu", 0), ("sigmoid", 1)), (1, 2)))
    np.testing.assert_array_equal(weights["recurrent"], [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0]])


# alpha row by row, and the cell that the DARTS code finds.
ZEROS = np.zeros((36, 5))
NONE_LEADS = [
    [2.060964, 0.129632, 1.203043, 0.057541, 1.06839],
    [4.025436, 0.421648, 0.394933, -0.360474, 1.252447],
    [2.540257, -0.686049, 0.717323, -0.714755, 0.437363],
    [4.068625, 0.092356, 0.117516, 0.930721, 0.766287],
    [1.472557, -1.297654, 1.344934, 0.404124, -2.067204],
    [1.665829, 0.040094, -0.964618, 0.485223, 0.095182],
    [3.507879, -1.150644, 0.639334, 1.978329, -0.775864],
    [4.333823, 1.002118, 0.66499, -0.044579, -1.140571],
    [2.14383, 0.786127, 1.001607, 1.245656, 0.983517],
    [3.926505, -0.411261, -1.184409, 0.22776, 0.524065],
]


def with_rows(rows: dict[int, list[float]]) -> np.ndarray:
    alpha = ZEROS.copy()
    for row, values in rows.items():
        alpha[row] = values
    return alpha


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        pytest.param(ZEROS, [("tanh", 0)] * 8, id="all equal: the first state, the first that is not none"),
        pytest.param(
            with_rows(dict.fromkeys((3, 4, 5), [0, 0, 0, 0, 1]) | dict.fromkeys(range(10, 15), [0, 0, 0.5, 0.5, 0])),
            [("tanh", 0)] * 2 + [("identity", 0), ("tanh", 0), ("relu", 0)] + [("tanh", 0)] * 3,
            id="ties of states and of activations",
        ),
        pytest.param(
            with_rows({1: [4, 2, 0, 0, 0], 2: [-4, 1, 0, 0, 0]}) - 1,
            [("tanh", 0), ("tanh", 1)] + [("tanh", 0)] * 6,
            id="alpha is larger on the one edge, its softmax on the other",
        ),
        pytest.param(
            np.array(NONE_LEADS),
            [("relu", 0), ("relu", 1), ("relu", 1), ("sigmoid", 2)],
            id="none has most of every edge",
        ),
    ],
)
def test_what_the_darts_code_finds(alpha: np.ndarray, expected: list[tuple[str, int]]) -> None:
    space = RNN if len(alpha) == 36 else RecurrentSpace.uniform("cut", ACTIVATION_NAMES, num_nodes=4)
    found = discretise(space, {"recurrent": softmax(alpha, axis=1)})
    assert found == RecurrentGenotype(tuple(expected), space.concat)


@given(st.integers(0, 2**32 - 1))
def test_found_cells_belong_to_the_space(seed: int) -> None:
    drawn = np.random.default_rng(seed).random((36, 5))
    found = discretise(RNN, {"recurrent": drawn})
    RNN.check_genotype(found)
    assert discretise(RNN, one_hot(RNN, found)) == found and "none" not in found.operations
    best = drawn[:, 1:]
    for node, (activation, source) in enumerate(found.recurrent):
        rows = best[RNN.incoming(node)]
        assert rows[source, ACTIVATION_NAMES.index(activation) - 1] == rows.max()


@given(genotypes())
def test_written_and_read(genotype: RecurrentGenotype) -> None:
    written = json.loads(json.dumps(genotype.to_json()))
    assert genotype_from_json(written) == RecurrentGenotype.from_json(written) == genotype
    assert hash(genotype_from_json(written)) == hash(genotype)
    genotype_form(written)
    text = genotype.to_text()
    assert RecurrentGenotype.from_text(text) == genotype_from_text(f"best = {text}\n") == genotype
    assert genotype.canonical().canonical() == genotype.canonical()
    assert genotype.canonical() == replace(genotype, recurrent_concat=genotype.recurrent_concat[::-1]).canonical()


def test_published_text(tmp_path: Path) -> None:
    assert RecurrentGenotype.from_text(V1) == GENOTYPES["DARTS_V1_RNN"]
    assert RecurrentGenotype.from_text(V2) == GENOTYPES["DARTS_V2_RNN"]
    genotype = GENOTYPES["DARTS_V2_RNN"]
    assert genotype.to_text() == V2 and genotype.to_json()["recurrent"][4] == ["tanh", 2]
    assert genotype.edges("recurrent")[5] == ("sigmoid", 5)  # of node 5, which is state 6
    assert genotype.nodes("recurrent") == tuple(range(8)) and genotype.concat("recurrent") == tuple(range(1, 9))
    assert genotype.operations == ("identity", "relu", "sigmoid", "tanh") and genotype.count("relu") == {"recurrent": 3}
    logged = f"11/07 02:51:09 PM genotype = {V2}"
    positional = V2.replace("recurrent=", "").replace("concat=", "")
    for text in (V2, f"DARTS_V2 = {V2}", logged, positional, json.dumps(genotype.to_json())):
        assert find_genotype(text, OPERATIONS) == genotype
        (tmp_path / "genotype.json").write_text(text)
        assert load_genotype(tmp_path / "genotype.json") == find_genotype(str(tmp_path), OPERATIONS) == genotype
    assert isinstance(genotype_from_text(f"Genotype({CNN})"), Genotype)


def test_states_out_of_order_are_written_as_they_are() -> None:
    genotype = RecurrentGenotype((("tanh", 0),) * 3, (3, 1, 2))
    assert genotype.to_text().endswith("concat=[3, 1, 2])") and genotype.canonical().recurrent_concat == (1, 2, 3)
    assert RecurrentGenotype((("tanh", 0),), (1,)).to_text() == "Genotype(recurrent=[('tanh', 0)], concat=range(1, 2))"


def test_names_that_cells_of_images_have_too() -> None:
    for name in ("DARTS_V1", "DARTS_V2"):
        assert find_genotype(name, OPERATIONS) is find_genotype(name, space=S5) is GENOTYPES[name]
        for space in (RNN, RNN_ROBUST):
            assert find_genotype(name, OPERATIONS, space) is GENOTYPES[f"{name}_RNN"]
    assert find_genotype("DARTS_V1_RNN") is GENOTYPES["DARTS_V1_RNN"]
    assert find_genotype("NASNet-A", space=RNN) is GENOTYPES["NASNet-A"]


def test_enas_averages_the_states_that_no_node_reads() -> None:
    enas = GENOTYPES["ENAS"]
    read = {source for _, source in enas.edges("recurrent")}
    assert set(enas.concat("recurrent")) == set(range(12)) - read and enas.num_nodes == 11


BAD_EDGES: list[tuple[Any, str]] = [
    ([("tanh", 1)], r"genotype.recurrent\[0\]: state 1 cannot read from 1; choose state 0"),
    ([("tanh", 0), ("relu", 2)], r"genotype.recurrent\[1\]: state 2 cannot read from 2; choose a state from 0 to 1"),
    ([("tanh", -1)], r"genotype.recurrent\[0\]: state 1 cannot read from -1"),
    ([("tanh", True)], r"genotype.recurrent\[0\]: state 1 cannot read from True"),
    ([("tanh", 0, 0)], r"genotype.recurrent\[0\]: expected a pair"),
    ([(3, 0)], r"genotype.recurrent\[0\]: the operation must be a name; got 3"),
    (
        [("tahn", 0)],
        r"unknown activation in genotype.recurrent\[0\]: 'tahn'; choose from identity, relu, sigmoid, tanh "
        r"\(did you mean 'tanh'\?\)",
    ),
    ([("none", 0)], r"unknown activation in genotype.recurrent\[0\]: 'none'; choose from identity, relu"),
    ([("sep_conv_3x3", 0)], r"unknown activation in genotype.recurrent\[0\]: 'sep_conv_3x3'"),
    ([], "genotype.recurrent: expected a list of one"),
    ("tanh", "genotype.recurrent: expected a list of one"),
]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({"recurrent": edges, "concat": [0]}, message) for edges, message in BAD_EDGES),
        ({"recurrent": [("tanh", 0)], "concat": [2]}, "genotype.concat: no state 2; choose states from 0 to 1"),
        ({"recurrent": [("tanh", 0)], "concat": []}, "genotype.concat: expected a list of states"),
        ({"recurrent": [("tanh", 0)], "concat": 1}, "genotype.concat: expected a list of states; got 1"),
        ({"recurrent": [("tanh", 0)], "concat": [1, 1]}, r"genotype.concat: lists a state twice.*got \[1, 1\]"),
        ({"recurrent": [("tanh", 0)]}, "genotype: concat missing; a recurrent genotype has recurrent, concat"),
        ({"concat": [1]}, "genotype: recurrent missing"),
    ],
)
def test_bad_genotypes(fields: dict[str, Any], message: str) -> None:
    text = f"Genotype({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
    for read, source in ((genotype_from_json, fields), (genotype_from_text, text)):
        with pytest.raises(InputError, match=f"^{message}") as caught:
            read(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        V2.replace("range(1, 9)", "__import__('os').getcwd()"),
        V2.replace("'sigmoid'", "open('x').read()"),
        V2.replace("range(1, 9)", "range(1, 1000000000000)"),
        V2.replace("concat", "normal_concat"),
        V2[:-1] + ", concat=[1])",
        V2[:-1] + ", normal=[])",
        f"{V2}; {V2}",
        "Genotype([('tanh', 0)], [1], [2])",
    ],
)
def test_other_text_is_refused_and_never_run(text: str) -> None:
    for read in (RecurrentGenotype.from_text, genotype_from_text):
        with pytest.raises(InputError, match="genotype") as caught:
            read(text)
        assert "\n" not in str(caught.value)


def test_the_fields_of_both_kinds_are_named() -> None:
    """Where one of the two is asked for, only its own."""
    with pytest.raises(
        InputError, match="normal, normal_concat, reduce, reduce_concat, or recurrent, concat, each once"
    ):
        genotype_from_text(V2.replace("concat", "output"))
    with pytest.raises(InputError, match="has the fields normal, normal_concat, reduce, reduce_concat, each once"):
        Genotype.from_text(V2)
    with pytest.raises(InputError, match="has the fields recurrent, concat, each once"):
        RecurrentGenotype.from_text(f"Genotype({CNN})")
    for value in ([], "x", None):
        with pytest.raises(InputError, match="genotype: expected an object with recurrent, concat; got"):
            RecurrentGenotype.from_json(value)  # type: ignore[arg-type]


def test_cells_of_other_spaces() -> None:
    small = RecurrentSpace.uniform("two", ("tanh", "relu"), num_nodes=2)
    small.check_genotype(SMALL)
    for space, genotype, message in (
        (RNN, GENOTYPES["DARTS_V2"], "'rnn': it has the cells normal, reduce, the space recurrent"),
        (S5, SMALL, "'s5': it has the cells recurrent, the space normal, reduce"),
        (RNN, GENOTYPES["ENAS"], "'rnn': it has 11 nodes a cell, the space 8"),
        (RNN_ROBUST, GENOTYPES["DARTS_V2_RNN"], "the recurrent cell's edge 0->1 has 'sigmoid', the space has relu"),
        (small, replace(SMALL, recurrent_concat=(2,)), r"the recurrent cell concatenates \[2\], the space \[1, 2\]"),
    ):
        with pytest.raises(InputError, match=f"genotype: does not belong to space .*{message}"):
            one_hot(space, genotype)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_nodes": 0}, "num_nodes must be a whole number of at least 1; got 0"),
        ({"num_nodes": 3}, "recurrent has candidates for 3 edges; 3 nodes have 6 edges"),
        ({"recurrent": (("tanh",), ("tanh",), ())}, "recurrent edge 1->2 needs at least one operation other than none"),
        ({"recurrent": (("none",), ("tanh",), ("tanh",))}, "recurrent edge 0->1 needs at least one"),
        (
            {"recurrent": (("tanh",) * 2, ("tanh",), ("tanh",))},
            "recurrent edge 0->1 lists an operation twice",
        ),
    ],
)
def test_bad_spaces(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"space 'ragged': {message}"):
        replace(RAGGED, **change)


def test_unknown_activations() -> None:
    message = "unknown activation in space 'x': 'skip_connect'; choose from identity, none, relu, sigmoid, tanh"
    with pytest.raises(InputError, match=message):
        RecurrentSpace.uniform("x", ("tanh", "skip_connect"))
    assert hash(RecurrentSpace("x", 1, [["tanh"]])) == hash(RecurrentSpace.uniform("x", ("tanh",), 1))  # type: ignore[arg-type]


def test_a_node_without_its_edge() -> None:
    """What other derivations can leave of a cell of images has no counterpart here."""
    edges = {"recurrent": (("tanh", 0), ("relu", 1))}
    assert RAGGED.architecture(edges, {"recurrent": (1, 1)}) == RAGGED.architecture(edges) == SMALL
    with pytest.raises(InputError, match="'ragged': every node of a recurrent cell reads one state; got .* 1, 0 edges"):
        RAGGED.architecture({"recurrent": (("tanh", 0),)}, {"recurrent": (1, 0)})


@pytest.mark.parametrize("space", [RNN, RNN_ROBUST, RAGGED], ids=lambda space: space.name)
def test_records_of_spaces(space: RecurrentSpace) -> None:
    record = json.loads(json.dumps(space_to_json(space)))
    assert space_from_json(record) == space
    space_form(record)
    for change, message in (
        ({"recurrent": "tanh"}, "^recurrent must be a list; got 'tanh'"),
        ({"recurrent": [["tanh", 3]]}, r"^recurrent\[0\]\[1\] must be text; got 3"),
        ({"recurrent": [["tahn"]]}, "^space '.*': recurrent has candidates for 1 edges"),
        ({"num_nodes": 2.0}, "^num_nodes must be a whole number; got 2.0"),
    ):
        with pytest.raises(InputError, match=message):
            space_form(record | change)


WHOLE = """
task = "language"
name = "mine"
num_nodes = 3
operations = ["none", "tanh", "relu"]

[recurrent]
"0->3" = ["identity"]
"1 -> 2" = ["sigmoid", "tanh"]
"""
GOOD = 'task = "language"\nnum_nodes = 2\noperations = ["tanh"]\n'


def write(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(text)
    return str(folder / "own.toml")


def test_whole_file(tmp_path: Path) -> None:
    """Edges 0->1, 0->2, 1->2, 0->3, 1->3, 2->3; the names of operations on images don't matter."""
    space, other = load_space(write(tmp_path, WHOLE), OPERATIONS), ("none", "tanh", "relu")
    candidates = (other, other, ("sigmoid", "tanh"), ("identity",), other, other)
    assert space == RecurrentSpace("mine", 3, candidates)
    own = GOOD.replace("operations", "[recurrent]\noperations")
    assert load_space(write(tmp_path, own), OPERATIONS) == RecurrentSpace.uniform("own", ("tanh",), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD.replace("language", "speech"),
            "unknown task of space .*: 'speech'; choose from classification, lang",
        ),
        (GOOD.replace('"language"', "3"), "unknown task of space .*: 3; choose from"),
        (
            GOOD + "concat = [1]",
            "unknown key in space .*language.*: 'concat'; choose from name, num_nodes",
        ),
        (GOOD + '[normal]\n"0->2" = ["noise"]', "unknown key in space .*language.*: 'normal'; choose from"),
        (GOOD.split("\n", 1)[1] + "[recurrent]", "unknown key in space .*classification.*: 'recurrent'.*, task"),
        (GOOD + '[recurrent]\n"0->3" = ["relu"]', r"\[recurrent\] edge '0->3' leads to no node; choose states 1 to 2"),
        (GOOD + '[recurrent]\n"0->0" = ["relu"]', r"edge '0->0' leads to no node; choose states 1 to 2"),
        (GOOD + '[recurrent]\n"1->1" = ["relu"]', "edge '1->1' would close a cycle; state 1 can read states 0 to 0"),
        (GOOD + '[recurrent]\n"0-1" = ["relu"]', '\'0-1\' is not an edge; write "source->state", e.g. "0->1"'),
        (GOOD + '[recurrent]\n"0->1" = ["elu"]', "unknown activation in space 'own': 'elu'.*did you mean 'relu'"),
        (GOOD.replace("tanh", "skip_connect"), "unknown activation in space 'own': 'skip_connect'; choose from"),
        ('task = "language"\nnum_nodes = 2', r"no operations for some edges of \[recurrent\]"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_space(write(tmp_path, text), OPERATIONS)
    assert "\n" not in str(caught.value)
