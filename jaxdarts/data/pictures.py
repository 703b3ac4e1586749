"""How does a picture file become pixels: upright, without transparency, grey or coloured, of one size?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jaxdarts.data.resize import resize_picture

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""


@dataclass
class Changes:
    """How many pictures did not become pixels as they are stored."""

    turned: int = 0
    flattened: int = 0

    def notes(self, total: int) -> tuple[str, ...]:
        """One line for each kind of change among `total` pictures."""
        lines = (
            (self.turned, "turned upright, as their EXIF orientation says"),
            (self.flattened, "transparent in part and laid on white"),
        )
        return tuple(f"{number} of {total} pictures are {what}" for number, what in lines if number)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings off the output: they name its own files, not the picture."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) after `picture_pixels` has turned it; decodes only pictures that are turned."""
    # Where a PNG file has no EXIF before its pixels, Pillow would decode it to look behind them.
    if (picture.format == "PNG" and "exif" not in picture.info) or _orientation(picture) < 5:
        return picture.size
    picture.load()
    turned, _ = _upright(picture)
    return turned.size


def picture_pixels(picture: Image.Image, mode: str, size: int | None, changes: Changes) -> np.ndarray:
    """uint8 [H, W, channels of `mode`: L, RGB or RGBA], `size` pixels a side if given. What was done is counted."""
    was_turned = picture.format == "TIFF" and _orientation(picture) in _TURNS
    picture.load()  # Pillow itself turns TIFF files here, and a PNG file's EXIF may come last
    picture, is_turned = _upright(picture)
    changes.turned += is_turned or was_turned
    if mode != "RGBA" and picture.has_transparency_data:
        picture, is_flattened = _on_white(picture)
        changes.flattened += is_flattened
    picture = picture if picture.mode == mode else picture.convert(mode)
    if size is not None:
        picture = resize_picture(picture, size)
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF beside a good picture: whatever its parser raises
        return 1
    return found if isinstance(found, int) else 1


def _upright(picture: Image.Image) -> tuple[Image.Image, bool]:
    turn = _TURNS.get(_orientation(picture))
    return (picture, False) if turn is None else (picture.transpose(turn), True)


def _on_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """RGBA without transparency, and whether there was any."""
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema()[0] == 255:
        return picture, False
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture), True
