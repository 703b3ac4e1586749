"""Are class folders read in a balanced order, and useless folders refused?"""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from jaxdarts.data.sources import load_dataset
from jaxdarts.errors import InputError


def _write(folder, count, colour, size=(10, 9), mode="RGB", suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new(mode, size, colour).save(folder / f"{index:03d}.{suffix}")


def test_classes_are_interleaved_and_colours_kept(tmp_path):
    _write(tmp_path / "train" / "blue", 6, (0, 0, 255))
    _write(tmp_path / "train" / "red", 3, (255, 0, 0))
    _write(tmp_path / "val" / "red", 2, (255, 0, 0))
    (tmp_path / "train" / "blue" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("blue", "red") and dataset.image_shape == (9, 10, 3)
    for start in (0, 3, 6):
        np.testing.assert_array_equal(np.bincount(dataset.train_labels[start : start + 3]), [2, 1])
    np.testing.assert_array_equal(dataset.train_images[:, 0, 0, 0], np.where(dataset.train_labels == 1, 255, 0))
    np.testing.assert_array_equal(dataset.test_labels, [1, 1])
    limited = load_dataset(f"folder:{tmp_path}", limit=3)
    assert len(limited.train_images) == 3 and len(limited.test_images) == 1
    limited = load_dataset(f"folder:{tmp_path}", limit=3, test_limit=2)
    assert len(limited.train_images) == 3 and len(limited.test_images) == 2


def test_grey_pictures_have_one_channel_unless_mixed(tmp_path):
    _write(tmp_path / "a", 2, 10, mode="L")
    _write(tmp_path / "b", 2, 20, mode="L")
    assert load_dataset(f"folder:{tmp_path}").image_shape == (9, 10, 1)
    _write(tmp_path / "c", 2, (1, 2, 3))
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.image_shape == (9, 10, 3) and dataset.test_images is None


def test_unequal_sizes_need_image_size(tmp_path):
    _write(tmp_path / "a", 2, (1, 2, 3))
    _write(tmp_path / "b", 2, (3, 2, 1), size=(20, 30))
    with pytest.raises(InputError, match=r"differ in size, 000.png has 10x9 pixels and .*20x30; give image_size"):
        load_dataset(f"folder:{tmp_path}")
    assert load_dataset(f"folder:{tmp_path}", image_size=8).train_images.shape == (4, 8, 8, 3)


def test_useless_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_dataset(f"folder:{tmp_path}/none")
    with pytest.raises(InputError, match="holds no class folders"):
        load_dataset(f"folder:{tmp_path}")
    _write(tmp_path / "a", 2, (1, 2, 3))
    with pytest.raises(InputError, match="holds only the class folder 'a'"):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="no images in .*b "):
        load_dataset(f"folder:{tmp_path}")
    (tmp_path / "b" / "0.png").write_text("not a picture")
    with pytest.raises(InputError, match="b/0.png cannot be read"):
        load_dataset(f"folder:{tmp_path}")
    Image.fromarray(np.zeros((9, 10), np.uint16)).save(tmp_path / "b" / "0.png")
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        load_dataset(f"folder:{tmp_path}")
    _write(tmp_path / "b", 1, (1, 2, 3))
    cut = (tmp_path / "b" / "000.png").read_bytes()[:-30]
    (tmp_path / "b" / "0.png").write_bytes(cut)
    with pytest.raises(InputError, match="b/0.png cannot be read"):
        load_dataset(f"folder:{tmp_path}")


def test_test_classes_must_be_training_classes(tmp_path):
    for name in ("a", "b"):
        _write(tmp_path / "train" / name, 2, (1, 2, 3))
    _write(tmp_path / "test" / "c", 2, (1, 2, 3))
    with pytest.raises(InputError, match="class 'c' of .*test has no folder in .*train"):
        load_dataset(f"folder:{tmp_path}")


def _varied(*folders, count=4, name="{}.png"):
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            file = folder / name.format(index)
            Image.new("RGB", (8, 8), (40 * index, number, 0)).save(file, "png")


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "VAL", "valid", "Validation"])
def test_parts_are_found_by_all_their_names(tmp_path, train, test):
    _varied(*(tmp_path / part / name for part in (train, test) for name in "xy"))
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == ("x", "y") and len(dataset.train_images) == len(dataset.test_images) == 8
    assert dataset.notes == ()


@pytest.mark.parametrize("loose", ["test", "test/z/.hidden", "test/x"])
def test_the_test_part_is_the_first_one_with_labelled_pictures(tmp_path, loose):
    _varied(*(tmp_path / part / name for part in ("train", "val") for name in "xy"))
    _varied(tmp_path / loose, count=4 if loose == "test" else 0)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert len(dataset.test_images) == 8
    assert dataset.notes == (("not read: 'test' beside 'train'",) if loose == "test" else ())


def test_what_is_left_out_beside_the_parts_is_noted(tmp_path):
    _varied(tmp_path / "train/x", tmp_path / "train/y", tmp_path / "test", tmp_path / "extra/x")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("words")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.test_images is None
    assert dataset.notes == (
        "not read: 'extra', 'test' beside 'train'",
        "no test part: 'test' holds no class folders with pictures",
    )


@pytest.mark.parametrize("names", [("plane", "train"), ("Train", "plane", "test"), ("plane", "test"), ("car", "val")])
def test_a_class_may_be_called_like_a_part(tmp_path, names):
    _varied(*(tmp_path / name for name in names))
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.class_names == tuple(sorted(names)) and dataset.test_images is None
    assert len(dataset.train_images) == 4 * len(names)


def test_parts_with_other_names_are_no_classes(tmp_path):
    _varied(*(tmp_path / part / name for part in ("learn", "check") for name in "xy"))
    with pytest.raises(
        InputError, match="folders check, learn of .* hold the same class folders, x and y for two; name"
    ):
        load_dataset(f"folder:{tmp_path}")
    _varied(tmp_path / "empty" / "train", tmp_path / "empty" / "test")
    with pytest.raises(InputError, match="train holds no class folders"):
        load_dataset(f"folder:{tmp_path}/empty")


def test_pictures_deeper_and_with_other_names_are_read_and_the_rest_is_counted(tmp_path):
    _varied(tmp_path / "x", tmp_path / "y", tmp_path / "x" / "2024" / "may", tmp_path / "x" / ".thumbs")
    _varied(tmp_path / "y", count=2, name="{}.jfif")
    _varied(tmp_path / "y", count=3, name="without_{}")
    (tmp_path / "y" / "words.txt").write_text("words")
    (tmp_path / "x" / "Thumbs.db").write_text("words")
    os.mkfifo(tmp_path / "x" / "pipe")  # reading it would wait for ever
    dataset = load_dataset(f"folder:{tmp_path}")
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [8, 9])
    assert dataset.notes == (
        "pictures read from folders inside a class's folder: 4, the first is 'x/2024/may/0.png'",
        "files not read, as they are no pictures of a known kind: 2, the first is 'x/pipe'",
    )


def test_turned_and_transparent_pictures_are_noted(tmp_path, recwarn):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.fromarray(np.repeat([[[255, 0, 0]], [[0, 0, 255]]], 6, axis=0).repeat(8, axis=1).astype(np.uint8))
    for name in "ab":
        (tmp_path / name).mkdir()
        upright.save(tmp_path / name / "0.png")
    upright.rotate(90, expand=True).save(tmp_path / "a" / "1.png", exif=exif)
    Image.new("RGBA", (8, 12), (9, 9, 9, 0)).save(tmp_path / "b" / "1.png")
    dataset = load_dataset(f"folder:{tmp_path}")  # of one size, once they are upright
    for index in (0, 1, 2):
        np.testing.assert_array_equal(dataset.train_images[index], np.asarray(upright))
    assert (dataset.train_images[3] == 255).all()
    assert dataset.notes == (
        "1 of 4 pictures are turned upright, as their EXIF orientation says",
        "1 of 4 pictures are transparent in part and laid on white",
    )
    assert not recwarn.list


def test_a_limit_keeps_a_rare_class(tmp_path):
    _varied(tmp_path / "common", count=30)
    _varied(tmp_path / "rare", count=1)
    dataset = load_dataset(f"folder:{tmp_path}", limit=10)
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [9, 1])
    assert dataset.notes == ("10 of 31 images are drawn over the classes: the first ones hold 1 of 2 classes",)
    with pytest.raises(InputError, match="limit must be at least 3"):
        _varied(tmp_path / "third")
        load_dataset(f"folder:{tmp_path}", limit=2)
