"""Is photos10 what it says: balanced crops whose three sets share no pixel, the same for the same seed, and cached?"""

from __future__ import annotations

import numpy as np
import pytest

from jaxdarts.data import photographs
from jaxdarts.data.sources import load_dataset
from jaxdarts.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxdarts"


def test_shapes_balance_and_statistics():
    dataset = load_dataset("photos10")
    assert dataset.train_images.shape == (4000, 32, 32, 3) and dataset.test_images.shape == (1000, 32, 32, 3)
    assert dataset.num_classes == 10 and dataset.class_names[0] == "astronaut"
    np.testing.assert_array_equal(dataset.train_labels[:30], np.tile(np.arange(10), 3))
    np.testing.assert_allclose(dataset.mean, (dataset.train_images / 255).mean(axis=(0, 1, 2)), rtol=1e-4)
    assert min(dataset.std) > 0.1


def test_blocks_of_the_three_sets_are_disjoint():
    photograph = photographs._photograph("chelsea")
    sets = photographs._dealt_blocks(photograph, np.random.default_rng(0))
    corners = [tuple(corner) for blocks in sets for corner in blocks]
    height, width, _ = photograph.shape
    assert len(set(corners)) == len(corners) == (height // 64) * (width // 64)
    assert all(len(blocks) >= 5 for blocks in sets)
    assert all(top % 64 == left % 64 == 0 for top, left in corners)


def test_crops_come_from_the_blocks_of_their_set(monkeypatch):
    """A picture in which every pixel names its block."""
    names = np.arange(8 * 8).repeat(64).reshape(8, 512).repeat(64, axis=0).astype(np.uint8)
    monkeypatch.setattr(photographs, "_photograph", lambda name: np.stack([names] * 3, axis=-1))
    images, labels = photographs._build(seed=0)
    assert (images == images[:, :1, :1]).all(), "a crop reaches beyond its block"
    for label in range(10):
        of_class = [set(images[part][labels[part] == label][:, 0, 0, 0].tolist()) for part in
                    (slice(0, 2000), slice(2000, 4000), slice(4000, 5000))]  # fmt: skip
        assert all(len(blocks) > 10 for blocks in of_class)
        assert not of_class[0] & of_class[1] and not of_class[2] & (of_class[0] | of_class[1])


def test_limit_cuts_each_half():
    whole, limited = load_dataset("photos10"), load_dataset("photos10", limit=100)
    np.testing.assert_array_equal(limited.train_images[:50], whole.train_images[:50])
    np.testing.assert_array_equal(limited.train_images[50:], whole.train_images[2000:2050])
    np.testing.assert_array_equal(np.bincount(limited.train_labels[:50]), np.full(10, 5))
    assert len(limited.test_images) == 25
    np.testing.assert_array_equal(load_dataset("photos10", limit=100, test_limit=2000).test_images, whole.test_images)


def test_the_seed_decides_and_the_cache_is_used_or_remade(cache):
    first = load_dataset("photos10")
    assert [path.name for path in cache.iterdir()] == ["photos10-v1-seed0.npz"]
    other = load_dataset("photos10", seed=1)
    assert not np.array_equal(first.train_images, other.train_images)
    path = cache / "photos10-v1-seed0.npz"
    for damaged in (b"PK\x03\x04", path.read_bytes()[:50_000]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(load_dataset("photos10").train_images, first.train_images)
    photographs._save_cache(path, (first.train_images, first.train_labels))  # another shape: not taken
    np.testing.assert_array_equal(load_dataset("photos10").train_images, first.train_images)


def test_an_unwritable_cache_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load_dataset("photos10", limit=20).train_images) == 20


def test_a_missing_photograph_or_package_is_named(monkeypatch):
    monkeypatch.setitem(photographs.PHOTOGRAPHS, "coffee", ("skimage", "data/none.png"))
    with pytest.raises(InputError, match="photograph 'coffee' cannot be read .*force-reinstall scikit-image"):
        load_dataset("photos10")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scikit-image"):
        load_dataset("photos10")
