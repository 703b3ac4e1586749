"""How far are arrays from those of a golden file?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdarts.errors import InputError

# Of the reference's norm; what is smaller than this beside its group is rounding.
ROUNDING = 1e-12

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One line of the table."""

    quantity: str
    error: float


def relative_error(ours: Mapping[str, Any], reference: Mapping[str, np.ndarray], scale: float = 0.0) -> float:
    """|ours - reference| / |reference| over all arrays; absolute or relative to `scale` where the reference is zero."""
    differences, squares = 0.0, 0.0
    for name, expected in reference.items():
        array = np.asarray(ours[name])
        if array.shape != expected.shape:
            raise InputError(f"{name or 'an array'} has shape {expected.shape}; expected {array.shape}")
        differences += float(np.sum(np.square(array - expected)))
        squares += float(np.sum(np.square(expected)))
    norm = float(np.sqrt(squares))
    if norm <= ROUNDING * (scale or 1.0):
        norm = scale or 1.0
    error = float(np.sqrt(differences)) / norm
    return error if np.isfinite(error) else np.inf


def array_rows(name: str, ours: Mapping[str, Any], reference: Arrays) -> Iterator[Row]:
    """The row of an array, if the file has it."""
    if name in reference:
        if ours[name] is None:
            raise InputError(f"{name} is given, but the network has none")
        yield Row(name, relative_error({name: ours[name]}, {name: reference[name]}))


def group_rows(name: str, ours: Mapping[str, Any], reference: Arrays) -> Iterator[Row]:
    """The rows of a group of arrays, if the file has it: all together, and the worst."""
    reference = {key: array for key, array in reference.items() if not key.endswith("num_batches_tracked")}
    if not reference:
        return
    ours = same_keys(name, ours, reference)
    scale = float(np.sqrt(sum(np.sum(np.square(array)) for array in reference.values())))
    yield Row(name, relative_error(ours, reference))
    errors = {key: relative_error({key: ours[key]}, {key: reference[key]}, scale) for key in reference}
    worst = max(errors, key=lambda key: errors[key])
    yield Row(f"{name}, worst tensor ({worst})", errors[worst])


def same_keys(name: str, ours: Mapping[str, Any], reference: Arrays) -> dict[str, Any]:
    """Of our arrays those that the file has. Raises InputError where ours lack one."""
    unknown = sorted(set(reference) - set(ours))
    if unknown:
        raise InputError(f"{name}/{unknown[0]}: the network has no such tensor")
    return {key: ours[key] for key in reference}
