"""Which windows of a text are trained on and measured, in which order?

Texts stand side by side: column b of a part is the b-th of its contiguous pieces, and windows are stretches of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.data import batchify
from jaxdarts.data.windows import Lengths, Windows, most_windows, windows_of
from jaxdarts.errors import InputError
from jaxdarts.keys import run_keys
from jaxdarts.tasks.base import Stream


class Batch(NamedTuple):
    """A window of a text."""

    tokens: jax.Array  # int32[T, B]
    targets: jax.Array  # int32[T, B]: the words that follow
    length: jax.Array  # int32: time steps that count, at most T
    counted: jax.Array  # int32: time steps that a mean divides by
    wanted: jax.Array  # int32: time steps that were asked for; fewer count at the end of a text
    fresh: jax.Array  # bool: whether the hidden state is 0 before


class Epochs:
    """The windows of every epoch; what shares a seed has the same."""

    def __init__(self, seed: int, rows: int, lengths: Lengths) -> None:
        self._key, self._rows, self.lengths = run_keys(seed).order, rows, lengths
        self._known: dict[int, Windows] = {}

    @property
    def most(self) -> int:
        """Windows that an epoch has at most."""
        return most_windows(self._rows, self.lengths.least)

    def windows(self, epoch: int) -> Windows:
        """Those of an epoch."""
        if epoch not in self._known:
            wanted = self.lengths.draw(jax.random.fold_in(self._key, epoch), self.most)
            self._known[epoch] = windows_of(self._rows, wanted)
        return self._known[epoch]

    def steps(self, epoch: int) -> int:
        """How many they are."""
        return len(self.windows(epoch).starts)

    def cursor(self, key: jax.Array, epoch: int) -> _Cursor:
        """What the epoch's batches are drawn from; the key of a run's own is not used."""
        windows = self.windows(epoch)
        first = sum(self.steps(before) for before in range(epoch))
        # All epochs have as many entries as the longest may have, so that they are one program.
        return _Cursor(jnp.int32(first), *(jnp.asarray(np.resize(values, self.most)) for values in windows))


class _Cursor(NamedTuple):
    first: jax.Array  # int32: the step of the run that reads the epoch's first window
    starts: jax.Array  # int32[windows]
    lengths: jax.Array  # int32[windows]
    wanted: jax.Array  # int32[windows]


class Layouts(NamedTuple):
    """A part of the text on the device, side by side in two ways; behind it rows that the last window may read."""

    trained: jax.Array | None  # int32[rows, B], as it is trained on; None: it isn't
    measured: jax.Array | None  # int32[rows, B'], as it is measured; None: it isn't


def trained(tokens: np.ndarray, batch_size: int, epochs: Epochs, purpose: str) -> Stream:
    """A part that trains w; it is not measured.

    Raises:
      InputError: the text is too short.
    """
    most, rows = epochs.lengths.most, laid_out(tokens, batch_size, epochs.lengths.usual, purpose)

    def batch(data: Layouts, cursor: _Cursor, step: jax.Array, key: jax.Array) -> Batch:
        index = step - cursor.first
        length = cursor.lengths[index]
        return _window(data.trained, cursor.starts[index], most, length, length, cursor.wanted[index], index == 0)

    return Stream(
        data=Layouts(_padded(rows, most), None),
        size=len(tokens),
        steps=epochs.steps(0),
        start=epochs.cursor,
        batch=batch,
        positions=_never,
        plain=_never,
        held=_never,
        steps_in=epochs.steps,
    )


def measured(tokens: np.ndarray, side_by_side: int, usual: int, purpose: str, count_all_rows: bool = False) -> Stream:
    """A part that is measured, window by window of the usual length.

    `count_all_rows`: means divide by all rows, also the last, which is not predicted, as the published code does.

    Raises:
      InputError: the text is too short.
    """
    rows = laid_out(tokens, side_by_side, 1, purpose)

    def positions() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        last = len(rows) - 1
        for start in range(0, last, usual):
            length = min(usual, last - start)
            counted = length + (count_all_rows and start + usual >= last)
            yield np.array([start, length, counted], np.int32), np.arange(usual) < length

    def plain(data: Layouts, position: jax.Array) -> Batch:
        start, length, counted = position
        return _window(data.measured, start, usual, length, counted, jnp.int32(usual), start == 0)

    data = Layouts(None, _padded(rows, usual))
    return Stream(data, len(tokens), 0, _never, _never, positions, plain, _never, side_by_side=side_by_side)


def followed(stream: Stream, tokens: np.ndarray, batch_size: int, epochs: Epochs, purpose: str) -> Stream:
    """A measured part that also trains alpha: its windows begin at the rows where those of w do, as far as it is long.

    They have the usual length, so that some overlap.

    Raises:
      InputError: the text is too short.
    """
    usual, rows = epochs.lengths.usual, laid_out(tokens, batch_size, epochs.lengths.usual, purpose)
    last = len(rows) - 1

    def window(data: Layouts, start: jax.Array, fresh: jax.Array) -> Batch:
        length = jnp.minimum(usual, last - start)
        return _window(data.trained, start, usual, length, length, jnp.int32(usual), fresh)

    def batch(data: Layouts, cursor: _Cursor, step: jax.Array, key: jax.Array) -> Batch:
        index = step - cursor.first
        return window(data, cursor.starts[index] % last, index == 0)

    def held(data: Layouts, number: jax.Array) -> Batch:
        return window(data, number * usual, jnp.bool_(True))

    return stream._replace(
        data=Layouts(_padded(rows, usual), stream.data.measured),
        steps=epochs.steps(0),
        start=epochs.cursor,
        batch=batch,
        held=held,
        num_held=last // usual,
        steps_in=epochs.steps,
    )


def laid_out(tokens: np.ndarray, side_by_side: int, usual: int, purpose: str) -> np.ndarray:
    """int32[rows, side_by_side]. Raises InputError unless windows of the usual length fit in."""
    rows = batchify(tokens, side_by_side, f"the text that {purpose}")
    if usual > len(rows) - 1:
        raise InputError(
            f"sequence_length must be at most {len(rows) - 1} with batch_size {side_by_side}: the text that {purpose} "
            f"has {len(rows)} rows; got {usual}; a smaller batch_size makes more rows"
        )
    return rows


def _window(
    rows: Any, start: jax.Array, most: int, length: jax.Array, counted: jax.Array, wanted: jax.Array, fresh: jax.Array
) -> Batch:
    read = jax.lax.dynamic_slice_in_dim(rows, start, most + 1)
    return Batch(read[:-1], read[1:], length, counted, wanted, fresh)


def _padded(rows: np.ndarray, more: int) -> jax.Array:
    return jnp.asarray(np.concatenate([rows, np.zeros((more + 1, rows.shape[1]), rows.dtype)]))


def _never(*arguments: Any) -> Any:
    raise AssertionError("this part is not used like that")
