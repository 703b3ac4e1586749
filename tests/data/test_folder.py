"""Are class folders read in a balanced order, and useless folders refused?"""

from __future__ import annotations

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
    _write(tmp_path / "b", 2, (1, 2, 3), size=(20, 30))
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
