"""Does the page of several searches say how they decide?"""

from __future__ import annotations

from pathlib import Path

from jaxdarts.methods import METHODS
from jaxdarts.reports.write import write_report
from tests.reports.test_damage import population
from tests.reports.test_search import OUTCOME, Page, rewritten


def test_the_method_is_told_before_the_member(tmp_path: Path) -> None:
    folder = rewritten(population(tmp_path / "run"), {"method": "r-darts-l2"})
    text = write_report(folder).read_text()
    Page(text)
    assert f"{OUTCOME}r-darts-l2 returns {METHODS['r-darts-l2'].says}. The genotype returned is that of member" in text
