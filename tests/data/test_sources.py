"""Does every name lead to a reader, or to one line that helps?"""

from __future__ import annotations

import pytest

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
