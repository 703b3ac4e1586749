"""Is a genotype written and read without loss, and bad text refused?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.spaces import Genotype

# As published in the DARTS code.
DARTS_V2 = """DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0),
 ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
 ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
 reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
 ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"""
# As the codes log it, with a range.
LOGGED = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1)], reduce_concat=range(2, 3))"
)
SMALL = Genotype((("sep_conv_3x3", 0), ("skip_connect", 1)), (2,), (("max_pool_3x3", 0), ("max_pool_3x3", 1)), (2,))


@given(st.from_type(Genotype))
def test_json_round_trip(genotype: Genotype) -> None:
    read = Genotype.from_json(json.loads(json.dumps(genotype.to_json())))
    assert read == genotype
    assert hash(read) == hash(genotype)


@given(st.from_type(Genotype))
def test_text_round_trip(genotype: Genotype) -> None:
    assert Genotype.from_text(genotype.to_text()) == genotype
    assert Genotype.from_text(f"best = {genotype.to_text()}\n") == genotype


@given(st.from_type(Genotype))
def test_canonical_is_a_normal_form(genotype: Genotype) -> None:
    def swapped(edges: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(edges[i ^ 1] for i in range(len(edges)))

    other = Genotype(swapped(genotype.normal), genotype.normal_concat, swapped(genotype.reduce), genotype.reduce_concat)
    assert other.canonical() == genotype.canonical() == genotype.canonical().canonical()
    assert other.count("skip_connect") == genotype.count("skip_connect")


def test_published_text() -> None:
    genotype = Genotype.from_text(DARTS_V2)
    assert genotype.num_nodes == 4
    assert genotype.normal[5] == ("skip_connect", 0)
    assert genotype.normal[7] == ("dil_conv_3x3", 2)
    assert genotype.reduce_concat == (2, 3, 4, 5)
    assert genotype.operations == ("dil_conv_3x3", "max_pool_3x3", "sep_conv_3x3", "skip_connect")
    assert genotype.count("skip_connect") == {"normal": 2, "reduce": 3}


def test_logged_text_with_range_and_positional_fields() -> None:
    assert Genotype.from_text(LOGGED) == SMALL
    positional = "Genotype([('sep_conv_3x3', 0), ('skip_connect', 1)], range(2, 3), reduce=[['max_pool_3x3', 0], "
    assert Genotype.from_text(positional + "['max_pool_3x3', 1]], reduce_concat=(2,))") == SMALL


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        LOGGED.replace("range(2, 3)", "__import__('os').getcwd()"),
        LOGGED.replace("'sep_conv_3x3'", "open('x').read()"),
        LOGGED.replace("range(2, 3)", "[i for i in (2,)]"),
        LOGGED.replace("range(2, 3)", "range(2, __import__('sys').maxsize)"),
        LOGGED.replace("Genotype(", "eval("),
        f"{LOGGED}; {LOGGED}",
        "Genotype(*x)",
        "Genotype(**x)",
        "Genotype(",
        "",
        "\0",
        "(" * 500,
        "-" * 100_000 + "1",
        LOGGED.replace("2, 3)", "2, " + "+".join("1" * 5000) + ")"),
        LOGGED.replace("reduce_concat", "concat"),
        LOGGED.replace("range(2, 3)", "range(2, 3, 0)"),
        LOGGED.replace("range(2, 3)", "range(2, 1000000000000)"),
        LOGGED[:-1] + ", reduce_concat=[2])",
    ],
)
def test_other_text_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(InputError, match="genotype") as caught:
        Genotype.from_text(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(InputError):
        Genotype.from_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": [("sep_conv_3x3", 0), ("skip_connect", 2)]}, r"genotype.normal\[1\]: state 2 cannot read from 2"),
        ({"normal": [("sep_conv_3x3", -1), ("skip_connect", 1)]}, r"genotype.normal\[0\].*-1"),
        ({"normal": [("sep_conv_3x3", True), ("skip_connect", 1)]}, r"genotype.normal\[0\].*True"),
        ({"normal": [("sep_conv_3x3", 0.0), ("skip_connect", 1)]}, r"genotype.normal\[0\].*0.0"),
        ({"normal": [("sep_conv_3x3", 0)]}, "genotype.normal: expected a list of two"),
        ({"normal": []}, "genotype.normal: expected a list of two"),
        ({"normal": "ab"}, "genotype.normal: expected a list of two"),
        ({"normal": None}, "genotype.normal: expected a list of two"),
        ({"normal": [("sep_conv_3x3", 0), "ab"]}, r"genotype.normal\[1\]: expected a pair"),
        ({"normal": [("sep_conv_3x3", 0), ("skip_connect", 0, 1)]}, r"genotype.normal\[1\]: expected a pair"),
        ({"normal": [(3, 0), ("skip_connect", 1)]}, r"genotype.normal\[0\]: the operation must be a name; got 3"),
        ({"reduce_concat": [3]}, "genotype.reduce_concat: no state 3; choose states from 0 to 2"),
        ({"reduce_concat": []}, "genotype.reduce_concat: expected a list of states"),
        ({"reduce_concat": 2}, "genotype.reduce_concat: expected a list of states; got 2"),
        ({"reduce": [("skip_connect", 0)] * 4}, "normal and reduce must have as many nodes; got 1 and 2 nodes"),
    ],
)
def test_bad_fields(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Genotype.from_json(SMALL.to_json() | change)


@pytest.mark.parametrize("value", [[], "x", None, {"normal": []}])
def test_json_that_is_no_genotype(value: object) -> None:
    with pytest.raises(InputError, match="genotype: .*normal_concat"):
        Genotype.from_json(value)  # type: ignore[arg-type]


def test_edge_from_a_later_node_in_text() -> None:
    with pytest.raises(InputError, match="state 2 cannot read from 3; choose a state from 0 to 1"):
        Genotype.from_text(LOGGED.replace("('skip_connect', 1)", "('skip_connect', 3)"))


# As FairDARTS' code has it: no edge leads to state 3 of the normal cell, and one leads away from there.
FAIR = """FairDARTS_g = Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('skip_connect', 4, 3),
 ('sep_conv_5x5', 4, 1), ('dil_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)], normal_concat=range(2, 6),
reduce=[('avg_pool_3x3', 2, 1), ('skip_connect', 2, 0), ('skip_connect', 3, 2), ('max_pool_3x3', 3, 1),
 ('sep_conv_5x5', 4, 3), ('max_pool_3x3', 4, 0), ('dil_conv_3x3', 5, 1), ('dil_conv_3x3', 5, 4)],
 reduce_concat=range(2, 6))"""
ONE, TWO = ("skip_connect", 0), ("max_pool_3x3", 1)


@st.composite
def sparse(draw: st.DrawFn) -> Genotype:
    """Genotypes of one to five nodes with any number of edges each."""
    nodes = draw(st.integers(1, 5))
    fields: dict[str, Any] = {}
    for cell in ("normal", "reduce"):
        counts = draw(st.lists(st.integers(0, 2), min_size=nodes, max_size=nodes))
        owners = [node for node, count in enumerate(counts) for _ in range(count)]
        fields[cell] = [(draw(st.sampled_from(("noise", "a"))), draw(st.integers(0, node + 1))) for node in owners]
        fields[f"{cell}_concat"] = draw(st.lists(st.integers(0, nodes + 1), min_size=1, unique=True))
        fields[f"{cell}_counts"] = counts
    try:
        return Genotype(**fields)
    except InputError as error:
        assert "no concatenated state is left" in str(error)
        assume(False)
        raise


@given(sparse())
def test_fewer_edges_are_written_and_read(genotype: Genotype) -> None:
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
    assert Genotype.from_text(genotype.to_text()) == genotype
    assert genotype.canonical().canonical() == genotype.canonical()
    assert hash(genotype) == hash(Genotype.from_text(genotype.to_text()))


@given(sparse())
def test_only_what_exists_is_left(genotype: Genotype) -> None:
    """Every edge reads an input or a node with edges, and such states are concatenated."""
    for cell in genotype.cell_types:
        exist = {0, 1, *(node + 2 for node in genotype.nodes(cell))}
        assert {source for _, source in genotype.edges(cell)} <= exist
        assert set(genotype.concat(cell)) <= exist and genotype.concat(cell)
        assert genotype.nodes(cell) == tuple(sorted(genotype.nodes(cell)))


def test_text_of_fair_darts() -> None:
    genotype = Genotype.from_text(FAIR)
    assert (genotype.num_nodes, genotype.is_uneven) == (4, True)
    assert genotype.nodes("normal") == (0, 0, 2, 3, 3) and genotype.normal_counts == (2, 0, 1, 2)
    assert genotype.edges("normal")[2] == ("sep_conv_5x5", 1) and genotype.count("skip_connect")["normal"] == 0
    assert (genotype.concat("normal"), genotype.concat("reduce")) == ((2, 4, 5), (2, 3, 4, 5))
    assert genotype.reduce_counts is None and genotype.nodes("reduce") == (0, 0, 1, 1, 2, 2, 3, 3)
    written = genotype.to_json()
    assert written["normal"][2] == ["sep_conv_5x5", 4, 1] and written["reduce"][4] == ["sep_conv_5x5", 3]
    assert "('sep_conv_5x5', 4, 1), ('dil_conv_3x3', 5, 0)" in genotype.to_text()


def test_a_chain_of_nodes_that_do_not_exist() -> None:
    """State 2 has no edge, 3 reads only 2, and of 4 the edge from 3 goes with it."""
    genotype = Genotype((ONE[:1] + (2,), ("a", 3), ONE), (2, 3, 4), (ONE, TWO) * 3, (2, 3, 4), (0, 1, 2))
    assert genotype == Genotype((ONE,), (4,), (ONE, TWO) * 3, (2, 3, 4), (0, 0, 1))
    assert (genotype.num_nodes, genotype.nodes("normal")) == (3, (2,))


def test_a_last_node_that_does_not_exist_is_remembered() -> None:
    genotype = Genotype((ONE, TWO), (2,), (ONE,), (2,), (2, 0), (1, 0))
    assert genotype.to_json() == {
        "normal": [["skip_connect", 2, 0], ["max_pool_3x3", 2, 1]],
        "normal_concat": [2, 3],
        "reduce": [["skip_connect", 2, 0]],
        "reduce_concat": [2, 3],
    }
    assert Genotype.from_json(genotype.to_json()) == genotype and genotype.num_nodes == 2


def test_two_edges_a_node_are_the_same_however_written() -> None:
    pairs = Genotype((ONE, TWO), (2,), (TWO, ONE), (2,))
    counted = Genotype((ONE, TWO), (2,), (TWO, ONE), (2,), (2,), [2])  # type: ignore[arg-type]
    entries = {"normal": [["skip_connect", 2, 0], ["max_pool_3x3", 2, 1]]}
    for other in (counted, Genotype.from_json(pairs.to_json() | entries)):
        assert other == pairs and hash(other) == hash(pairs) and other.to_json() == pairs.to_json()
    assert not pairs.is_uneven and "_counts" not in str(pairs.to_json()) + pairs.to_text()


def test_entries_in_another_order_of_states() -> None:
    mixed = "Genotype([('b', 3, 2), ('a', 2, 0), ('c', 3, 1)], [2, 3], [('a', 3, 1)], [2, 3])"
    genotype = Genotype.from_text(mixed)
    assert genotype.normal == (("a", 0), ("b", 2), ("c", 1)) and genotype.normal_counts == (1, 2)
    assert (genotype.reduce_counts, genotype.reduce_concat) == ((0, 1), (3,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normal": [("a", 2, 0), ("b", 1)]}, r"genotype.normal\[1\]: expected \(operation, state from 2 on, source\)"),
        ({"normal": [("a", 1, 0)]}, r"genotype.normal\[0\]: expected \(operation, state from 2 on, source\)"),
        ({"normal": [("a", 2, 2)]}, r"genotype.normal\[0\]: state 2 cannot read from 2; choose a state from 0 to 1"),
        ({"normal": [("a", 2, 0)] * 3}, "genotype.normal: state 2 must have 0 to 2 edges; got 3"),
        ({"normal": [("a", 3, 0)]}, "genotype: no state 3 in cells of 1 nodes"),
        ({"normal": [("a", 10**12, 0)], "reduce": [("a", 2, 0)]}, "genotype: no state 1000000000000"),
        ({"normal": [("a", 2, 0)], "normal_concat": [3]}, "genotype: no state 3 in cells of 1 nodes"),
        ({"normal": [("a", 2, 0)], "normal_concat": 2}, "genotype.normal_concat: expected a list of states; got 2"),
        (
            {"normal": [("a", 3, 2)], "reduce": [ONE, TWO, ONE, TWO], "normal_concat": [2, 3]},
            "genotype.normal: no concatenated state is left of the cell's 2 nodes",
        ),
        ({"normal": [], "reduce": [("a", 2, 0)]}, "genotype.normal: expected a list of two"),
    ],
)
def test_bad_entries(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Genotype.from_json(SMALL.to_json() | change)
    assert "\n" not in str(caught.value)


def test_bad_counts() -> None:
    for counts, message in (
        ((3,), "genotype.normal: state 2 must have 0 to 2 edges; got 3"),
        ((True,), "genotype.normal: state 2 must have 0 to 2 edges; got True"),
        ((1,), "genotype.normal: normal_counts are those of 1 edges; got 2"),
        ((), r"genotype.normal_counts: expected a number of edges for every node; got \(\)"),
        ((2, 0), "normal and reduce must have as many nodes; got 2 and 1 nodes"),
    ):
        with pytest.raises(InputError, match=message):
            Genotype((ONE, TWO), (2,), (ONE, TWO), (2,), counts)
