"""Do pictures become the pixels that a person sees: upright, on white, without a library's warning?"""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxdarts.data.pictures import Changes, picture_pixels, quiet, upright_size

GREY = np.random.default_rng(0).integers(0, 256, (9, 16), dtype=np.uint8)
INK = np.random.default_rng(1).integers(0, 256, (9, 16, 4), dtype=np.uint8)


def _stored(picture, file_format="png", **arguments):
    file = io.BytesIO()
    picture.save(file, file_format, **arguments)
    file.seek(0)
    return Image.open(file)


def _on_white(colours, alpha):
    part = alpha[..., None] / 255
    return colours * part + 255 * (1 - part)


@pytest.mark.parametrize("file_format", ["png", "webp", "tiff"])
def test_rgba_is_laid_on_white(file_format):
    changes = Changes()
    lossless = {"lossless": True, "exact": True} if file_format == "webp" else {}
    pixels = picture_pixels(_stored(Image.fromarray(INK), file_format, **lossless), "RGB", None, changes)
    np.testing.assert_allclose(pixels, _on_white(INK[..., :3], INK[..., 3]), atol=1)
    assert changes.notes(3) == ("1 of 3 pictures are transparent in part and laid on white",)


def test_grey_with_alpha_is_laid_on_white_and_stays_grey():
    changes = Changes()
    stored = _stored(Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(INK[..., 3]))))
    pixels = picture_pixels(stored, "L", None, changes)
    np.testing.assert_allclose(pixels, _on_white(GREY[..., None], INK[..., 3]), atol=1)
    assert changes.flattened == 1


@pytest.mark.parametrize("file_format", ["png", "gif"])
@pytest.mark.parametrize("transparency", [3, bytes([255, 255, 255, 0, 128])])
def test_a_palettes_transparency_is_white_without_a_warning(file_format, transparency):
    if file_format == "gif" and isinstance(transparency, bytes):
        pytest.skip("GIF has one transparent colour")
    palette = Image.fromarray(GREY % 5).convert("P")
    palette.putpalette([0, 0, 0, 10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    indices = np.asarray(palette)
    changes = Changes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = picture_pixels(_stored(palette, file_format, transparency=transparency), "RGB", None, changes)
    np.testing.assert_array_equal(pixels[indices == 3], 255)
    np.testing.assert_array_equal(pixels[indices == 1], np.broadcast_to([10, 20, 30], pixels[indices == 1].shape))
    if isinstance(transparency, bytes):
        np.testing.assert_allclose(pixels[indices == 4][0], [127, 127, 227], atol=1)
    assert changes.flattened == 1


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (1, 2, 3)), ("L", 7)])
def test_a_transparent_colour_is_white(mode, colour):
    stored = _stored(Image.new(mode, (8, 8), colour), transparency=colour)
    assert (picture_pixels(stored, mode, None, Changes()) == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_alpha_channel_without_transparency_changes_nothing(mode):
    opaque = INK.copy()
    opaque[..., 3] = 255
    changes = Changes()
    pixels = picture_pixels(_stored(Image.fromarray(opaque)), mode, None, changes)
    np.testing.assert_array_equal(pixels.squeeze(), np.asarray(Image.fromarray(opaque[..., :3]).convert(mode)))
    assert changes == Changes()


def test_four_channels_stay_where_they_are_wanted():
    changes = Changes()
    np.testing.assert_array_equal(picture_pixels(_stored(Image.fromarray(INK)), "RGBA", None, changes), INK)
    assert changes == Changes()


LAID = {  # orientation -> how the upright picture lies in the file, by the EXIF standard's words
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("file_format", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", LAID)
def test_pictures_are_turned_upright(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    laid = Image.fromarray(np.ascontiguousarray(LAID[orientation](GREY)))
    arguments = {"exif": exif} | ({"lossless": True} if file_format == "webp" else {})
    assert upright_size(_stored(laid, file_format, **arguments)) == (16, 9)
    changes = Changes()
    pixels = picture_pixels(_stored(laid, file_format, **arguments), "L", None, changes)
    np.testing.assert_array_equal(pixels[..., 0], GREY)
    turned = ("1 of 5 pictures are turned upright, as their EXIF orientation says",)
    assert changes.notes(5) == (() if orientation == 1 else turned)


def test_damaged_exif_beside_a_good_picture_is_passed_over(recwarn):
    exif = Image.Exif()
    exif[0x0112] = 6
    for damaged in (b"Exif\0\0nonsense", exif.tobytes()[:18], b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        with quiet():
            stored = _stored(Image.fromarray(GREY), "jpeg", exif=damaged)
            assert upright_size(stored) == (16, 9)
            assert picture_pixels(stored, "L", None, Changes()).shape == (9, 16, 1)
    assert not recwarn.list
