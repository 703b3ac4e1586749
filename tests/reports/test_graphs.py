"""Are cells written right for other tools?"""

from __future__ import annotations

from jaxdarts.reports.graphs import state_name, to_dot, to_mermaid
from jaxdarts.spaces import Genotype


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


def test_a_node_that_does_not_exist_is_left_out() -> None:
    edge = ("skip_connect", 0)
    genotype = Genotype((edge, edge), (2, 4), (edge,), (3,), (1, 0, 1), (0, 1, 0))
    dot, mermaid = to_dot(genotype), to_mermaid(genotype)
    for text in (dot, mermaid):
        assert "normal_2" in text and "normal_4" in text and "reduce_3" in text
        assert not any(name in text for name in ("normal_3", "reduce_2", "reduce_4"))
    assert 'normal_4 -> normal_5 [label="concat"];' in dot
    assert mermaid.count("-->") == dot.count("->") == 6
