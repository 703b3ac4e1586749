"""How do cells become a network? The chains of blocks that search spaces name as their macro architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxdarts.errors import InputError


class Block(NamedTuple):
    """One link of the chain."""

    cell_type: str | None  # None: a residual block, in which nothing is searched
    channels: int
    reduction: bool  # halves height and width
    previous_reduction: bool  # the block before did


@dataclass(frozen=True)
class Macro:
    """A macro architecture: stem, blocks, classifier.

    Attributes:
      stem_factor: the stem's channels over those of the first cell.
      blocks: (cells as `--cells` counts them, channels of the first cell) -> the chain.
      cells_in: the number of cells, as `--cells` counts them, in a chain of so many blocks.
      min_cells: the fewest.
      cells_unit: what that number counts, for a reader.
      normalise_pools: pools have a batch norm of their own in the search network.
      final_norm: the classifier begins with a batch norm and a ReLU.
      auxiliary: a genotype's network may have an auxiliary head.
    """

    stem_factor: int
    blocks: Callable[[int, int], Iterator[Block]]
    cells_in: Callable[[int], int]
    min_cells: int
    cells_unit: str
    normalise_pools: bool
    final_norm: bool
    auxiliary: bool


def _chain(num_cells: int, channels: int) -> Iterator[Block]:
    """DARTS: the cells at a third and at two thirds are reduction cells and double the channels."""
    previous_reduction = False
    for index in range(num_cells):
        reduction = index in (num_cells // 3, 2 * num_cells // 3)
        channels = 2 * channels if reduction else channels
        yield Block("reduce" if reduction else "normal", channels, reduction, previous_reduction)
        previous_reduction = reduction


def _stages(num_cells: int, channels: int) -> Iterator[Block]:
    """NAS-Bench-201: three stages of as many cells each, between them residual blocks that double the channels."""
    for stage in range(3):
        if stage:
            yield Block(None, channels * 2**stage, reduction=True, previous_reduction=False)
        for index in range(num_cells):
            yield Block("cell", channels * 2**stage, reduction=False, previous_reduction=stage > 0 and index == 0)


MACROS: dict[str, Macro] = {
    "chain": Macro(
        stem_factor=3,
        blocks=_chain,
        cells_in=lambda blocks: blocks,
        min_cells=3,
        cells_unit="cells",
        normalise_pools=True,
        final_norm=False,
        auxiliary=True,
    ),
    "stages": Macro(
        stem_factor=1,
        blocks=_stages,
        cells_in=lambda blocks: (blocks - 2) // 3,
        min_cells=1,
        cells_unit="cells a stage",
        normalise_pools=False,
        final_norm=True,
        auxiliary=False,
    ),
}
"""Name -> macro architecture. To add one, give it an entry here and name it in a space."""


def check_cells(macro: str, cells: int, field: str = "cells") -> None:
    """Raises InputError, naming the field, for fewer cells than the macro architecture needs."""
    least = MACROS[macro].min_cells
    if cells < least:
        raise InputError(f"{field} must be at least {least}; got {cells}")


def num_blocks(macro: str, cells: int) -> int:
    """Blocks of a network with so many cells, as `--cells` counts them."""
    return sum(1 for _ in MACROS[macro].blocks(cells, 1))


def cells_text(macro: str, cells: int) -> str:
    """`8 cells`, or `5 cells a stage`."""
    unit = MACROS[macro].cells_unit
    return f"{cells} {unit if cells != 1 else unit.replace('cells', 'cell')}"
