"""Are the two parts of the search split disjoint, complete and refused when useless?"""

from __future__ import annotations

import numpy as np
import pytest

from jaxdarts.data.split import split_indices, split_note
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


@pytest.mark.parametrize(("classes", "each"), [(2, 10), (4, 25), (10, 5), (40, 16), (100, 12), (200, 19), (3, 100)])
def test_data_sorted_by_class_cannot_be_cut_in_file_order(classes, each):
    labels = np.repeat(np.arange(classes), each)
    with pytest.raises(InputError, match=f"no example of class {classes // 2 + classes % 2}: the data are sorted"):
        split_indices(len(labels), labels=labels)
    train, valid = split_indices(len(labels), order="shuffled", labels=labels)
    assert set(labels[train]) == set(labels[valid]) == set(range(classes))
    alternating = np.tile(np.arange(classes), each - each % 2)
    train, valid = split_indices(len(alternating), labels=alternating)
    np.testing.assert_array_equal(np.append(train, valid), np.arange(len(alternating)))


@pytest.mark.parametrize("order", ["file", "shuffled"])
@pytest.mark.parametrize("portion", [0.5, 0.25, 0.9])
def test_a_class_left_out_by_chance_is_drawn_into_both_parts(order, portion):
    labels = np.concatenate([np.tile(np.arange(5), 20), [5, 5]])
    train, valid = split_indices(len(labels), portion, order, 0, labels=labels)
    plain = split_indices(len(labels), portion, order, 0)
    assert set(labels[train]) == set(labels[valid]) == set(range(6))
    np.testing.assert_array_equal(np.sort(np.append(train, valid)), np.arange(len(labels)))
    assert len(train) == len(plain[0])
    is_plain = np.array_equal(train, plain[0])
    assert is_plain == (set(labels[plain[0]]) == set(labels[plain[1]]))
    note = split_note(train, valid, order, 0)
    assert note == (
        "" if is_plain else f"both parts are drawn over the classes: split={order} alone leaves a class out of one"
    )
    assert order == "shuffled" or not is_plain


def test_parts_that_cannot_hold_every_class_are_refused():
    for order in ("file", "shuffled"):
        with pytest.raises(
            InputError, match="part that is held out has 6 examples for 10 classes; it needs one of each"
        ):
            split_indices(60, 0.9, order, labels=np.tile(np.arange(10), 6), purposes=("is trained on", "is held out"))
        with pytest.raises(InputError, match="class 4 has one example, but the part that trains w and the part that"):
            split_indices(20, 0.5, order, labels=np.append(np.tile(np.arange(4), 5)[1:], 4))
