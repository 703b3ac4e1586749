"""Are cells written right for other tools?"""

from __future__ import annotations

from jaxdarts.reports.graphs import state_name, to_dot, to_mermaid
from jaxdarts.spaces import Genotype, RecurrentGenotype


def test_text_formats() -> None:
    genotype = Genotype((('a"b', 0), ("skip_connect", 1)), (2,), (("skip_connect", 0), ("skip_connect", 1)), (2,))
    dot, mermaid = to_dot(genotype), to_mermaid(genotype)
    assert 'normal_0 -> normal_2 [label="a\\"b"];' in dot
    assert 'reduce_2 -> reduce_3 [label="concat"];' in dot
    assert dot.count("{") == dot.count("}")
    assert 'normal_0 -->|"a#quot;b"| normal_2' in mermaid
    assert 'normal_2("node 0")' in mermaid
    assert mermaid.count("-->") == dot.count("->") == 6


def test_state_names() -> None:
    assert [state_name(state) for state in range(4)] == ["c_{k-2}", "c_{k-1}", "node 0", "node 1"]
    assert [state_name(state, 1, "cell") for state in range(3)] == ["c_{k-1}", "node 1", "node 2"]
    assert [state_name(state, 1, "recurrent") for state in range(3)] == ["x, h", "node 1", "node 2"]


def test_a_recurrent_cell() -> None:
    genotype = RecurrentGenotype((("tanh", 0), ("relu", 1), ("identity", 1)), (2, 3))
    dot, mermaid = to_dot(genotype), to_mermaid(genotype)
    assert 'label="Recurrent cell";' in dot and 'recurrent_0 [label="x, h"];' in dot
    assert 'recurrent_1 -> recurrent_3 [label="identity"];' in dot
    assert 'recurrent_4 [label="h"];' in dot and "recurrent_1 -> recurrent_4" not in dot
    assert 'subgraph recurrent["Recurrent cell"]' in mermaid
    assert 'recurrent_0 -->|"tanh"| recurrent_1' in mermaid and 'recurrent_3 -->|"mean"| recurrent_4' in mermaid
    assert mermaid.count("-->") == dot.count("->") == 5 and "concat" not in dot + mermaid


def test_a_node_that_does_not_exist_is_left_out() -> None:
    edge = ("skip_connect", 0)
    genotype = Genotype((edge, edge), (2, 4), (edge,), (3,), (1, 0, 1), (0, 1, 0))
    dot, mermaid = to_dot(genotype), to_mermaid(genotype)
    for text in (dot, mermaid):
        assert "normal_2" in text and "normal_4" in text and "reduce_3" in text
        assert not any(name in text for name in ("normal_3", "reduce_2", "reduce_4"))
    assert 'normal_4 -> normal_5 [label="concat"];' in dot
    assert mermaid.count("-->") == dot.count("->") == 6
