"""Which rows of which arrays are of which connections, while what reads one state is computed together?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.networks import layers
from jaxdarts.networks.cell_plan import Group
from jaxdarts.networks.layers import Normalised


class Rows(NamedTuple):
    """Where a group's results stand in an array with leading rows, one row a member or one for all."""

    group: Group
    rows: tuple[int, ...]


class Read(NamedTuple):
    """Of which array a group's layer reads the ReLU, and of which rows of it."""

    array: jax.Array  # float[rows, C, H, W, B]
    rows: tuple[int, ...] | None = None  # for each member; None: all read the only one

    def own(self) -> jax.Array:
        """The rows that it reads."""
        return self.array if self.rows is None else _take(self.array, self.rows)


class Piece(NamedTuple):
    """What some groups' layers or pools give, with rows in the groups' order."""

    groups: tuple[Group, ...]
    widths: tuple[int, ...]  # each group's rows: one a member, or one for all
    result: jax.Array | Normalised


class NormRows(NamedTuple):
    """How the rows of a batch norm's statistics belong to connections, and to the rows that it normalises."""

    num_rows: int
    reads: tuple[int, ...] | None  # as in BatchNorm
    placed: list[Rows]  # where each group's results stand after it

    def of_pieces(self, pieces: Sequence[Piece]) -> Iterator[list[Rows]]:
        """The same for each of the arrays that it is of, counted from its own first row."""
        start, places = 0, iter(self.placed)
        for piece in pieces:
            yield [
                Rows(one.group, tuple(row - start for row in one.rows))
                for one in itertools.islice(places, len(piece.groups))
            ]
            start += sum(piece.widths)


def norm_groups(groups: Sequence[Group], normalise_pools: bool) -> list[list[Group]]:
    """The groups whose results go into each batch norm of one state's operations, in the order of rows.

    First those with layers, then pools, which only the first batch norm takes.
    """
    depth = max((len(group.operation.layers) for group in groups), default=0)
    found = [[group for group in groups if len(group.operation.layers) > number] for number in range(depth)]
    pools = [group for group in groups if normalise_pools and group.operation.normalise]
    return [found[0] + pools, *found[1:]] if found else [pools] if pools else []


def norm_rows(groups: Sequence[Group], widths: Sequence[int], train: bool) -> NormRows:
    """A row of statistics for each connection, in the order of groups and their members.

    Args:
      groups: what is normalised together.
      widths: each group's input rows: one a member, or one for all.
      train: whether one row for all stays one, or becomes one a member.
    """
    reads: list[int] = []
    placed = []
    start = 0
    for group, width in zip(groups, widths, strict=True):
        own = [start + (index if width > 1 else 0) for index in range(len(group.members))]
        placed.append(Rows(group, tuple(own if train else range(len(reads), len(reads) + len(own)))))
        reads += own
        start += width
    return NormRows(len(reads), None if reads == list(range(start)) else tuple(reads), placed)


def joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours that are still to be normalised in one array, so that programs have fewer operations."""
    found = []
    for is_ready, some in itertools.groupby(pieces, key=lambda piece: isinstance(piece.result, Normalised)):
        own = list(some)
        if is_ready or len(own) == 1:
            found += own
        else:
            groups, widths, results = zip(*own, strict=True)
            found.append(Piece(sum(groups, ()), sum(widths, ()), jnp.concatenate(results)))
    return found


def piece_of(group: Group, result: jax.Array | Normalised) -> Piece:
    """What one group gives."""
    rows = result.y if isinstance(result, Normalised) else result
    return Piece((group,), (rows.shape[0],), result)


def read_together(reads: Sequence[Read]) -> jax.Array:
    """The ReLU of what several groups read of one array."""
    inputs = layers.relu(reads[0].array)
    if reads[0].rows is None:
        return inputs
    return _take(inputs, [row for read in reads for row in read.rows or ()])


def _take(x: jax.Array, rows: Sequence[int]) -> jax.Array:
    if list(rows) == list(range(len(x))):
        return x
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return x[rows[0] : rows[0] + len(rows)]
    return jnp.stack([x[row] for row in rows])


def place(group: Group, width: int) -> Rows:
    """Where a group's results stand in an array of its own."""
    return Rows(group, tuple(index if width > 1 else 0 for index in range(len(group.members))))
