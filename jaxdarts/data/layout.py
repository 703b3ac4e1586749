"""Which files below a folder are the pictures of which class, to train on and to test on?"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from jaxdarts.errors import InputError
from jaxdarts.paths import is_file, is_folder

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
)
_TRAIN_FOLDERS = ("train", "training")
_TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF")
"""By which a file with another suffix, or none, is known as a picture. Pillow takes anything for some others."""
_LITTER = frozenset({"thumbs.db", "desktop.ini"})


@dataclass
class Layout:
    """The pictures of each class, in the order of their names."""

    names: tuple[str, ...]
    train: list[list[Path]]
    test: list[list[Path]] | None
    notes: list[str]


@dataclass
class _Seen:
    """What was found below class folders beside pictures in their place."""

    deeper: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)

    def notes(self, root: Path) -> list[str]:
        def said(files: list[Path], what: str) -> list[str]:
            first = repr(str(files[0].relative_to(root))) if files else ""  # a name may hold anything
            return [f"{what}: {len(files)}, the first is {first}"] if files else []

        return said(self.deeper, "pictures read from folders inside a class's folder") + said(
            self.skipped, "files not read, as they are no pictures of a known kind"
        )


def find_layout(source: str, root: Path) -> Layout:
    """ROOT/CLASS/**, or ROOT/train/CLASS/** with ROOT/test/CLASS/** (or testing, val, valid, validation).

    The names of the parts may be in capitals. The first part that holds pictures in class folders is the test part. A
    folder `train` of loose pictures beside other folders of loose pictures is a class. What is left out is noted.
    Raises InputError for fewer than two classes, a class without pictures, a test class that is none, or parts with
    other names.
    """
    if not is_folder(root):
        raise InputError(f"{source}: no such folder {root}")
    seen, notes = _Seen(), []
    train_root, test_root = root, None
    folders = _folders(root)
    trains, tests = _called(folders, _TRAIN_FOLDERS), _called(folders, _TEST_FOLDERS)
    others = [folder for folder in folders if folder not in trains + tests]
    if trains and not (_is_class(trains[0]) and any(map(_is_class, others))):
        train_root = next((folder for folder in trains if _is_labelled(folder)), trains[0])
        test_root = next((folder for folder in tests if _is_labelled(folder)), None)
        left = [
            repr(folder.name)
            for folder in folders
            if folder not in (train_root, test_root) and _has_pictures(folder, by_name=True)
        ]
        if left:
            notes.append(f"not read: {', '.join(left)} beside {train_root.name!r}")
        if test_root is None and tests:
            notes.append(f"no test part: {tests[0].name!r} holds no class folders with pictures")

    names = tuple(folder.name for folder in _folders(train_root))
    if len(names) < 2:
        found = f"only the class folder {names[0]!r}" if names else "no class folders"
        raise InputError(f"{source}: {train_root} holds {found}; at least 2 folders of images are needed")
    inner = [{folder.name for folder in _folders(train_root / name)} for name in names]
    shared = sorted(set.intersection(*inner))
    if len(shared) > 1 and not any(_is_class(train_root / name) for name in names):
        raise InputError(
            f"{source}: the folders {', '.join(names)} of {train_root} hold the same class folders, {shared[0]} and "
            f"{shared[1]} for two; name these parts train and test"
        )
    train = [_pictures(train_root / name, seen) for name in names]
    for name, files in zip(names, train, strict=True):
        if not files:
            raise InputError(f"{source}: no images in {train_root / name} (looked for {', '.join(sorted(SUFFIXES))})")
    test = None
    if test_root is not None:
        unknown = sorted({folder.name for folder in _folders(test_root)} - set(names))
        if unknown:
            raise InputError(f"{source}: class {unknown[0]!r} of {test_root} has no folder in {train_root}")
        test = [_pictures(test_root / name, seen) for name in names]
    return Layout(names, train, test, notes + seen.notes(root))


def interleaved(files: list[list[Path]]) -> tuple[list[Path], np.ndarray]:
    """Files and labels, ordered by each file's relative place within its class."""
    placed = [
        ((rank + 0.5) / len(of_class), label, file)
        for label, of_class in enumerate(files)
        for rank, file in enumerate(of_class)
    ]
    placed.sort(key=lambda place: place[:2])
    return [file for _, _, file in placed], np.array([label for _, label, _ in placed], np.int64)


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if is_folder(entry) and not entry.name.startswith("."))


def _called(folders: list[Path], names: tuple[str, ...]) -> list[Path]:
    """Those with one of the names in any capitals, in the order of the names; the exact one first."""
    found = [folder for folder in folders if folder.name.lower() in names]
    return sorted(found, key=lambda folder: (names.index(folder.name.lower()), folder.name not in names))


def _is_class(folder: Path) -> bool:
    """Whether it holds pictures itself."""
    return any(_looks_like_picture(entry) for entry in folder.iterdir() if is_file(entry))


def _is_labelled(folder: Path) -> bool:
    return any(map(_has_pictures, _folders(folder)))


def _has_pictures(folder: Path, by_name: bool = False) -> bool:
    return any(file.suffix.lower() in SUFFIXES or not by_name and _looks_like_picture(file) for file in _files(folder))


def _files(folder: Path) -> list[Path]:
    """All files below, but for hidden ones and what lies in hidden folders."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".") and name.lower() not in _LITTER]
    return found


def _pictures(folder: Path, seen: _Seen) -> list[Path]:
    files = sorted(_files(folder)) if is_folder(folder) else []
    pictures = [file for file in files if _looks_like_picture(file)]
    seen.deeper += [file for file in pictures if file.parent != folder]
    seen.skipped += sorted(set(files) - set(pictures))
    return pictures


def _looks_like_picture(file: Path) -> bool:
    """By its suffix, else by its first bytes."""
    if file.suffix.lower() in SUFFIXES:
        return True
    if not is_file(file):  # a pipe would be waited for
        return False
    Image.init()
    try:
        with Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN]):
            return True
    except Exception:  # no picture, or no file that can be read
        return False
