"""Which stretch of a text is read in which step of an epoch?

A text stands as rows of tokens side by side (`batchify`); a window is some rows, of which each predicts the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np


class Windows(NamedTuple):
    """The windows of an epoch, in order."""

    starts: np.ndarray  # int32[steps]: the first row
    lengths: np.ndarray  # int32[steps]: rows read, at least 1
    wanted: np.ndarray  # int32[steps]: rows that were asked for; fewer are read at the end of the text


class Lengths(NamedTuple):
    """How an epoch's windows get their lengths."""

    usual: int  # rows
    least: int  # rows asked for, at least
    most: int
    draw: Callable[[jax.Array, int], np.ndarray]  # (key, count) -> int32[count]


def windows_of(rows: int, wanted: Iterable[int]) -> Windows:
    """Windows one after another, until fewer than two rows are left to predict, as the reference has them."""
    starts, lengths, asked = [], [], []
    start = 0
    for length in wanted:
        if start >= rows - 2:
            break
        starts.append(start)
        lengths.append(min(length, rows - 1 - start))
        asked.append(length)
        start += length
    return Windows(*(np.asarray(values, np.int32) for values in (starts, lengths, asked)))


def most_windows(rows: int, least: int) -> int:
    """Windows that an epoch has at most, if each asks for at least so many rows."""
    return max(-(-(rows - 2) // least), 1)


def search_lengths(usual: int) -> Lengths:
    """Of the reference's search: the usual length with probability 0.95, else half of it."""
    half = max(usual // 2, 1)

    def draw(key: jax.Array, count: int) -> np.ndarray:
        return search_length(np.asarray(jax.random.uniform(key, (count,))), usual)

    return Lengths(usual, half, usual, draw)


def search_length(uniform: np.ndarray, usual: int) -> np.ndarray:
    """The lengths for numbers drawn uniformly between 0 and 1."""
    return np.where(uniform < _LONG, usual, max(usual // 2, 1)).astype(np.int32)


def training_lengths(usual: int) -> Lengths:
    """Of the reference's training from scratch: normal about the usual length or half of it, within bounds."""

    def draw(key: jax.Array, count: int) -> np.ndarray:
        first, second = jax.random.split(key)
        uniform = np.asarray(jax.random.uniform(first, (count,)), np.float64)
        return training_length(uniform, np.asarray(jax.random.normal(second, (count,)), np.float64), usual)

    return Lengths(usual, min(_LEAST, usual + _EXTRA), usual + _EXTRA, draw)


def training_length(uniform: np.ndarray, normal: np.ndarray, usual: int) -> np.ndarray:
    """The lengths for numbers drawn uniformly and from the standard normal distribution."""
    middle = np.where(uniform < _LONG, float(usual), usual / 2)
    drawn = (middle + _DEVIATION * normal).astype(np.int32)  # towards zero, as int() does
    return np.minimum(np.maximum(drawn, _LEAST), usual + _EXTRA).astype(np.int32)


_LONG = 0.95  # probability of the usual length
_DEVIATION, _LEAST, _EXTRA = 5, 5, 20  # standard deviation, least rows, and rows beyond the usual length at most
