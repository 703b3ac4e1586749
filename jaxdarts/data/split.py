"""Which training examples train w, and which train alpha?"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from jaxdarts.errors import InputError, unknown_choice

Order = Literal["file", "shuffled"]
_CERTAIN = 10.0


def split_indices(
    num_examples: int,
    train_portion: float = 0.5,
    order: Order = "file",
    seed: int = 0,
    *,
    labels: np.ndarray | None = None,
    purposes: tuple[str, str] = ("trains w", "trains alpha"),
) -> tuple[np.ndarray, np.ndarray]:
    """Indices int32 of the part that trains w and of the part that trains alpha (the search's validation part).

    The first has floor(train_portion * num_examples) examples, the second the rest; they are disjoint. "file" cuts the
    data in its own order, as RobustDARTS does (search/args.py:155-167); "shuffled" permutes by `seed` first.
    With `labels`, int [num_examples], a cut that leaves a class out of one part though chance would not (expectation
    of 10 or more) is refused: data sorted by class cannot be cut in file order. `purposes` says what each part does,
    for that message.
    Raises InputError for an unknown order, a portion outside (0, 1), an empty part, or such a cut.
    """
    if order not in get_args(Order):
        raise unknown_choice("split", order, get_args(Order))
    if not 0 < train_portion < 1:
        raise InputError(f"train_portion must be greater than 0 and less than 1, not {train_portion}")
    num_train = math.floor(train_portion * num_examples)
    if num_train < 1 or num_train >= num_examples:
        raise InputError(
            f"train_portion {train_portion} of {num_examples} examples leaves {num_train} to train w and "
            f"{num_examples - num_train} to train alpha; both need at least 1"
        )
    indices = np.arange(num_examples, dtype=np.int32)
    if order == "shuffled":
        indices = np.random.default_rng(seed).permutation(indices)
    train, valid = indices[:num_train], indices[num_train:]
    if labels is not None:
        _check_classes(labels, train, valid, purposes)
    return train, valid


def _check_classes(labels: np.ndarray, train: np.ndarray, valid: np.ndarray, purposes: tuple[str, str]) -> None:
    num_classes = int(labels.max()) + 1
    for part, indices in zip(purposes, (train, valid), strict=True):
        expected = np.bincount(labels, minlength=num_classes) * len(indices) / len(labels)
        absent = np.flatnonzero((np.bincount(labels[indices], minlength=num_classes) == 0) & (expected >= _CERTAIN))
        if absent.size:
            raise InputError(
                f"the part that {part} has no example of class {int(absent[0])}: the data are sorted by class; "
                "use split=shuffled (--split shuffled)"
            )
