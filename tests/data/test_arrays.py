"""Are arrays read as they are, and unusable ones refused with one clear line?"""

from __future__ import annotations

import numpy as np
import pytest

from jaxdarts.data.sources import load_dataset
from jaxdarts.errors import InputError

GENERATOR = np.random.default_rng(0)
X = GENERATOR.integers(0, 256, (20, 10, 12, 3), dtype=np.uint8)
Y = np.tile([3, 7], 10)


def _load(tmp_path, arguments=None, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return load_dataset(f"npz:{path}", **(arguments or {}))


def test_labels_are_renumbered_and_the_test_set_kept(tmp_path):
    dataset = _load(tmp_path, x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6])
    assert dataset.image_shape == (10, 12, 3) and dataset.train_images.dtype == np.uint8
    assert dataset.num_classes == 2 and dataset.class_names == ("3", "7")
    np.testing.assert_array_equal(dataset.train_labels, np.tile([0, 1], 10))
    np.testing.assert_array_equal(dataset.test_labels, [0, 1, 0, 1, 0, 1])
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_allclose(dataset.mean, (X / 255).mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, (X / 255).std(axis=(0, 1, 2)), rtol=1e-5)


def test_grey_float_and_column_labels(tmp_path):
    images = GENERATOR.normal(size=(20, 8, 8))
    dataset = _load(tmp_path, x_train=images, y_train=Y[:, None])
    assert dataset.image_shape == (8, 8, 1) and dataset.train_images.dtype == np.float32
    assert dataset.test_images is None and dataset.test_labels is None
    np.testing.assert_allclose(dataset.std, [images.std()], rtol=1e-5)


def test_constant_channel_does_not_divide_by_zero(tmp_path):
    images = X.copy()
    images[..., 1] = 7
    std = _load(tmp_path, x_train=images, y_train=Y).std
    assert std[1] == 1.0 and 0.2 < min(std[0], std[2]) < 0.4


def test_limit_cuts_both_parts(tmp_path):
    dataset = _load(tmp_path, {"limit": 10}, x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6])
    assert len(dataset.train_images) == 10 and len(dataset.test_images) == len(dataset.test_labels) == 3
    assert (
        len(
            _load(
                tmp_path, {"limit": 10, "test_limit": 5}, x_train=X, y_train=Y, x_test=X[:6], y_test=Y[:6]
            ).test_images
        )
        == 5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_image_size_is_the_mean_over_areas(tmp_path, dtype, channels):
    images = GENERATOR.integers(0, 256, (4, 32, 32, channels)).astype(dtype)
    dataset = _load(tmp_path, {"image_size": 16}, x_train=images, y_train=Y[:4])
    areas = images.reshape(4, 16, 2, 16, 2, channels).mean(axis=(2, 4))
    assert dataset.train_images.dtype == dtype
    tolerance = 1.01 if dtype == np.uint8 else 1e-3  # Pillow rounds after each of its two passes
    np.testing.assert_allclose(dataset.train_images, areas, atol=tolerance)
    assert _load(tmp_path, {"image_size": 40}, x_train=images, y_train=Y[:4]).image_shape == (40, 40, channels)


NAN = X.astype(np.float32)
NAN[4, 0, 0, 0] = np.nan
ONE_HOT = np.eye(2, dtype=int)[Y // 7]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": NAN, "y_train": Y}, "1 of 20 images hold NaN or infinite values, the first is image 4"),
        ({"x_train": np.full(X.shape, 1e300), "y_train": Y}, "hold NaN or infinite values"),
        ({"x_train": X.astype(np.int64), "y_train": Y}, "images have dtype int64; save them as uint8"),
        ({"x_train": X.astype(str), "y_train": Y}, "images have dtype <U"),
        ({"x_train": X[:, 0, 0], "y_train": Y}, r"images have shape \(20, 3\); expected \[N, H, W, C\]"),
        ({"x_train": X[:, :7], "y_train": Y}, "images of 7x12 pixels are too small; the least is 8x8"),
        ({"x_train": X.transpose(0, 3, 1, 2)[..., :10], "y_train": Y}, "the channel axis must be the last"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "there are no images"),
        ({"x_train": X, "y_train": Y[:-1]}, "20 images but 19 labels"),
        ({"x_train": X, "y_train": Y.astype(float)}, "labels have dtype float64; expected integers"),
        ({"x_train": X, "y_train": ONE_HOT}, r"labels have shape \(20, 2\); expected \[N\]"),
        ({"x_train": X, "y_train": Y - 4}, "label -1 is negative"),
        ({"x_train": X, "y_train": Y.astype(np.uint64) + 2**63}, "label 9223372036854775815 is too large"),
        ({"x_train": np.full_like(X, 7), "y_train": Y}, "all pixels of all 20 training images are the same$"),
        ({"x_train": np.full_like(X, [1, 2, 3]), "y_train": Y}, "all pixels of all 20 training images are the same$"),
        ({"x_train": X * 1e-9, "y_train": Y}, r"training images are the same \(they differ by less than 1e-05; scale"),
        ({"x_train": X * -1e30, "y_train": Y}, r"images hold values as large as 2.\d+e\+32; scale them, to about 0..1"),
        ({"x_train": X / 255, "y_train": Y, "x_test": X * 1e30, "y_test": Y}, "test part: images hold values as large"),
        ({"x_train": X, "y_train": np.full(20, 5)}, "all 20 training images have one class, '5'; at least 2"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "test label 4 does not occur"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :8], "y_test": Y}, r"test images are \(8, 12, 3\) uint8"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "the test part has images without labels"),
        ({"x_train": X, "labels": Y}, "holds no y_train, only x_train, labels"),
        ({"x_train": np.array([{}]), "y_train": Y}, "cannot be read as .npz: Object arrays cannot be loaded"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message) as caught:
        _load(tmp_path, **arrays)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_dataset(f"npz:{tmp_path}/none.npz")
    path = tmp_path / "broken.npz"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="cannot be read as .npz"):
        load_dataset(f"npz:{path}")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(InputError, match="is one array, not an .npz file"):
        load_dataset(f"npz:{tmp_path}/one.npy")


def test_digits():
    dataset = load_dataset("digits")
    assert dataset.image_shape == (8, 8, 1) and dataset.num_classes == 10
    assert len(dataset.train_images) == 1437 and len(dataset.test_images) == 360
    assert dataset.train_images.min() == 0 and dataset.train_images.max() == 1
    assert load_dataset("digits", limit=100, image_size=16).train_images.shape == (100, 16, 16, 1)
