"""How are the original CIFAR archives read, without running anything that their pickles ask for?"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdarts.data.dataset import RawData, one_line
from jaxdarts.errors import InputError
from jaxdarts.paths import is_file, is_folder

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    archive: str
    folder: str
    """Inside the archive, and where it was extracted by hand."""
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    label_bytes: int
    """Binary layouts: bytes before the pixels; the last of them is the label."""
    label_key: bytes = b""
    names_key: bytes = b""
    """Both for pickles; empty for the binary layouts."""


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS: Mapping[str, tuple[_Layout, ...]] = {
    "cifar10": (
        _Layout(
            "cifar-10-python.tar.gz", "cifar-10-batches-py", _TEN, "test_batch", "batches.meta", 0,
            b"labels", b"label_names",
        ),
        _Layout(
            "cifar-10-binary.tar.gz", "cifar-10-batches-bin", tuple(f"{name}.bin" for name in _TEN), "test_batch.bin",
            "batches.meta.txt", 1,
        ),
    ),
    "cifar100": (
        _Layout(
            "cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test", "meta", 0,
            b"fine_labels", b"fine_label_names",
        ),
        _Layout(
            "cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", 2,
        ),
    ),
}  # fmt: skip


def archive_names(name: str) -> tuple[str, ...]:
    """What `read_archive` looks for: archives and the folders they extract to."""
    return tuple(entry for layout in LAYOUTS[name] for entry in (layout.archive, layout.folder))


def read_archive(name: str, data_dir: Path) -> RawData | None:
    """The original files of "cifar10" or "cifar100" in `data_dir`, in file order; None where there are none.

    Extracted folders come before archives, pickles before the binary files (they hold the same images in the same
    order). Archives are read in memory. Raises InputError where what was found is incomplete or broken.
    Cost: about 2 s for an archive.
    """
    for layout in LAYOUTS[name]:
        folder, archive = data_dir / layout.folder, data_dir / layout.archive
        if is_folder(folder):
            return _read(layout, folder, _folder_files(layout, folder))
        if is_file(archive):
            return _read(layout, archive, _archive_files(layout, archive))
    return None


def _wanted(layout: _Layout) -> tuple[str, ...]:
    return (*layout.train_files, layout.test_file, layout.names_file)


def _folder_files(layout: _Layout, folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _wanted(layout) if is_file(folder / name)}


def _archive_files(layout: _Layout, archive: Path) -> dict[str, bytes]:
    wanted, files = _wanted(layout), {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name in wanted:
                    content = tar.extractfile(member)
                    assert content is not None
                    files[name] = content.read()
                    if len(files) == len(wanted):
                        break
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{archive} is broken ({one_line(error)}); delete it and fetch it again") from error
    return files


def _read(layout: _Layout, path: Path, files: Mapping[str, bytes]) -> RawData:
    missing = [name for name in _wanted(layout) if name not in files]
    if missing:
        raise InputError(f"{path} is incomplete: it holds no {', '.join(missing)}; delete it and fetch it again")
    read: Callable[[_Layout, bytes], tuple[np.ndarray, np.ndarray]] = _pickled if layout.label_key else _binary
    parts = []
    for name in (*layout.train_files, layout.test_file):
        try:
            parts.append(read(layout, files[name]))
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise InputError(f"{path}: {name} is broken ({one_line(error)}); delete it and fetch it again") from error
    try:
        if layout.names_key:
            names = tuple(name.decode() for name in _load_pickle(files[layout.names_file])[layout.names_key])
        else:
            names = tuple(files[layout.names_file].decode().split())
    except Exception as error:
        raise InputError(f"{path}: {layout.names_file} is broken ({one_line(error)})") from error
    train_images = np.concatenate([images for images, _ in parts[:-1]])
    train_labels = np.concatenate([labels for _, labels in parts[:-1]])
    return RawData(train_images, train_labels, *parts[-1], names)


def _images(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _binary(layout: _Layout, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    row = layout.label_bytes + _PIXELS
    if not content or len(content) % row:
        raise ValueError(f"{len(content)} bytes is no multiple of {row}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    return _images(rows[:, layout.label_bytes :]), rows[:, layout.label_bytes - 1].astype(np.int64)


def _pickled(layout: _Layout, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    batch = _load_pickle(content)
    data, labels = batch[b"data"], np.asarray(batch[layout.label_key])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS or len(data) != len(labels):
        raise ValueError(f"data is {data.dtype} {data.shape} with {len(labels)} labels")
    return _images(data), labels


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


# Where numpy keeps the functions that its own pickles name differs between versions, so ask an array.
_RECONSTRUCT = np.zeros(1, np.uint8).__reduce__()[0]
_ALLOWED: Mapping[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes in protocol 2
}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, bytes, text, numbers, lists and dicts, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file") from None


def _load_pickle(content: bytes) -> Any:
    return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
