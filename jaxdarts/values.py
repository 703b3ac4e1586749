"""Is a value a whole number, a number, a truth value? Whichever library made it: a tuner's choices are NumPy's."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import numpy as np


def whole(value: object) -> int | None:
    """The value as an int where it is a whole number of Python, NumPy or JAX (of no axes); else None. True is none."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, np.ndarray) and value.ndim):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # text, fractions; a traced number too
        return None


def number(value: object) -> float | None:
    """The value as a float where it is a real number, a whole one too; else None."""
    value = plain(value)
    if isinstance(value, bool):
        return None
    return float(value) if isinstance(value, numbers.Real) else None


def plain(value: Any) -> Any:
    """A number, truth value or text of NumPy or JAX as Python's own, which JSON knows; anything else as it is."""
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        try:
            return value.item()
        except (AttributeError, TypeError):  # traced
            return value
    return value
