"""Which training examples train w, and which train alpha?"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from jaxdarts.data.classes import class_places
from jaxdarts.errors import InputError, unknown_choice

Order = Literal["file", "shuffled"]
_CERTAIN = 10.0
"""So many examples are expected of the classes that the parts lack: chance leaves them out once in e^10 or so."""


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
    With `labels`, int [num_examples], every class is in both parts. Where the cut leaves one out by chance, both parts
    are drawn over the classes (`split_note` says so); data sorted by class cannot be cut in file order. `purposes`
    says what each part does, for the messages.
    Raises InputError for an unknown order, a portion outside (0, 1), an empty part, data in order of class, a part
    smaller than the number of classes, or a class with one example.
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
    indices = _ordered(num_examples, order, seed)
    if labels is not None and not _holds_all(labels, indices[:num_train], indices[num_train:]):
        _check(labels, indices[:num_train], indices[num_train:], order, purposes)
        indices = indices[np.argsort(class_places(labels[indices]), kind="stable")]
    return indices[:num_train], indices[num_train:]


def split_note(train: np.ndarray, valid: np.ndarray, order: Order = "file", seed: int = 0) -> str:
    """What to say about the parts that `split_indices` gave; "" where they are the plain cut that `order` names."""
    if np.array_equal(np.concatenate([train, valid]), _ordered(len(train) + len(valid), order, seed)):
        return ""
    return f"both parts are drawn over the classes: split={order} alone leaves a class out of one"


def _ordered(num_examples: int, order: Order, seed: int) -> np.ndarray:
    indices = np.arange(num_examples, dtype=np.int32)
    return np.random.default_rng(seed).permutation(indices) if order == "shuffled" else indices


def _holds_all(labels: np.ndarray, *parts: np.ndarray) -> bool:
    number = len(np.unique(labels))
    return all(len(np.unique(labels[part])) == number for part in parts)


def _check(labels: np.ndarray, train: np.ndarray, valid: np.ndarray, order: Order, purposes: tuple[str, str]) -> None:
    """Refuses parts that lack a class, unless they can be drawn anew."""
    whole = np.bincount(labels)
    num_classes = np.count_nonzero(whole)
    absent = [
        np.flatnonzero((np.bincount(labels[part], minlength=len(whole)) == 0) & (whole > 0)) for part in (train, valid)
    ]
    expected = sum(
        whole[lacking].sum() * len(part) / len(labels) for lacking, part in zip(absent, (train, valid), strict=True)
    )
    if order == "file" and expected >= _CERTAIN:
        purpose, lacking = next(pair for pair in zip(purposes, absent, strict=True) if pair[1].size)
        more = f" ({lacking.size} of {num_classes} classes are missing)" if lacking.size > 1 else ""
        raise InputError(
            f"the part that {purpose} has no example of class {int(lacking[0])}: the data are sorted by class; "
            f"use split=shuffled (--split shuffled){more}"
        )
    for purpose, part in zip(purposes, (train, valid), strict=True):
        if len(part) < num_classes:
            raise InputError(
                f"the part that {purpose} has {len(part)} examples for {num_classes} classes; it needs one of each: "
                "use more images (--limit) or another portion"
            )
    if (whole == 1).any():
        raise InputError(
            f"class {int(np.argmax(whole == 1))} has one example, but the part that {purposes[0]} and the part that "
            f"{purposes[1]} need one each; use more images (--limit), or leave the class out"
        )
