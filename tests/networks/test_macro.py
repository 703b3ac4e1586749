"""How cells become a network, by macro architecture."""

from __future__ import annotations

import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks.macro import MACROS, cells_text, check_cells, num_blocks


@pytest.mark.parametrize("name", MACROS)
def test_cells_and_blocks(name: str) -> None:
    macro = MACROS[name]
    for cells in range(macro.min_cells, 12):
        assert macro.cells_in(num_blocks(name, cells)) == cells
        check_cells(name, cells)
    with pytest.raises(InputError, match=f"retrain_cells must be at least {macro.min_cells}; got"):
        check_cells(name, macro.min_cells - 1, "retrain_cells")


def test_cells_as_a_reader_sees_them() -> None:
    assert cells_text("chain", 8) == "8 cells"
    assert cells_text("stages", 5) == "5 cells a stage"
    assert cells_text("stages", 1) == "1 cell a stage"
