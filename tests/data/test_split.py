"""Are the two parts of the search split disjoint, complete and refused when useless?"""

from __future__ import annotations

import numpy as np
import pytest

from jaxdarts.data.split import split_indices
from jaxdarts.errors import InputError


@pytest.mark.parametrize("order", ["file", "shuffled"])
@pytest.mark.parametrize(("num_examples", "portion", "expected"), [(100, 0.5, 50), (7, 0.5, 3), (10, 0.25, 2)])
def test_parts_are_disjoint_and_complete(order, num_examples, portion, expected):
    train, valid = split_indices(num_examples, portion, order, seed=3)
    assert len(train) == expected and train.dtype == valid.dtype == np.int32
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(num_examples))


def test_file_order_is_kept_and_shuffling_follows_the_seed():
    np.testing.assert_array_equal(split_indices(10)[0], np.arange(5))
    first = split_indices(100, 0.5, "shuffled", 1)[0]
    np.testing.assert_array_equal(first, split_indices(100, 0.5, "shuffled", 1)[0])
    assert not np.array_equal(first, split_indices(100, 0.5, "shuffled", 2)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0.5, "random"), "unknown split 'random'; choose from file, shuffled"),
        ((10, 1.0), "train_portion must be greater than 0 and less than 1"),
        ((10, 0.01), "both need at least 1"),
        ((1, 0.5), "both need at least 1"),
    ],
)
def test_bad_splits_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        split_indices(*arguments)


def test_data_sorted_by_class_cannot_be_cut_in_file_order():
    labels = np.repeat(np.arange(4), 25)
    with pytest.raises(InputError, match="no example of class 2: the data are sorted by class"):
        split_indices(100, labels=labels)
    split_indices(100, order="shuffled", labels=labels)
    split_indices(100, labels=np.tile(np.arange(4), 25))
    split_indices(6, labels=np.array([0, 0, 0, 1, 1, 1]))  # too few to tell from chance
