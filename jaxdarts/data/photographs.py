"""How is the default data set `photos10` made out of photographs that scikit-image and scikit-learn ship?"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from jaxdarts.data.dataset import RawData, Request, limited_sizes, one_line
from jaxdarts.errors import InputError

PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "stereo_motorcycle": ("skimage", "data/motorcycle_left.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
"""Class name -> (package, file inside it). Read as files: skimage.data would download what it misses."""
NUM_TRAIN, NUM_TEST = 4000, 1000
CROP, BLOCK = 32, 64
_BLOCK_PARTS = (0.4, 0.4, 0.2)  # first half of the training set, second half, test
_VERSION = 1  # part of the cache's file name: raise it when the crops change


def read_photos10(request: Request) -> RawData:
    """`photos10`: uint8 [32, 32, 3] crops of ten photographs, the label is the photograph. Texture recognition.

    Each photograph is cut into 64x64 blocks, and the blocks are dealt by the seed to three sets: the first half of the
    training images, the second half, the test images. A crop lies inside one block, so the two halves of the default
    search split and the test set share no pixel; with `limit`, at least 20, each half is cut, with another split blocks
    are shared.
    Classes take turns, so every prefix is balanced. Cost: under a second, then cached in the user's cache folder.
    """
    least = 2 * len(PHOTOGRAPHS)
    if request.limit is not None and request.limit < least:
        raise InputError(
            f"limit must be at least {least} for 'photos10', every class in each half; got {request.limit}"
        )
    cache = _cache_file(request.seed)
    arrays = _load_cache(cache)
    if arrays is None:
        arrays = _build(request.seed)
        _save_cache(cache, arrays)
    images, labels = arrays
    num_train, num_test = limited_sizes(NUM_TRAIN, NUM_TEST, request.limit, request.test_limit)
    half = NUM_TRAIN // 2
    first = num_train // 2  # as split_indices cuts
    kept = np.r_[0:first, half : half + num_train - first]
    test = slice(NUM_TRAIN, NUM_TRAIN + num_test)
    return RawData(images[kept], labels[kept], images[test], labels[test], tuple(PHOTOGRAPHS))


def _photograph(name: str) -> np.ndarray:
    """uint8 [H, W, 3]."""
    package, file = PHOTOGRAPHS[name]
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"data set 'photos10' is made of photographs in {distribution}: pip install {distribution}")
    path = Path(next(iter(spec.submodule_search_locations))) / file
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise InputError(
            f"data set 'photos10': the photograph {name!r} cannot be read from {path} ({one_line(error)}); "
            f"pip install --force-reinstall {distribution}"
        ) from error


def _build(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [5000, 32, 32, 3] and labels int32 [5000], the three sets one after the other."""
    num_classes = len(PHOTOGRAPHS)
    sizes = (NUM_TRAIN // 2, NUM_TRAIN // 2, NUM_TEST)
    sets = [np.empty((size // num_classes, num_classes, CROP, CROP, 3), np.uint8) for size in sizes]
    for label, name in enumerate(PHOTOGRAPHS):
        generator = np.random.default_rng((seed, label))
        photograph = _photograph(name)
        for crops, blocks in zip(sets, _dealt_blocks(photograph, generator), strict=True):
            chosen = blocks[generator.integers(len(blocks), size=len(crops))]
            corners = chosen + generator.integers(BLOCK - CROP + 1, size=chosen.shape)
            for crop, (top, left) in zip(crops, corners, strict=True):
                crop[label] = photograph[top : top + CROP, left : left + CROP]
    images = np.concatenate([crops.reshape(-1, CROP, CROP, 3) for crops in sets])
    return images, np.tile(np.arange(num_classes, dtype=np.int32), len(images) // num_classes)


def _dealt_blocks(photograph: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Corners int [blocks, 2] (top, left) of whole 64x64 blocks, in three disjoint sets."""
    height, width, _ = photograph.shape
    corners = np.array(
        [(top, left) for top in range(0, height - BLOCK + 1, BLOCK) for left in range(0, width - BLOCK + 1, BLOCK)]
    )
    corners = generator.permutation(corners)
    bounds = np.round(np.cumsum(_BLOCK_PARTS)[:-1] * len(corners)).astype(int)
    return np.split(corners, bounds)


def _cache_file(seed: int) -> Path | None:
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home folder
        return None
    return Path(root) / "jaxdarts" / f"photos10-v{_VERSION}-seed{seed}.npz"


def _load_cache(path: Path | None) -> tuple[np.ndarray, np.ndarray] | None:
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None  # absent or damaged: made again
    expected = (NUM_TRAIN + NUM_TEST, CROP, CROP, 3)
    return (images, labels) if images.shape == expected and labels.shape == expected[:1] else None


def _save_cache(path: Path | None, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    """Best effort: a folder that cannot be written only costs the building of the next time."""
    if path is None:
        return
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, images=arrays[0], labels=arrays[1])
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
