"""What is a data set here, and what must be true of it before anything is compiled?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdarts.data.classes import limited_indices
from jaxdarts.data.resize import resize_images
from jaxdarts.errors import InputError

SMALLEST_SIDE = 8
_CHUNK = 1024
_LARGEST = 1e18
"""Of a pixel's size: the squares of larger ones leave float32."""
_LEAST_DEVIATION = 1e-6
"""Of a channel; a smaller one counts as none."""
_LEAST_RANGE = 10 * _LEAST_DEVIATION


@dataclass(frozen=True, eq=False)
class Dataset:
    """An image classification set in memory (host arrays; put them on the device once).

    Axes: N examples, H rows, W columns, C channels.
    """

    name: str
    train_images: np.ndarray
    """uint8 (0..255) or float32 (used as it is) [N, H, W, C], in file order."""
    train_labels: np.ndarray
    """int32 [N], each in 0..num_classes-1."""
    test_images: np.ndarray | None
    """As `train_images`; None where the set has no test part."""
    test_labels: np.ndarray | None
    """As `train_labels`."""
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel; for uint8 images in units of 0..1, that is of pixel/255."""
    std: tuple[float, ...]
    """Per channel, in the units of `mean`; never zero."""
    notes: tuple[str, ...] = ()
    """What was done to the data that their owner may not expect, a line each: for the user to read."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels


@dataclass(frozen=True)
class Request:
    """What a reader is asked for. A reader may ignore every field but `argument`."""

    name: str
    """The whole name, for messages."""
    argument: str
    """What follows the colon (a path, a name in tensorflow-datasets), or the name itself."""
    data_dir: Path
    download: bool = False
    limit: int | None = None
    seed: int = 0
    image_size: int | None = None
    test_limit: int | None = None


class RawData(NamedTuple):
    """What a reader returns, unchecked."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray | None
    test_labels: np.ndarray | None
    class_names: tuple[str, ...] | None
    """None: the classes are the sorted distinct training labels, renumbered from 0."""
    notes: tuple[str, ...] = ()
    """Becomes part of `Dataset.notes`."""


def one_line(error: BaseException) -> str:
    """The text of another library's error as one line, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def limited_sizes(num_train: int, num_test: int, limit: int | None, test_limit: int | None = None) -> tuple[int, int]:
    """How many training and test examples are left: by `limit` the same part of both, never none. A fixed point."""
    kept = num_train if limit is None else min(limit, num_train)
    tests = min(num_test, max(1, round(num_test * kept / max(num_train, 1))) if test_limit is None else test_limit)
    return kept, tests


def checked_images(source: str, images: np.ndarray) -> np.ndarray:
    """Images as uint8 or float32 [N, H, W, C]; grey [N, H, W] gets its channel axis.

    Raises InputError for another dtype or number of axes, sides below 8 pixels, no images, NaN or infinity.
    """
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"{source}: images have dtype {images.dtype}; save them as uint8 (0..255) or float32")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4:
        raise InputError(f"{source}: images have shape {images.shape}; expected [N, H, W, C], or [N, H, W] for grey")
    num_images, height, width, channels = images.shape
    if num_images == 0 or channels == 0:
        raise InputError(f"{source}: there are no images (shape {images.shape})")
    if min(height, width) < SMALLEST_SIDE:
        looks_transposed = height in (1, 3) and width == channels
        hint = "; the channel axis must be the last: [N, H, W, C]" if looks_transposed else ""
        raise InputError(
            f"{source}: images of {height}x{width} pixels are too small; the least is {SMALLEST_SIDE}x{SMALLEST_SIDE}"
            f"{hint}"
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
        bad = ~np.isfinite(images).all(axis=(1, 2, 3))
        if bad.any():
            raise InputError(
                f"{source}: {int(bad.sum())} of {num_images} images hold NaN or infinite values, "
                f"the first is image {int(bad.argmax())}"
            )
        largest = max(float(images.max()), -float(images.min()))
        if largest > _LARGEST:
            raise InputError(f"{source}: images hold values as large as {largest:.2g}; scale them, to about 0..1")
    return images


def checked_labels(source: str, labels: np.ndarray, num_images: int) -> np.ndarray:
    """Labels as int64 [N]; [N, 1] is flattened. Raises InputError for anything but one integer >= 0 for each image."""
    if labels.dtype.kind not in "iu":
        raise InputError(f"{source}: labels have dtype {labels.dtype}; expected integers, one for each image")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(f"{source}: labels have shape {labels.shape}; expected [N], one integer for each image")
    if len(labels) != num_images:
        raise InputError(f"{source}: {num_images} images but {len(labels)} labels")
    if labels.min() < 0:
        raise InputError(f"{source}: label {int(labels.min())} is negative; labels are integers from 0")
    if labels.max() > np.iinfo(np.int64).max:
        raise InputError(f"{source}: label {int(labels.max())} is too large; number the classes from 0")
    return labels.astype(np.int64)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixel/255 for uint8. A constant channel gets deviation 1."""
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    count = images[..., 0].size
    mean = sum(chunk.sum(axis=(0, 1, 2), dtype=np.float64) for chunk in chunks) / count
    variance = sum(np.square(chunk - mean.astype(np.float32)).sum(axis=(0, 1, 2), dtype=np.float64) for chunk in chunks)
    std = np.sqrt(variance / count) / scale
    std = np.where(std > _LEAST_DEVIATION, std, 1.0)
    return tuple(map(float, mean / scale)), tuple(map(float, std))


def check_contents(source: str, images: np.ndarray) -> None:
    """Raises InputError for images from which nothing can be learned: every channel is constant, or nearly so."""
    tolerance = 0 if images.dtype == np.uint8 else _LEAST_RANGE
    first = images[0, 0, 0]
    low, high = first, first
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        low, high = np.minimum(low, chunk.min(axis=(0, 1, 2))), np.maximum(high, chunk.max(axis=(0, 1, 2)))
        if (high - low > tolerance).any():
            return
    at_all = f" (they differ by less than {tolerance:g}; scale them, to about 0..1)" if (high > low).any() else ""
    raise InputError(f"{source}: all pixels of all {len(images)} training images are the same{at_all}")


def data_digest(dataset: Dataset) -> str:
    """SHA-256, as hexadecimal text, of all that can be learned from: images, labels and the classes' names.

    Equal for the same data whatever their name. Cost: about 0.1 s for 200 MB where the processor has instructions
    for it, else several times that.
    """
    digest = hashlib.sha256(repr(dataset.class_names).encode())
    for array in (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels):
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.shape} {array.dtype.newbyteorder('<').str}".encode())
            stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(stored.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def make_dataset(
    name: str,
    raw: RawData,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    image_size: int | None = None,
    statistics: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Dataset:
    """Checks what a reader returned, cuts and resizes it, and completes it with classes and normalisation constants.

    `limit` keeps the first images, or draws over the classes where these leave one out (`limited_indices`). A reader
    may have cut already, in the same way. `statistics` are known (mean, std); without them they are computed from the
    training images that `limit` leaves.
    Raises InputError (one line) for the first thing that is wrong. Cost: one or two passes over the training images.
    """
    source = f"data set {name!r}"
    train_images = checked_images(source, raw.train_images)
    train_labels = checked_labels(source, raw.train_labels, len(train_images))
    test_images, test_labels = None, None
    if (raw.test_images is None) != (raw.test_labels is None):
        raise InputError(f"{source}: the test part has images without labels, or labels without images")
    if raw.test_images is not None and raw.test_labels is not None:
        test_images = checked_images(f"{source}, test part", raw.test_images)
        test_labels = checked_labels(f"{source}, test part", raw.test_labels, len(test_images))
        if test_images.shape[1:] != train_images.shape[1:] or test_images.dtype != train_images.dtype:
            raise InputError(
                f"{source}: test images are {test_images.shape[1:]} {test_images.dtype}, "
                f"training images {train_images.shape[1:]} {train_images.dtype}"
            )

    if raw.class_names is None:
        classes = np.unique(train_labels)
        class_names = tuple(str(value) for value in classes)
        train_labels = np.searchsorted(classes, train_labels)
        if test_labels is not None:
            unknown = np.setdiff1d(test_labels, classes)
            if unknown.size:
                raise InputError(f"{source}: test label {int(unknown[0])} does not occur among the training labels")
            test_labels = np.searchsorted(classes, test_labels)
    else:
        class_names = raw.class_names
        for labels in (train_labels, test_labels):
            if labels is not None and labels.max() >= len(class_names):
                raise InputError(f"{source}: label {int(labels.max())} but only {len(class_names)} classes")

    num_test = 0 if test_images is None else len(test_images)
    num_train, num_test = limited_sizes(len(train_images), num_test, limit, test_limit)
    notes = list(raw.notes)
    kept, note = limited_indices(train_labels, num_train)
    notes.append(note)
    train_images, train_labels = _taken(train_images, kept), train_labels[kept]
    if test_images is not None and test_labels is not None:
        kept, note = limited_indices(test_labels, num_test, every_class=False)
        notes.append(note and f"of the test part, {note}")
        test_images, test_labels = _taken(test_images, kept), test_labels[kept].astype(np.int32)
    if len(np.unique(train_labels)) < 2:
        only = class_names[int(train_labels[0])]
        raise InputError(f"{source}: all {num_train} training images have one class, {only!r}; at least 2 are needed")
    check_contents(source, train_images)
    notes.append(_absent("the training part", train_labels, class_names))
    if test_labels is not None:
        notes.append(_absent("the test part", test_labels, class_names))
    if image_size is not None:
        train_images = resize_images(train_images, image_size)
        test_images = None if test_images is None else resize_images(test_images, image_size)
    mean, std = statistics if statistics is not None else channel_statistics(train_images)
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels.astype(np.int32),
        test_images=test_images,
        test_labels=test_labels,
        num_classes=len(class_names),
        class_names=class_names,
        mean=tuple(mean),
        std=tuple(std),
        notes=tuple(filter(None, notes)),
    )


def _taken(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """images[kept], without a copy where these are the first ones."""
    return images[: len(kept)] if kept[-1] == len(kept) - 1 else images[kept]


def _absent(part: str, labels: np.ndarray, class_names: Sequence[str]) -> str:
    counts = np.bincount(labels, minlength=len(class_names))
    absent = np.flatnonzero(counts == 0)
    if not absent.size:
        return ""
    return (
        f"{part} has no image of {absent.size} of {len(class_names)} classes, the first is {class_names[absent[0]]!r}"
    )
