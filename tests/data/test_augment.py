"""Are crop, flip, normalisation and cutout exactly what they say, for any key?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.data.augment import augment, cutout, normalise, random_crop, random_flip, take_batch, to_unit

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (16, 12, 10, 3), dtype=np.uint8)


def test_normalise_equals_numpy(images):
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(normalise(images, MEAN, STD), expected, rtol=1e-5, atol=1e-6)
    floats = (images / 255.0).astype(np.float32)
    np.testing.assert_allclose(normalise(floats, MEAN, STD), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padding", [1, 4])
def test_crop_is_a_window_of_the_padded_image_and_reaches_every_offset(images, padding):
    image = images[0]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    height, width, _ = image.shape
    windows = {
        padded[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }
    keys = jax.random.split(jax.random.key(0), 1500)
    crops = np.asarray(jax.jit(jax.vmap(lambda key: random_crop(key, jnp.asarray(image), padding)))(keys))
    offsets = {windows[crop.tobytes()] for crop in crops}
    assert len(offsets) == (2 * padding + 1) ** 2


def test_flip_mirrors_columns_about_half_of_the_time(images):
    keys = jax.random.split(jax.random.key(1), 400)
    flipped = np.asarray(jax.jit(jax.vmap(lambda key: random_flip(key, jnp.asarray(images[0]))))(keys))
    is_mirror = (flipped == images[0][:, ::-1]).all(axis=(1, 2, 3))
    is_same = (flipped == images[0]).all(axis=(1, 2, 3))
    assert (is_mirror ^ is_same).all()
    assert 150 < is_mirror.sum() < 250


@pytest.mark.parametrize("length", [2, 5, 16])
def test_cutout_is_the_references_clipped_square(length):
    size, half = 12, length // 2
    squares = set()
    for row in range(size):
        for column in range(size):
            mask = np.ones((size, size, 1), np.float32)
            top, bottom = np.clip((row - half, row + half), 0, size)
            left, right = np.clip((column - half, column + half), 0, size)
            mask[top:bottom, left:right] = 0
            squares.add(mask.tobytes())
    ones = jnp.ones((size, size, 1))
    keys = jax.random.split(jax.random.key(2), 2000)
    masks = np.asarray(jax.jit(jax.vmap(lambda key: cutout(key, ones, length)))(keys))
    found = {mask.tobytes() for mask in masks}
    assert found <= squares
    assert len(found) > 0.9 * len(squares)
    assert (masks == 0).sum(axis=(1, 2, 3)).max() == min(2 * half, size) ** 2


def test_cutout_probability_may_be_traced():
    ones = jnp.ones((8, 8, 1))
    keys = jax.random.split(jax.random.key(3), 400)
    fraction = jax.jit(
        lambda probability: jax.vmap(lambda key: (cutout(key, ones, 4, probability) == 0).any())(keys).mean()
    )
    assert fraction(0.0) == 0
    assert fraction(1.0) == 1
    assert 0.4 < fraction(0.5) < 0.6


def test_padding_is_black_before_and_cutout_is_zero_after_normalisation(images):
    black = (0 - np.array(MEAN)) / np.array(STD)
    run = jax.jit(lambda key: augment(key, jnp.asarray(images), MEAN, STD, padding=4, cutout_length=6))
    result = np.asarray(run(jax.random.key(4)))
    is_black = np.isclose(result, black, atol=1e-5).all(axis=-1)
    is_cut = (result == 0).all(axis=-1)
    assert is_black.any()
    assert is_cut.any(axis=(1, 2)).all()
    assert (is_cut.sum(axis=(1, 2)) <= 36).all()


def test_augment_is_reproducible_differs_by_key_and_example_and_jits(images):
    same = np.repeat(images[:1], 16, axis=0)

    def run(key, batch):
        return augment(key, batch, MEAN, STD, cutout_length=4)

    compiled = jax.jit(run)
    first = compiled(jax.random.key(5), same)
    assert first.shape == same.shape and first.dtype == jnp.float32
    np.testing.assert_array_equal(first, compiled(jax.random.key(5), same))
    assert not np.array_equal(first, compiled(jax.random.key(6), same))
    assert len({row.tobytes() for row in np.asarray(first)}) > 12


def test_augment_without_changes_is_normalise(images):
    result = augment(jax.random.key(0), images, MEAN, STD, padding=0, flip=False)
    np.testing.assert_allclose(result, normalise(images, MEAN, STD), atol=1e-6)


def test_take_batch_keeps_dtypes(images):
    labels = np.arange(16, dtype=np.int32)
    batch, taken = jax.jit(take_batch)((jnp.asarray(images), jnp.asarray(labels)), jnp.array([3, 3, 15]))
    assert batch.dtype == jnp.uint8
    np.testing.assert_array_equal(batch, images[[3, 3, 15]])
    np.testing.assert_array_equal(taken, [3, 3, 15])


def test_images_are_float32_unless_jax_computes_in_float64(images):
    """Constants and quotients are then exact to float64, in training and in measuring."""
    expected = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    stored = jnp.asarray(images)
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.float64, 1e-14)):
        with jax.enable_x64(dtype == jnp.float64):
            augmented = augment(jax.random.key(0), stored, MEAN, STD, padding=0, flip=False)
            for result in (normalise(stored, MEAN, STD), normalise(to_unit(stored), MEAN, STD), augmented):
                assert result.dtype == dtype
                np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
            cut = augment(jax.random.key(0), stored, MEAN, STD, cutout_length=4, cutout_probability=0.5)
            assert cut.dtype == dtype
