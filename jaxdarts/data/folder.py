"""How are class folders of image files read?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jaxdarts.data.dataset import RawData, Request, limited_sizes, one_line
from jaxdarts.data.resize import resize_picture
from jaxdarts.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_GREY_MODES = frozenset({"1", "L", "LA"})
_TEST_FOLDERS = ("test", "val", "valid", "validation")


def read_folder(request: Request) -> RawData:
    """`folder:PATH`: PATH/CLASS/*.png, or PATH/train/CLASS/* with PATH/test/CLASS/* (or val, valid, validation).

    Classes are the sorted folder names. The examples of the classes are interleaved in proportion, so that every prefix
    of the file order is balanced like the whole. Pictures become uint8 RGB, or grey where all of them are grey.
    """
    source = f"data set {request.name!r}"
    root = Path(request.argument).expanduser()
    if not root.is_dir():
        raise InputError(f"{source}: no such folder {root}")
    train_root, test_root = root, None
    if (root / "train").is_dir():
        train_root = root / "train"
        test_root = next((root / name for name in _TEST_FOLDERS if (root / name).is_dir()), None)

    names = _class_names(train_root)
    if len(names) < 2:
        found = f"only the class folder {names[0]!r}" if names else "no class folders"
        raise InputError(f"{source}: {train_root} holds {found}; at least 2 folders of images are needed")
    train_files, train_labels = _interleaved(source, train_root, names)
    test_files: list[Path] = []
    test_labels = np.zeros(0, np.int64)
    if test_root is not None:
        test_names = _class_names(test_root)
        unknown = sorted(set(test_names) - set(names))
        if unknown:
            raise InputError(f"{source}: class {unknown[0]!r} of {test_root} has no folder in {train_root}")
        test_files, test_labels = _interleaved(source, test_root, names, may_be_empty=True)

    num_train, num_test = limited_sizes(len(train_files), len(test_files), request.limit, request.test_limit)
    files = train_files[:num_train] + test_files[:num_test]
    images = _read_pictures(source, files, request.image_size)
    return RawData(
        images[:num_train],
        train_labels[:num_train],
        images[num_train:] if num_test else None,
        test_labels[:num_test] if num_test else None,
        names,
    )


def _class_names(root: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _interleaved(
    source: str, root: Path, names: tuple[str, ...], may_be_empty: bool = False
) -> tuple[list[Path], np.ndarray]:
    """Files and labels, ordered by each file's relative place within its class."""
    placed = []
    for label, name in enumerate(names):
        folder = root / name
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        files = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")]
        if not files and not may_be_empty:
            raise InputError(f"{source}: no images in {folder} (looked for {', '.join(sorted(SUFFIXES))})")
        placed += [((rank + 0.5) / len(files), label, file) for rank, file in enumerate(files)]
    placed.sort(key=lambda place: place[:2])
    return [file for _, _, file in placed], np.array([label for _, label, _ in placed], np.int64)


def _read_pictures(source: str, files: list[Path], image_size: int | None) -> np.ndarray:
    """uint8 [N, H, W, 1 or 3]. One pass over the headers, so that sizes are compared before anything is decoded."""
    grey, first_size = True, None
    for file in files:
        size, mode = _header(source, file)
        grey = grey and mode in _GREY_MODES
        first_size = first_size or size
        if size != first_size and image_size is None:
            raise InputError(
                f"{source}: images differ in size, {files[0].name} has {first_size[0]}x{first_size[1]} pixels and "
                f"{file} {size[0]}x{size[1]}; give image_size (--image-size N) to resize all of them"
            )
    assert first_size is not None
    width, height = first_size if image_size is None else (image_size, image_size)
    images = np.empty((len(files), height, width, 1 if grey else 3), np.uint8)
    for index, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                picture = opened.convert("L" if grey else "RGB")
        except Exception as error:  # each of Pillow's decoders has errors of its own
            raise InputError(f"{source}: {file} cannot be read: {one_line(error)}") from error
        if image_size is not None:
            picture = resize_picture(picture, image_size)
        images[index] = np.asarray(picture).reshape(height, width, -1)
    return images


def _header(source: str, file: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(file) as picture:
            size, mode = picture.size, picture.mode
    except Exception as error:
        raise InputError(f"{source}: {file} cannot be read: {one_line(error)}") from error
    if mode.startswith(("I", "F")):
        raise InputError(f"{source}: {file} has more than 8 bits a channel (mode {mode}); convert it to 8 bits")
    return size, mode
