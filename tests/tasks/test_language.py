"""Does a text's task read the right words, and are its losses what they are by hand?"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.data import Text
from jaxdarts.errors import InputError
from jaxdarts.networks.recurrent import TextOutputs
from jaxdarts.tasks.base import means, with_derived
from jaxdarts.tasks.language import METRICS, Texts, bare_task, loss, measure, regularised_loss, searching, training
from jaxdarts.tasks.text_streams import Batch

WORDS = 50


def text(train: int = 400, valid: int = 90, test: int = 31) -> Text:
    """Each part counts upwards, so that a window is read off its numbers."""
    parts = (np.arange(size, dtype=np.int32) + first for size, first in ((train, 0), (valid, 1000), (test, 2000)))
    return Text("counting", *parts, tuple(map(str, range(WORDS))))


def settings(**changes: Any) -> Any:
    values = {
        "dataset": "counting",
        "seed": 3,
        "data_seed": None,
        "batch_size": 4,
        "sequence_length": 6,
        "activation_penalty": 0.0,
        "slowness_penalty": 0.0,
        "count_all_rows": False,
    }
    return SimpleNamespace(**{**values, **changes})


def epoch_of(stream: Any, epoch: int, first_step: int) -> list[Batch]:
    """The batches of an epoch, as a run draws them."""
    cursor = stream.start(jax.random.key(0), epoch)
    draw = jax.jit(stream.batch)
    key = jax.random.key(1)
    return [draw(stream.data, cursor, jnp.int32(first_step + i), key) for i in range(stream.steps_in(epoch))]


def counted(batch: Batch) -> np.ndarray:
    """The tokens that count."""
    return np.asarray(batch.tokens)[: int(batch.length)]


def test_an_epoch_of_a_search_reads_the_text_once_in_order() -> None:
    task = searching(Texts(text()), settings())
    assert task.train is not None and task.train.steps_in is not None
    first_step, lengths = 0, []
    for epoch in range(3):
        batches = epoch_of(task.train, epoch, first_step)
        first_step += len(batches)
        read = np.concatenate([counted(batch) for batch in batches])
        np.testing.assert_array_equal(read[:, 0], np.arange(len(read)))
        np.testing.assert_array_equal(read[0], [0, 100, 200, 300])
        # Of 100 rows the last is only predicted; what is left out at the end is less than two.
        assert 97 <= len(read) <= 99
        assert [bool(batch.fresh) for batch in batches] == [True] + [False] * (len(batches) - 1)
        for batch in batches:
            np.testing.assert_array_equal(np.asarray(batch.targets)[: len(counted(batch))], counted(batch) + 1)
            assert task.rate is not None
            assert float(task.rate(batch)) == pytest.approx(int(batch.wanted) / 6)
        lengths.append([int(batch.length) for batch in batches])
    assert {length for own in lengths for length in own[:-1]} <= {3, 6}
    assert len({tuple(own) for own in lengths}) > 1


def test_alpha_reads_from_the_rows_where_w_reads() -> None:
    task = searching(Texts(text()), settings())
    assert task.train is not None and task.valid is not None
    trained, followed = epoch_of(task.train, 0, 0), epoch_of(task.valid, 0, 0)
    rows = 90 // 4  # 22, of which row 21 is only predicted
    for one, other in zip(trained, followed, strict=True):
        start = int(one.tokens[0, 0]) % (rows - 1)
        assert int(other.tokens[0, 0]) == 1000 + start
        assert int(other.length) == min(6, rows - 1 - start)
        assert bool(other.fresh) == bool(one.fresh)


def test_a_held_batch_is_a_window_of_its_own() -> None:
    task = searching(Texts(text()), settings())
    assert task.valid is not None
    assert task.valid.num_held == 3
    for number in range(3):
        batch = task.valid.held(task.valid.data, jnp.int32(number))
        assert int(batch.tokens[0, 0]) == 1000 + 6 * number
        assert bool(batch.fresh) and int(batch.length) == 6


@pytest.mark.parametrize("count_all_rows", [False, True])
def test_a_part_is_measured_word_by_word_once(count_all_rows: bool) -> None:
    task = training(Texts(text()), settings(count_all_rows=count_all_rows))
    for stream, side_by_side, first in ((task.valid, 10, 1000), (task.test, 1, 2000)):
        assert stream is not None
        batches = [(stream.plain(stream.data, jnp.asarray(p)), mask) for p, mask in stream.positions()]
        rows = stream.size // side_by_side
        read = np.concatenate([np.asarray(batch.tokens)[mask] for batch, mask in batches])
        np.testing.assert_array_equal(read[:, 0], first + np.arange(rows - 1))
        assert sum(int(batch.counted) for batch, _ in batches) == rows - (not count_all_rows)
        assert [bool(batch.fresh) for batch, _ in batches] == [True] + [False] * (len(batches) - 1)


def test_windows_of_members_of_a_population_are_the_same() -> None:
    one, other = (searching(Texts(text()), settings(seed=seed, data_seed=7)) for seed in (0, 1))
    for epoch in range(3):
        assert one.train is not None and other.train is not None
        first, second = (task.train.start(jax.random.key(9), epoch) for task in (one, other))
        np.testing.assert_array_equal(first.lengths, second.lengths)


def outputs(seed: int, steps: int = 5) -> TextOutputs:
    generator = np.random.default_rng(seed)
    logits, raw, dropped = (generator.normal(size=(steps, 2, size)) for size in (WORDS, 3, 3))
    return TextOutputs(*(jnp.asarray(value, jnp.float32) for value in (logits, raw, dropped)))


def window(length: int, steps: int = 5) -> Batch:
    words = jnp.asarray(np.random.default_rng(9).integers(0, WORDS, (2, steps, 2)), jnp.int32)
    scalars = (jnp.int32(length), jnp.int32(length), jnp.int32(steps), jnp.bool_(False))
    return Batch(words[0], words[1], *scalars)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_losses_by_hand(length: int) -> None:
    out, batch = outputs(0), window(length)
    logits = np.asarray(out.logits, np.float64)
    right = np.take_along_axis(logits, np.asarray(batch.targets)[..., None], -1)[..., 0]
    every = np.log(np.exp(logits).sum(-1)) - right
    expected = every[:length].mean()
    value, totals = loss(out, batch)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert means(totals)["loss"] == pytest.approx(expected, rel=1e-6)
    raw, dropped = np.asarray(out.raw, np.float64)[:length], np.asarray(out.dropped, np.float64)[:length]
    terms = 2.0 * np.square(dropped).mean() + 0.5 * (np.square(np.diff(raw, axis=0)).mean() if length > 1 else 0)
    value, totals = regularised_loss(2.0, 0.5)(out, batch)
    assert float(value) == pytest.approx(expected + terms, rel=1e-6)
    assert means(totals)["penalty"] == pytest.approx(terms, rel=1e-6)
    assert means(totals)["loss"] == pytest.approx(expected, rel=1e-6)
    mask = jnp.arange(5) < length
    found = with_derived(METRICS, means(measure(out, batch, mask)))
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)


def test_what_stands_after_the_end_of_a_window_has_no_gradient() -> None:
    batch = window(3)
    for one in (loss, regularised_loss(1.0, 1.0)):
        slope = jax.grad(lambda out, one=one: one(out, batch)[0])(outputs(0))
        for leaf in slope[: 1 if one is loss else 3]:
            assert np.abs(leaf[:3]).min() > 0 and not np.asarray(leaf[3:]).any()


def test_nothing_added_is_the_same_loss() -> None:
    task = bare_task(6)
    assert task.inner_loss is task.loss
    assert bare_task(6, 0.0, 1e-3).inner_loss is not task.loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 31}, "batch_size must be at most 30, not 31: the text that trains alpha has 90 tokens"),
        (
            {"sequence_length": 22},
            "at most 21 with batch_size 4: the text that trains alpha has 22 rows",
        ),
        ({"sequence_length": 100}, "sequence_length must be at most"),
    ],
)
def test_a_text_that_is_too_short(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        searching(Texts(text()), settings(**changes))


def test_a_perplexity_beyond_floats() -> None:
    assert with_derived(METRICS, {"loss": 1e4})["perplexity"] == math.exp(700)
