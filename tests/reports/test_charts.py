"""Can the axes of charts be read?"""

from __future__ import annotations

import re

from jaxdarts.reports.charts import FIRST, Line, line_chart


def test_labels_are_the_values_themselves() -> None:
    """Not their distance from a number in the corner."""
    svg = line_chart("chart", [0, 1], [Line("line", [1.09861, 1.09842], FIRST)])
    first, second, name, *heights = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [first, second, name] == ["0", "1", "epoch"]
    assert len(heights) > 3 and all(1.098 < float(text) < 1.099 for text in heights if text != "line")
