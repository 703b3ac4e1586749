"""Which images are there, and what does a network of one linear layer answer to them? NumPy (or jax.numpy) only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RECORDER = "recorder"
EPSILON = 1e-3
TRAIN, TEST, CLASSES = 50, 7, 3
FIRST, SECOND = range(25), range(25, TRAIN)  # with train_portion 0.5 in file order; no multiples of a batch of 10
TESTED = range(100, 100 + TEST)

_labels = np.random.default_rng(7)
LABELS = {i: int(label) for i, label in zip([*range(TRAIN), *TESTED], _labels.integers(0, CLASSES, 57), strict=True)}


def image(identity: int) -> np.ndarray:
    """uint8[8, 8, 1]: black, white, the image's id, then one bright pixel that no other image has."""
    pixels = np.zeros(64, np.uint8)
    pixels[1], pixels[2] = 255, identity
    pixels[first_pixel(identity)] = 155 + identity // 2
    return pixels.reshape(8, 8, 1)


def first_pixel(identity: int) -> int:
    """Of an image's own: the row of W that no other image moves."""
    return 4 + (identity if identity < TRAIN else identity - TESTED.start + TRAIN)


def write_data(path: Path) -> Path:
    """All images as an .npz data set."""
    parts = {"train": range(TRAIN), "test": TESTED}
    images = {f"x_{name}": np.stack([image(i) for i in ids]) for name, ids in parts.items()}
    labels = {f"y_{name}": np.array([LABELS[i] for i in ids]) for name, ids in parts.items()}
    np.savez(path, **images, **labels)
    return path


def features(images: Any) -> Any:
    """Pixels between 0 and 1 [B, 64], whatever mean and deviation the images were normalised with."""
    flat = images.reshape(len(images), -1)
    unit = (flat - flat[:, :1]) / (flat[:, 1:2] - flat[:, :1])
    return (unit * 255).round() / 255


def ids_of(images: np.ndarray) -> tuple[int, ...]:
    """Which images these are; meaningless where they are cropped, flipped or cut."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    contrast = flat[:, 1] - flat[:, 0]
    return tuple(np.rint(255 * (flat[:, 2] - flat[:, 0]) / np.where(contrast == 0, 1, contrast)).astype(int).tolist())


def gain(weights: Mapping[str, Any], classes: int) -> Any:
    """What mixing weights do to the scores: linear in them, and different for every entry and class."""
    total: Any = 1.0
    for number, value in enumerate(weights[cell] for cell in sorted(weights)):
        size = int(np.prod(value.shape))
        matrix = np.sin(1.0 + number + 2.3 * np.arange(size * classes)).reshape(size, classes)
        total = total + value.reshape(-1) @ matrix.astype(value.dtype)
    return total


def relaxed(alpha: Mapping[str, Any], temperature: float = 1.0) -> dict[str, Any]:
    """softmax(alpha / temperature); no edge of these tests' space has padding."""
    return {cell: jax.nn.softmax(jnp.asarray(value) / temperature, axis=-1) for cell, value in alpha.items()}


def scores(kernel: Any, statistics: tuple[Any, Any] | None, ids: Sequence[int], factor: Any = 1.0) -> Any:
    """[B, classes] of these images; `statistics`: running mean and variance, None: those of the batch itself."""
    linear = np.stack([image(i).reshape(-1) / 255 for i in ids]) @ kernel
    mean, var = (linear.mean(axis=0), linear.var(axis=0)) if statistics is None else statistics
    return (linear - mean) / jnp.sqrt(var + EPSILON) * factor


def loss(scores: Any, ids: Sequence[int]) -> Any:
    """Mean cross-entropy."""
    logarithms = scores - jax.scipy.special.logsumexp(scores, axis=-1, keepdims=True)
    return -jnp.mean(logarithms[np.arange(len(ids)), np.array([LABELS[i] for i in ids])])


def accuracy(scores: Any, ids: Sequence[int]) -> float:
    """Part of the images whose greatest score is that of their class."""
    return float(np.mean(np.argmax(np.asarray(scores), axis=-1) == [LABELS[i] for i in ids]))
