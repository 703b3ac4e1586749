"""Does every name lead to a reader, or to one line that helps?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxdarts.data.dataset import RawData, data_digest, make_dataset
from jaxdarts.data.sources import DATASETS, default_data_dir, load_dataset
from jaxdarts.data.split import split_indices
from jaxdarts.errors import InputError


@pytest.mark.parametrize("name", ["photos10", "digits"])
def test_embedded_sets_split_into_balanced_disjoint_halves(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = load_dataset(name, tmp_path, limit=200)
    train, valid = split_indices(200, labels=dataset.train_labels)
    assert not set(train.tolist()) & set(valid.tolist())
    assert set(dataset.train_labels[train].tolist()) == set(dataset.train_labels[valid].tolist()) == set(range(10))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn_cropped", "mnist", "fashion_mnist", "tfds:beans"])
def test_a_missing_set_says_what_was_looked_for_and_what_helps(name, tmp_path):
    assert name.split(":")[0] in DATASETS
    with pytest.raises(InputError) as caught:
        load_dataset(name, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path), f"{name.split(':')[-1]}/VERSION/dataset_info.json", "--data-dir", "--download"):
        assert part in message
    assert ("cifar-100-python.tar.gz" in message) == (name == "cifar100")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar1", r"unknown dataset 'cifar1'; choose from photos10, .*\(did you mean 'cifar10'\?\)"),
        ("", "unknown dataset ''; choose from photos10"),
        ("npz:", "needs an argument: npz:PATH"),
        ("folder", "needs an argument: folder:PATH"),
        ("photos10:x", "'photos10' takes no argument"),
    ],
)
def test_bad_names(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_dataset(name, tmp_path)


def test_bad_arguments(tmp_path):
    with pytest.raises(InputError, match="image_size must be at least 8, not 4"):
        load_dataset("digits", image_size=4)
    with pytest.raises(InputError, match="limit must be at least 2, not 0"):
        load_dataset("digits", limit=0)
    with pytest.raises(InputError, match="test_limit must be at least 1, not 0"):
        load_dataset("digits", test_limit=0)
    with pytest.raises(InputError, match="no such folder"):
        load_dataset("cifar10", tmp_path / "none")


def test_default_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/somewhere")
    assert str(default_data_dir()) == "/somewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert default_data_dir().name == "tensorflow_datasets"


def _dataset(**changes):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    labels = np.tile([0, 1], 6)
    raw = RawData(images, labels, images[:4], labels[:4], ("a", "b"))
    return make_dataset("made", raw._replace(**changes))


def test_the_digest_follows_whatever_is_learned_from():
    first = data_digest(_dataset())
    assert len(first) == 64 and first == data_digest(_dataset())
    assert first == data_digest(dataclasses.replace(_dataset(), name="other", notes=("a note",)))
    whole = _dataset()
    images, labels = whole.train_images, whole.train_labels
    one_pixel, one_label = images.copy(), labels.copy()
    one_pixel[11, 7, 7, 0] ^= 1
    one_label[11] ^= 1
    others = [
        {"train_images": one_pixel},
        {"train_labels": one_label},
        {"train_images": images[::-1]},
        {"train_images": images / 255, "test_images": images[:4] / 255},
        {"train_images": images[:, ::-1], "test_images": images[:4, ::-1]},
        {"test_images": one_pixel[8:]},
        {"test_labels": one_label[8:]},
        {"test_images": None, "test_labels": None},
        {"class_names": ("a", "c")},
    ]
    digests = {data_digest(_dataset(**changes)) for changes in others}
    assert len(digests) == len(others) and first not in digests


def test_the_digest_does_not_depend_on_how_arrays_lie_in_memory():
    dataset = _dataset()
    turned = np.asfortranarray(dataset.train_images)
    swapped = dataset.train_labels.astype(">i4")
    assert data_digest(dataclasses.replace(dataset, train_images=turned, train_labels=swapped)) == data_digest(dataset)


def test_what_is_missing_from_a_part_is_noted():
    assert _dataset().notes == ()
    dataset = _dataset(class_names=("a", "b", "c"), notes=("read so",))
    assert dataset.notes == (
        "read so",
        "the training part has no image of 1 of 3 classes, the first is 'c'",
        "the test part has no image of 1 of 3 classes, the first is 'c'",
    )


def test_a_limit_is_drawn_over_the_classes_and_says_so(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)
    labels = np.repeat(np.arange(10), 40)
    images[:, 0, 0, 0] = labels
    np.savez(tmp_path / "s.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = load_dataset(f"npz:{tmp_path}/s.npz", limit=60)
    for part, found in ((dataset.train_images, dataset.train_labels), (dataset.test_images, dataset.test_labels)):
        np.testing.assert_array_equal(np.bincount(found), np.full(10, 6))
        np.testing.assert_array_equal(part[:, 0, 0, 0], found)
    assert dataset.notes == (
        "60 of 400 images are drawn over the classes: the first ones hold 2 of 10 classes",
        "of the test part, 60 of 400 images are drawn over the classes: the first ones hold 2 of 10 classes",
    )
    for name in (f"npz:{tmp_path}/s.npz", "digits"):
        with pytest.raises(InputError, match="limit must be at least 10, an image for each class; got 9"):
            load_dataset(name, limit=9)
    with pytest.raises(InputError, match="limit must be at least 20 for 'photos10', every class in each half; got 19"):
        load_dataset("photos10", limit=19)
