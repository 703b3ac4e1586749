"""Which data sets are there, and how does a name become arrays?"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from jaxdarts.data.archives import archive_names, read_archive
from jaxdarts.data.arrays import read_digits, read_npz
from jaxdarts.data.dataset import SMALLEST_SIDE, Dataset, RawData, Request, make_dataset
from jaxdarts.data.folder import read_folder
from jaxdarts.data.photographs import read_photos10
from jaxdarts.data.tfds_reader import find_prepared, not_found, read_tfds
from jaxdarts.errors import InputError

Reader = Callable[[Request], RawData]


def _read_cifar(request: Request) -> RawData:
    """The original archive where there is one, else tensorflow-datasets' copy (its order differs)."""
    name = request.argument.partition(":")[0]
    raw = read_archive(name, request.data_dir) if request.argument == name else None
    if raw is not None:
        return raw
    if not request.download and find_prepared(request.argument, request.data_dir) is None:
        raise not_found(request, archive_names(name))
    return read_tfds(request)


DATASETS: dict[str, Reader] = {
    "photos10": read_photos10,
    "digits": read_digits,
    "npz": read_npz,
    "folder": read_folder,
    "tfds": read_tfds,
    "cifar10": _read_cifar,
    "cifar100": _read_cifar,
    "svhn_cropped": read_tfds,
    "mnist": read_tfds,
    "fashion_mnist": read_tfds,
}
"""Readers by name. A new data set is one function from a Request to RawData and one entry here."""

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}
"""Mean and standard deviation that the references use (RobustDARTS utils.py:263-323); else they are computed."""

_WITH_ARGUMENT = {"npz": "npz:PATH", "folder": "folder:PATH", "tfds": "tfds:NAME"}


def default_data_dir() -> Path:
    """Where data sets are looked for: $TFDS_DATA_DIR, else ~/tensorflow_datasets, as tensorflow-datasets itself."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    limit: int | None = None,
    test_limit: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set by name, read into memory and checked.

    Names: photos10, digits, npz:PATH, folder:PATH, cifar10, cifar100, svhn_cropped, mnist, fashion_mnist, any other
    image classification set of tensorflow-datasets that is prepared in `data_dir`, or tfds:NAME[/CONFIG][:VERSION].

    Args:
      data_dir: folder with the prepared sets or the original CIFAR archives; by default `default_data_dir()`.
      download: fetch and prepare a tensorflow-datasets set that is missing (needs the tfds-prepare extra). Nothing is
        ever downloaded without it.
      limit: use so many training examples, and the same part of the test set: the first ones, or drawn over the
        classes where these leave one out (`Dataset.notes` then says so). At least one for each class.
      test_limit: use so many test examples, whatever `limit` is.
      image_size: resize every image to this many pixels a side, at least 8.
      seed: chooses the crops of photos10; the other sets are fixed.

    Raises InputError, one line, for an unknown name, a missing or damaged set, and data that cannot be used.
    """
    if image_size is not None and image_size < SMALLEST_SIDE:
        raise InputError(f"image_size must be at least {SMALLEST_SIDE}, not {image_size}")
    if limit is not None and limit < 2:
        raise InputError(f"limit must be at least 2, not {limit}")
    if test_limit is not None and test_limit < 1:
        raise InputError(f"test_limit must be at least 1, not {test_limit}")
    folder = default_data_dir() if data_dir is None else Path(data_dir).expanduser()
    kind, _, argument = name.partition(":")
    if kind in _WITH_ARGUMENT:
        if not argument:
            raise InputError(f"data set {name!r} needs an argument: {_WITH_ARGUMENT[kind]}")
        base = argument.split(":")[0] if kind == "tfds" else None
    else:
        base, argument = kind.split("/")[0], name
        if argument != kind and kind in ("photos10", "digits"):
            raise InputError(f"data set {kind!r} takes no argument, but was given {argument!r}")
    reader = DATASETS.get(kind)
    if reader is None:
        reader = read_tfds
        if find_prepared(argument, folder) is None and not _known_to_tfds(base or ""):
            raise _unknown(name)
    request = Request(name, argument, folder, download, limit, seed, image_size, test_limit)
    raw = reader(request)
    statistics = STATISTICS.get(base) if base is not None else None
    if statistics is not None and raw.train_images.shape[-1] != len(statistics[0]):
        statistics = None
    return make_dataset(name, raw, limit=limit, test_limit=test_limit, image_size=image_size, statistics=statistics)


def _tfds_names() -> list[str]:
    import tensorflow_datasets as tfds

    return list(tfds.list_builders(with_community_datasets=False))


def _known_to_tfds(name: str) -> bool:
    return name in _tfds_names()


def _unknown(name: str) -> InputError:
    names = [_WITH_ARGUMENT.get(known, known) for known in DATASETS]
    close = difflib.get_close_matches(name, [*DATASETS, *_tfds_names()], n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return InputError(
        f"unknown dataset {name!r}; choose from {', '.join(names)}, or another image classification set of "
        f"tensorflow-datasets{hint}"
    )
