"""Are settings that nothing reads told, and only those?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jaxdarts.methods import METHODS
from jaxdarts.runs.checks import field_names
from jaxdarts.runs.search.assemble import assemble
from jaxdarts.runs.search.config import PRESETS, SearchConfig
from jaxdarts.runs.search.files import search_facts
from jaxdarts.runs.search.unused import _USES, unused_settings
from jaxdarts.runs.search.validity import check_config
from tests.runs.tiny import tiny_config


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_nothing_is_told_where_nothing_was_given(preset: str, method: str) -> None:
    assert unused_settings(dataclasses.replace(PRESETS[preset], method=method)) == {}


def test_the_table_names_fields_once() -> None:
    named = [field for use in _USES for field in use.fields]
    assert len(set(named)) == len(named) and set(named) <= set(field_names(SearchConfig))


@pytest.mark.parametrize(
    ("given", "by"),
    [
        ({"es_window": 7}, "darts-es and darts-ada"),
        ({"es_window": 7, "method": "darts-es", "epochs": 30}, None),
        ({"ada_factor": 5.0, "method": "darts-es"}, "darts-ada"),
        ({"ada_factor": 5.0, "method": "darts-ada"}, None),
        ({"selection_samples": 7}, "random-ws"),
        ({"selection_samples": 7, "method": "random-ws"}, None),
        ({"hypergradient": "first_order", "method": "random-ws"}, "methods that learn alpha"),
        ({"unrolled_steps": 2, "hypergradient": "first_order"}, "hypergradient unrolled"),
        ({"unrolled_steps": 2}, None),
        ({"neumann_terms": 3}, "hypergradient neumann"),
        ({"cg_damping": 0.1, "hypergradient": "conjugate_gradient"}, None),
        ({"cutout_length": 4}, "cutout"),
        ({"cutout_length": 4, "method": "r-darts-dp"}, None),
        ({"retrain_epochs": 3}, "populations"),
        ({"retrain_epochs": 3, "population": 2}, None),
        ({"retrain_epochs": 3, "method": "r-darts-l2"}, None),
        ({"curvature_products": 5, "curvature_every": 0}, "measurements of the curvature"),
    ],
)
def test_a_setting_that_nothing_reads_is_told(given: dict, by: str | None) -> None:
    config = SearchConfig(**given)
    check_config(config)
    assert unused_settings(config) == ({} if by is None else {next(iter(given)): by})


def test_the_banner_tells_them(tmp_path: Path) -> None:
    search = assemble(tiny_config(tmp_path, ada_factor=5.0))
    facts = search_facts(search._replace(config=dataclasses.replace(search.config, cg_damping=0.5)), 10)
    assert facts["no effect"] == "cg_damping (only hypergradient conjugate_gradient), ada_factor (only darts-ada)"
    assert "no effect" not in search_facts(search._replace(config=tiny_config(tmp_path)), 10)
