"""How is a prepared tensorflow-datasets folder read without TensorFlow?"""

from __future__ import annotations

import importlib.util
import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from jaxdarts.data.classes import limited_indices
from jaxdarts.data.dataset import RawData, Request, limited_sizes, one_line
from jaxdarts.data.pictures import Changes, picture_pixels, quiet
from jaxdarts.errors import InputError
from jaxdarts.paths import is_file, is_folder

FORMATS = ("array_record", "tfrecord")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHUNK = 1024


def read_tfds(request: Request) -> RawData:
    """An image classification set prepared by tensorflow-datasets: NAME[/CONFIG][:VERSION] under the data folder.

    Without a version the newest one there is read. Splits: train, and test (or else validation). Only what `limit`
    leaves is decoded: the first examples, or some of every class where these lack one (then all labels are read).
    Cost: about 0.2 ms for an image of 32x32. Nothing is downloaded unless `request.download`.
    Raises InputError where nothing is prepared, the set is no image classification set, is stored in another format
    than array_record or tfrecord, or is incomplete or damaged.
    """
    source = f"data set {request.name!r}"
    folder = find_prepared(request.argument, request.data_dir)
    if folder is None:
        if not request.download:
            raise not_found(request)
        _download(request, source)
        folder = find_prepared(request.argument, request.data_dir)
        if folder is None:
            raise InputError(f"{source} was prepared, but is not in {request.data_dir}")
    return _read_prepared(request, source, folder)


def find_prepared(argument: str, data_dir: Path) -> Path | None:
    """The folder of NAME[/CONFIG][:VERSION] that holds dataset_info.json, the newest version; None where none is."""
    name, _, version = argument.partition(":")
    name, _, config = name.partition("/")
    root = data_dir / name
    if not name or not is_folder(root):
        return None
    if config:
        return _newest(root / config, version)
    folder = _newest(root, version)
    if folder is not None:
        return folder
    configs = [entry for entry in sorted(root.iterdir()) if is_folder(entry) and _newest(entry, version) is not None]
    if len(configs) > 1:
        names = ", ".join(f"{name}/{entry.name}" for entry in configs)
        raise InputError(f"data set {name!r} has several configurations in {root}; choose from {names}")
    return _newest(configs[0], version) if configs else None


def _newest(folder: Path, version: str) -> Path | None:
    if not is_folder(folder):
        return None
    prepared = [
        entry
        for entry in folder.iterdir()
        if _VERSION.fullmatch(entry.name) and version in ("", entry.name) and is_file(entry / "dataset_info.json")
    ]
    return max(prepared, key=lambda entry: tuple(map(int, entry.name.split("."))), default=None)


def not_found(request: Request, looked_for: tuple[str, ...] = ()) -> InputError:
    """The error that says what was looked for, where, and which commands help."""
    name, _, version = request.argument.partition(":")
    places = ", ".join((*looked_for, f"{name}/{version or 'VERSION'}/dataset_info.json"))
    absent = "" if is_folder(request.data_dir) else " (no such folder)"
    return InputError(
        f"data set {request.name!r} is not in {request.data_dir}{absent}: looked for {places}; "
        "name another folder with --data-dir, or fetch it with pip install 'jaxdarts[tfds-prepare]' and --download, "
        "or use --dataset photos10, which needs no download"
    )


def _download(request: Request, source: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            f"{source}: downloading and preparing it needs TensorFlow: pip install 'jaxdarts[tfds-prepare]'"
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(request.argument, data_dir=request.data_dir, try_gcs=False)
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:  # whatever the network, the disk or the set's own code raises
        raise InputError(f"{source} could not be downloaded and prepared: {one_line(error)}") from error


def _read_prepared(request: Request, source: str, folder: Path) -> RawData:
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(folder).info
        file_format = info.file_format.value if info.file_format is not None else "unknown"
        features, splits = dict(info.features.items()), info.splits
        supervised = info.supervised_keys
    except Exception as error:
        raise InputError(f"{source}: {folder} is damaged: {one_line(error)}") from error
    if file_format not in FORMATS:
        reason = "tensorflow-datasets loses examples in it" if file_format == "parquet" else "it cannot be read here"
        raise InputError(
            f"{source}: {folder} is stored as {file_format}, and {reason}; prepare it again with "
            f"download_and_prepare(file_format='array_record') (readable: {', '.join(FORMATS)})"
        )
    image_key, label_key = _supervised_keys(source, features, supervised)
    image, label = features[image_key], features[label_key]
    if np.dtype(image.np_dtype) != np.uint8:
        raise InputError(f"{source}: its images are {np.dtype(image.np_dtype)}; only uint8 is read")
    if "train" not in splits:
        raise InputError(f"{source}: {folder} has no split 'train', only {', '.join(splits) or 'none'}")
    test_name = next((name for name in ("test", "validation") if name in splits), None)
    num_train, num_test = limited_sizes(
        splits["train"].num_examples,
        splits[test_name].num_examples if test_name else 0,
        request.limit,
        request.test_limit,
    )

    # Pillow decodes (tensorflow-datasets would prefer OpenCV where it is installed, with other pixels for JPEG).
    decoders = {image_key: tfds.decode.SkipDecoding()}
    changes = Changes()

    def examples(split: Any, features: dict[str, Any], count: int) -> Iterator[tuple[int, Any]]:
        partial = tfds.features.FeaturesDict(features)
        needed = {key: decoder for key, decoder in decoders.items() if key in features}
        for index, record in enumerate(islice(_records(source, split, file_format), count)):
            with _damage_named(f"{source}: example {index} of {split.name!r} in {folder}"):
                example = partial.deserialize_example_np(record, decoders=needed)
            yield index, example

    def labels_of(split: Any, count: int) -> np.ndarray:
        return np.array([example[label_key] for _, example in examples(split, {label_key: label}, count)], np.int64)

    def read(split: Any, count: int, every_class: bool) -> tuple[np.ndarray, np.ndarray, str]:
        kept, note = np.arange(count), ""
        if count < split.num_examples and _lacks_classes(labels_of(split, count), label.num_classes):
            kept, note = limited_indices(labels_of(split, split.num_examples), count, every_class=every_class)
        pictures = _Pictures(source, count, image.shape, request.image_size, changes)
        labels = np.empty(count, np.int64)
        wanted = set(kept.tolist())
        for index, example in examples(split, {image_key: image, label_key: label}, int(kept[-1]) + 1):
            if index in wanted:
                with _damage_named(f"{source}: example {index} of {split.name!r} in {folder}"):
                    labels[pictures.index] = example[label_key]
                    pictures.add(example[image_key])
        return pictures.images, labels, note

    with quiet():
        train_images, train_labels, train_note = read(splits["train"], num_train, True)
        names = tuple(label.names) if label.names else tuple(str(value) for value in range(label.num_classes))
        if test_name is None or num_test == 0:
            notes = (train_note, *changes.notes(num_train))
            return RawData(train_images, train_labels, None, None, names, notes)
        test_images, test_labels, test_note = read(splits[test_name], num_test, False)
    notes = (train_note, test_note and f"of the test part, {test_note}", *changes.notes(num_train + num_test))
    return RawData(train_images, train_labels, test_images, test_labels, names, notes)


def _lacks_classes(labels: np.ndarray, num_classes: int) -> bool:
    return len(np.unique(labels)) < num_classes


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} is damaged: {one_line(error)}") from error


def _supervised_keys(source: str, features: dict[str, Any], supervised: Any) -> tuple[str, str]:
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if isinstance(supervised, tuple) and len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        return supervised
    if len(images) != 1 or len(labels) != 1:
        kinds = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in sorted(features.items()))
        raise InputError(
            f"{source} is no image classification set: one image and one class label wanted, found {kinds}"
        )
    return images[0], labels[0]


class _Pictures:
    """Encoded pictures decoded into one array, which is made when the first one's size is known."""

    def __init__(
        self, source: str, count: int, shape: tuple[int | None, ...], image_size: int | None, changes: Changes
    ) -> None:
        self._source, self._count, self._image_size, self._changes = source, count, image_size, changes
        channels = shape[-1] or 3
        if channels not in _MODES:
            raise InputError(f"{source}: images with {channels} channels cannot be read; 1, 3 or 4 can")
        self._mode = _MODES[channels]
        self.index = 0
        self.images = np.empty((0, 0, 0, channels), np.uint8)

    def add(self, encoded: bytes) -> None:
        with Image.open(io.BytesIO(encoded)) as opened:
            pixels = picture_pixels(opened, self._mode, self._image_size, self._changes)
        if self.index == 0:
            self.images = self._allocated(pixels.shape)
        if pixels.shape != self.images.shape[1:]:
            raise InputError(
                f"{self._source}: images differ in size ({self.images.shape[1:3]} and {pixels.shape[:2]}); "
                "give image_size (--image-size N) to resize all of them"
            )
        self.images[self.index] = pixels
        self.index += 1

    def _allocated(self, shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.empty((self._count, *shape), np.uint8)
        except MemoryError:
            gigabytes = self._count * np.prod(shape, dtype=float) / 1e9
            raise InputError(
                f"{self._source} needs {gigabytes:.0f} GB of memory; use --image-size or --limit"
            ) from None


def _records(source: str, split: Any, file_format: str) -> Iterator[bytes]:
    """The serialized examples of a split, shard by shard, each shard as long as dataset_info.json says."""
    for file, length in zip(split.filepaths, split.shard_lengths, strict=True):
        path = Path(file)

        def damaged(what: str, path: Path = path) -> NoReturn:
            raise InputError(f"{source}: {path} {what}; delete {path.parent} and prepare the data set again")

        if not is_file(path):
            damaged("is missing")
        found = 0
        try:
            for record in _array_records(path) if file_format == "array_record" else _tfrecords(path):
                found += 1
                yield record
        except InputError:
            raise
        except Exception as error:
            damaged(f"is damaged after {found} examples ({one_line(error)})")
        if found != length:
            damaged(f"holds {found} examples instead of {length}")


def _array_records(path: Path) -> Iterator[bytes]:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise InputError(f"{path} is in array_record format, which needs: pip install array-record") from None
    reader = ArrayRecordReader(str(path))
    try:
        count = reader.num_records()
        for start in range(0, count, _CHUNK):
            yield from reader.read(start, min(start + _CHUNK, count))
    finally:
        reader.close()


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Records: length (8 bytes, little-endian), its checksum (4), payload, checksum (4). Sums are not checked."""
    with open(path, "rb") as file:
        while header := file.read(12):
            if len(header) < 12:
                raise EOFError("cut off")
            (length,) = struct.unpack("<Q", header[:8])
            if length > path.stat().st_size:
                raise ValueError(f"a record of {length} bytes")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise EOFError("cut off")
            yield body[:length]
