"""Is a genotype written and read without loss, and bad text refused?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
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
