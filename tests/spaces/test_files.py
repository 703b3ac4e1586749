"""Are spaces and genotypes read from files, and bad files refused in one clear line?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS
from jaxdarts.spaces import S1, SPACES, Genotype, SearchSpace, find_genotype, load_genotype, load_space, space_to_json

WHOLE = """
name = "mine"
num_nodes = 2
concat = [3]
operations = ["skip_connect", "sep_conv_3x3"]

[normal]
"0->2" = ["sep_conv_5x5"]
"2 -> 3" = ["none", "skip_connect", "avg_pool_3x3"]

[reduce]
operations = ["max_pool_3x3"]
"1->3" = ["dil_conv_3x3", "noise"]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_registered_names(name: str) -> None:
    assert load_space(name, OPERATIONS) is SPACES[name]


def test_whole_file(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, WHOLE), OPERATIONS)
    both, pool = ("skip_connect", "sep_conv_3x3"), ("max_pool_3x3",)
    assert space == SearchSpace(
        name="mine",
        num_nodes=2,
        normal=(("sep_conv_5x5",), both, both, both, ("none", "skip_connect", "avg_pool_3x3")),
        reduce=(pool, pool, pool, ("dil_conv_3x3", "noise"), pool),
        concat=(3,),
    )


def test_shortest_file(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, 'num_nodes = 3\noperations = ["skip_connect"]'))
    assert space == SearchSpace.uniform("own", ("skip_connect",), num_nodes=3)


@given(st.from_type(SearchSpace))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_space_can_be_written_as_a_file(tmp_path: Path, space: SearchSpace) -> None:
    lines = [f'name = "{space.name}"', f"num_nodes = {space.num_nodes}", f"concat = {list(space.concat)}"]
    for cell in ("normal", "reduce"):
        lines.append(f"[{cell}]")
        for (node, source), operations in zip(space.edges, space.operations(cell), strict=True):
            lines.append(f'"{source}->{node + 2}" = {json.dumps(operations)}')
    assert load_space(write(tmp_path, "\n".join(lines)), OPERATIONS) == space


@given(st.from_type(SearchSpace))
def test_record_holds_the_whole_space(space: SearchSpace) -> None:
    record = json.loads(json.dumps(space_to_json(space)))
    assert SearchSpace(**record) == space


GOOD = 'num_nodes = 2\noperations = ["skip_connect"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_nodes = ", "is not TOML"),
        (GOOD + "nodes = 3", "unknown key in space .*: 'nodes'; choose from .*num_nodes"),
        ('operations = ["skip_connect"]', "num_nodes must be a whole number of at least 1; got None"),
        (GOOD.replace("2", "0"), "num_nodes must be a whole number of at least 1; got 0"),
        (GOOD.replace("2", "true"), "num_nodes must be a whole number of at least 1; got True"),
        (GOOD.replace("2", '"2"'), "num_nodes must be a whole number of at least 1; got '2'"),
        ("num_nodes = 2", r"no operations for some edges of \[normal\]; give operations"),
        ('num_nodes = 2\n[normal]\noperations = ["skip_connect"]', r"no operations for some edges of \[reduce\]"),
        (
            'num_nodes = 2\noperations = "skip_connect"',
            r"\[normal\] operations must be a list of names.*'skip_connect'",
        ),
        ("num_nodes = 2\noperations = [1, 2]", r"operations must be a list of names.*\[1, 2\]"),
        ("num_nodes = 2\noperations = []", "normal edge 0->2 needs at least one operation other than none"),
        ('num_nodes = 2\noperations = ["none"]', "needs at least one operation other than none"),
        ('num_nodes = 2\noperations = ["noise", "noise"]', "lists an operation twice"),
        (GOOD + "concat = [4]", "concat must name different intermediate nodes, states 2 to 3"),
        (GOOD + "concat = [0]", "concat must name different intermediate nodes, states 2 to 3"),
        (GOOD + "concat = 2", "concat must be a list of states.*got 2"),
        (GOOD + "concat = [2.5]", "concat must be a list of states"),
        (GOOD + "normal = 3", r"\[normal\] must be a table of edges; got 3"),
        (
            GOOD + '[normal]\n"3->2" = ["noise"]',
            r"\[normal\] edge '3->2' would close a cycle; state 2 can read states 0 to 1",
        ),
        (GOOD + '[reduce]\n"2->2" = ["noise"]', r"\[reduce\] edge '2->2' would close a cycle"),
        (GOOD + '[normal]\n"0->1" = ["noise"]', "edge '0->1' leads to no node; choose states 2 to 3"),
        (GOOD + '[normal]\n"0->4" = ["noise"]', "edge '0->4' leads to no node; choose states 2 to 3"),
        (GOOD + '[normal]\n"0-2" = ["noise"]', "'0-2' is not an edge; write"),
        (GOOD + '[normal]\n"0->2" = "noise"', "operations must be a list of names for every edge; got 'noise'"),
        (
            GOOD.replace("skip_connect", "skip_conect"),
            "unknown operation in space .*: 'skip_conect'.*did you mean 'skip_connect'",
        ),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_space(write(tmp_path, text), OPERATIONS)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="space: cannot read .*missing.toml.*No such file"):
        load_space(str(tmp_path / "missing.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="space: cannot read"):
        load_space(str(tmp_path / "bytes.toml"))
    with pytest.raises(
        InputError, match="unknown space 's9'; choose from darts, nasbench201, path/to/space.toml, rnn, rnn-robust"
    ):
        load_space("s9")


def test_genotype_files(tmp_path: Path) -> None:
    genotype = next(iter(S1.genotypes()))
    for name, text in (("a.json", json.dumps(genotype.to_json())), ("b.txt", f"BEST = {genotype.to_text()}")):
        (tmp_path / name).write_text(text)
        assert load_genotype(tmp_path / name) == genotype
    with pytest.raises(InputError, match="genotype: cannot read .*missing"):
        load_genotype(tmp_path / "missing")
    (tmp_path / "cut.json").write_text('{"normal": [')
    with pytest.raises(InputError, match="genotype: .*cut.json.* is not JSON"):
        load_genotype(tmp_path / "cut.json")
    (tmp_path / "later.json").write_text('{"normal": [["skip_connect", 7]], "reduce": []}')
    with pytest.raises(InputError, match="genotype.*later.json"):
        load_genotype(tmp_path / "later.json")
    assert isinstance(Genotype.from_json(genotype.to_json()), Genotype)


EDGES = "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 1)]"
BIG = "[" + ", ".join(f"('sep_conv_3x3', {source})" for source in (0, 1) * 8) + "]"


@pytest.mark.parametrize(
    "text",
    [
        f"Genotype(normal={EDGES}, normal_concat=range(2, 4), reduce={EDGES}, reduce_concat=range(2, 4))",
        f"Genotype(normal={EDGES}, normal_concat=[2, 3], reduce={EDGES}, reduce_concat=(2, 3))",
        f"  PC_DARTS = Genotype(normal={EDGES}, normal_concat=list(range(2, 4)),\n"
        f" reduce={EDGES}, reduce_concat=[2, 3])",
        f"Genotype({EDGES}, range(2, 4), {EDGES}, range(2, 4))",
        f"11/07 02:51:09 PM genotype = Genotype(normal={EDGES}, normal_concat=range(2, 4), reduce={EDGES}, "
        "reduce_concat=range(2, 4))",
    ],
)
def test_text_in_a_name_s_place(text: str) -> None:
    assert find_genotype(text, OPERATIONS) == Genotype.from_text(
        f"Genotype({EDGES}, range(2, 4), {EDGES}, range(2, 4))"
    )


def test_long_and_wrong_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text over 255 bytes can't be looked up as a name; what begins as a genotype is explained as one."""
    genotype = find_genotype(f"Genotype({BIG}, range(2, 10), {BIG}, range(2, 10))", OPERATIONS)
    assert find_genotype(json.dumps(genotype.to_json()), OPERATIONS) == genotype
    for text, message in (
        (f"Genotype({BIG}, range(2, 11), {BIG}, range(2, 10))", "genotype.normal_concat: no state 10"),
        (f"Genotype({BIG}, range(2, 10), {BIG}", "genotype: cannot read .Genotype"),
        ('{"normal": [', "genotype: .* is not JSON"),
        ("|none~0", "genotype: expected"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            find_genotype(text)
        assert len(str(caught.value)) < 300
    monkeypatch.chdir(tmp_path)  # a file of such a name is still the file
    Path("Genotype(1)").write_text(genotype.to_text())
    assert find_genotype("Genotype(1)") == genotype
