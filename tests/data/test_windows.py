"""Which rows of a text does each step of an epoch read?"""

from __future__ import annotations

from itertools import repeat

import jax
import numpy as np
import pytest

from jaxdarts.data.windows import most_windows, search_lengths, training_length, training_lengths, windows_of


def test_windows_follow_each_other_until_fewer_than_two_rows_are_left() -> None:
    found = windows_of(11, [4, 2, 4, 4])
    assert found.starts.tolist() == [0, 4, 6]
    assert found.lengths.tolist() == [4, 2, 4]
    assert found.wanted.tolist() == [4, 2, 4]
    cut = windows_of(10, repeat(4))
    assert (cut.starts.tolist(), cut.lengths.tolist(), cut.wanted.tolist()) == ([0, 4], [4, 4], [4, 4])
    # Two rows are left after row 8 of 11, one of which is only predicted; of 10 rows that would be none.
    last = windows_of(11, repeat(4))
    # Of row 8 on two rows can be predicted, though four were asked for.
    assert (last.starts.tolist(), last.lengths.tolist(), last.wanted.tolist()) == ([0, 4, 8], [4, 4, 2], [4, 4, 4])


@pytest.mark.parametrize("rows", [3, 4, 18, 19, 20, 57])
@pytest.mark.parametrize("least", [1, 5, 17])
def test_no_epoch_has_more_windows_than_there_is_room_for(rows: int, least: int) -> None:
    assert len(windows_of(rows, repeat(least)).starts) == most_windows(rows, least)


def test_lengths_of_a_search_are_the_usual_one_or_half_of_it() -> None:
    lengths = search_lengths(35)
    drawn = lengths.draw(jax.random.key(0), 4000)
    assert set(drawn.tolist()) == {17, 35} == {lengths.least, lengths.most}
    assert np.mean(drawn == 35) == pytest.approx(0.95, abs=0.015)


def test_lengths_of_a_training_are_normal_within_bounds() -> None:
    lengths = training_lengths(35)
    drawn = lengths.draw(jax.random.key(0), 4000)
    assert (lengths.least, lengths.most) == (5, 55)
    assert drawn.min() >= 5 and drawn.max() <= 55
    # N(35, 5) from 28 on has mean 35.8 and standard deviation 4.3; towards zero half less.
    usual = drawn[drawn > 27]
    assert usual.mean() == pytest.approx(35.3, abs=0.3) and usual.std() == pytest.approx(4.3, abs=0.3)
    by_hand = training_length(np.array([0.1, 0.96, 0.1, 0.1, 0.96]), np.array([0.39, -1.0, 9.0, -9.0, 0.1]), 35)
    assert by_hand.tolist() == [36, 12, 55, 5, 18]  # half of 35 is 17.5


def test_lengths_follow_from_the_key() -> None:
    for lengths in (search_lengths(20), training_lengths(20)):
        one, again, other = (lengths.draw(jax.random.key(seed), 50).tolist() for seed in (0, 0, 1))
        assert one == again != other
