"""Does a limit leave no class out, and keep the first examples where these are fair?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdarts.data.classes import class_places, limited_indices
from jaxdarts.errors import InputError


def test_places_are_by_rank_within_the_class():
    np.testing.assert_allclose(class_places(np.array([5, 2, 5, 5, 5, 2, 9])), [0, 0, 1.5 / 4, 2.5 / 4, 1, 1, 0])


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array),
    part=st.floats(0, 1),
    is_sorted=st.booleans(),
)
def test_every_class_is_kept_and_the_order_too(labels, part, is_sorted):
    labels = np.sort(labels) if is_sorted else labels
    least = len(np.unique(labels))
    count = least + round(part * (len(labels) - least))
    kept, note = limited_indices(labels, count)
    assert len(kept) == count and set(labels[kept]) == set(labels)
    assert (np.diff(kept) > 0).all()
    assert bool(note) != np.array_equal(kept, np.arange(count))
    with pytest.raises(InputError, match=f"limit must be at least {least}, an image for each class; got {least - 1}"):
        limited_indices(np.append(labels, labels), least - 1)


def test_sorted_data_are_drawn_in_proportion():
    labels = np.repeat(np.arange(10), 40)
    kept, note = limited_indices(labels, 60)
    np.testing.assert_array_equal(np.bincount(labels[kept]), np.full(10, 6))
    assert note == "60 of 400 images are drawn over the classes: the first ones hold 2 of 10 classes"
    kept, note = limited_indices(labels, 380)
    np.testing.assert_array_equal(np.bincount(labels[kept]), np.full(10, 38))
    assert note.endswith("the first ones hold the classes unequally")


@pytest.mark.parametrize("seed", range(20))
def test_the_first_examples_stay_where_the_order_is_random_or_alternates(seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), 100))
    for given_labels in (labels, np.tile(np.arange(10), 100)):
        kept, note = limited_indices(given_labels, 200)
        np.testing.assert_array_equal(kept, np.arange(200))
        assert note == ""


def test_a_test_part_too_small_for_all_classes_holds_as_many_as_it_can():
    labels = np.repeat(np.arange(10), 40)
    kept, note = limited_indices(labels, 6, every_class=False)
    assert len(set(labels[kept])) == 6 and "hold 1 of 10 classes" in note
    alternating = np.tile(np.arange(10), 40)
    kept, note = limited_indices(alternating, 6, every_class=False)
    np.testing.assert_array_equal(kept, np.arange(6))
    assert note == ""
