"""Which examples may be taken without leaving a class out?"""

from __future__ import annotations

import numpy as np

from jaxdarts.errors import InputError

_FAR = 5.0
"""Standard deviations from a class's share that no random order reaches."""


def class_places(labels: np.ndarray) -> np.ndarray:
    """float64 [N]: where each example stands within its class; 0 the first, 1 the last, between them in proportion.

    Taken by rising place, the examples of int [N] labels represent every class from the first on.
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    ranks, sizes = np.arange(len(labels)) - np.repeat(starts, counts), np.repeat(counts, counts)
    places = np.empty(len(labels))
    places[order] = np.where(ranks == 0, 0.0, np.where(ranks == sizes - 1, 1.0, (ranks + 0.5) / sizes))
    return places


def limited_indices(labels: np.ndarray, count: int, *, every_class: bool = True) -> tuple[np.ndarray, str]:
    """Indices, rising, of `count` examples, and what to say about them ("" for the first ones in file order).

    The first ones are taken where their classes have the numbers that a random order could give. Else they are drawn
    over the classes in proportion. With `every_class` none may be missing, and there must be at least `count` of them.
    Raises InputError for a `count` below the number of classes, if every class is wanted.
    """
    first = np.arange(min(count, len(labels)))
    if count >= len(labels):
        return first, ""
    classes, inverse = np.unique(labels, return_inverse=True)
    if every_class and count < len(classes):
        raise InputError(f"limit must be at least {len(classes)}, an image for each class; got {count}")
    found, whole = (np.bincount(part, minlength=len(classes)) for part in (inverse[:count], inverse))
    part = count / len(labels)
    share = whole * part
    spread = np.sqrt(share * (1 - part) * (1 - whole / len(labels)))  # of the hypergeometric distribution, about
    is_fair = bool((np.abs(found - share) <= 1 + _FAR * spread).all())
    if is_fair and (found.all() or not every_class):
        return first, ""
    kept = np.sort(np.argsort(class_places(labels), kind="stable")[:count])
    number = np.count_nonzero(found)
    unlike = f"hold {number} of {len(classes)} classes" if number < len(classes) else "hold the classes unequally"
    return kept, f"{count} of {len(labels)} images are drawn over the classes: the first ones {unlike}"
