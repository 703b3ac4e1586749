"""How are class folders of image files read?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from jaxdarts.data.classes import limited_indices
from jaxdarts.data.dataset import RawData, Request, limited_sizes, one_line
from jaxdarts.data.layout import find_layout, interleaved
from jaxdarts.data.pictures import Changes, picture_pixels, quiet, upright_size
from jaxdarts.errors import InputError

_GREY_MODES = frozenset({"1", "L", "LA", "La"})


def read_folder(request: Request) -> RawData:
    """`folder:PATH`: PATH/CLASS/*.png, or PATH/train/CLASS/* with PATH/test/CLASS/* (see `find_layout`).

    Classes are the sorted folder names. The examples of the classes are interleaved in proportion, so that every prefix
    of the file order is balanced like the whole. Pictures become uint8 RGB, or grey where all of them are grey: turned
    upright as their EXIF says, and laid on white where they are transparent.
    """
    source = f"data set {request.name!r}"
    with quiet():
        layout = find_layout(source, Path(request.argument).expanduser())
        train_files, train_labels = interleaved(layout.train)
        test_files, test_labels = interleaved(layout.test or [])
        num_train, num_test = limited_sizes(len(train_files), len(test_files), request.limit, request.test_limit)
        train_kept, train_note = limited_indices(train_labels, num_train)
        test_kept, test_note = limited_indices(test_labels, num_test, every_class=False)
        files = [train_files[index] for index in train_kept] + [test_files[index] for index in test_kept]
        changes = Changes()
        images = _read_pictures(source, files, request.image_size, changes)
    notes = (*layout.notes, train_note, test_note and f"of the test part, {test_note}", *changes.notes(len(files)))
    return RawData(
        images[:num_train],
        train_labels[train_kept],
        images[num_train:] if num_test else None,
        test_labels[test_kept] if num_test else None,
        layout.names,
        notes,
    )


def _read_pictures(source: str, files: list[Path], image_size: int | None, changes: Changes) -> np.ndarray:
    """uint8 [N, H, W, 1 or 3]. One pass over the headers, so that sizes are compared before anything is decoded."""
    grey, first_size = True, None

    def compare(file: Path, size: tuple[int, int]) -> None:
        if size != first_size and image_size is None:
            assert first_size is not None
            raise InputError(
                f"{source}: images differ in size, {files[0].name} has {first_size[0]}x{first_size[1]} pixels and "
                f"{file} {size[0]}x{size[1]}; give image_size (--image-size N) to resize all of them"
            )

    for file in files:
        size, mode = _header(source, file)
        grey = grey and mode in _GREY_MODES
        first_size = first_size or size
        compare(file, size)
    assert first_size is not None
    width, height = first_size if image_size is None else (image_size, image_size)
    images = np.empty((len(files), height, width, 1 if grey else 3), np.uint8)
    for index, file in enumerate(files):
        try:
            with Image.open(file) as opened:
                pixels = picture_pixels(opened, "L" if grey else "RGB", image_size, changes)
        except Exception as error:  # each of Pillow's decoders has errors of its own
            raise InputError(f"{source}: {file} cannot be read: {one_line(error)}") from error
        compare(file, (pixels.shape[1], pixels.shape[0]))
        images[index] = pixels
    return images


def _header(source: str, file: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(file) as picture:
            size, mode = upright_size(picture), picture.mode
    except Exception as error:
        raise InputError(f"{source}: {file} cannot be read: {one_line(error)}") from error
    if mode.startswith(("I", "F")):
        raise InputError(f"{source}: {file} has more than 8 bits a channel (mode {mode}); convert it to 8 bits")
    return size, mode
