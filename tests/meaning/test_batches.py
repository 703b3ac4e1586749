"""Which images train w, which train alpha, and on which is anything measured?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from jaxdarts.bilevel import HYPERGRADIENTS
from jaxdarts.methods import METHODS
from jaxdarts.reports.table_record import read_table
from tests.meaning.by_hand import FIRST, LABELS, RECORDER, SECOND, TESTED, TRAIN, first_pixel, ids_of
from tests.meaning.conftest import Run
from tests.meaning.spying import Spied, weights_of

ALL = range(TRAIN)


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [identity for batch in batches for identity in batch]


def assert_epochs(batches: list[tuple[int, ...]], images: range | list[int], steps: int) -> None:
    """Two epochs of `steps` batches: no image twice in an epoch, none from elsewhere, in another order each time."""
    assert len(batches) == 2 * steps
    epochs = [flat(batches[:steps]), flat(batches[steps:])]
    for seen in epochs:
        assert set(seen) <= set(images) and len(set(seen)) == len(seen)
        assert len(images) - len(seen) < len(batches[0])  # all of them, up to what fills no batch
        assert seen != sorted(seen)
    assert epochs[0] != epochs[1]


def assert_whole(batches: list[tuple[int, ...]], images: range | list[int], times: int) -> None:
    """Every image once in each of `times` passes; only a pass's last batch repeats one, to be as long as the others."""
    size = len(batches[0])
    a_pass = -(-len(images) // size)
    assert len(batches) == times * a_pass and all(len(batch) == size for batch in batches)
    for start in range(0, len(batches), a_pass):
        seen = flat(batches[start : start + a_pass])
        assert Counter(seen[: len(images)]) == Counter(images)
        assert set(seen) == set(images)


def test_two_parts_train_w_and_alpha(run: Run) -> None:
    spied = run("search", method=RECORDER)
    assert_epochs([ids_of(draw.train) for draw in spied.drawn], FIRST, 2)
    for draw in spied.drawn:
        assert len(set(ids_of(draw.valid))) == 10 and set(ids_of(draw.valid)) <= set(SECOND)
        assert draw.train_labels.tolist() == [LABELS[i] for i in ids_of(draw.train)]
        assert draw.valid_labels.tolist() == [LABELS[i] for i in ids_of(draw.valid)]
    assert len({ids_of(draw.valid) for draw in spied.drawn}) == 4


def test_an_epoch_is_every_image_of_the_first_part(run: Run) -> None:
    spied = run("search", method=RECORDER, batch_size=5)
    epochs = [flat(ids_of(draw.train) for draw in spied.drawn[start : start + 5]) for start in (0, 5)]
    assert [sorted(seen) for seen in epochs] == [list(FIRST)] * 2
    assert set(flat(ids_of(draw.valid) for draw in spied.drawn)) <= set(SECOND)


def test_validation_is_the_second_part_once(run: Run) -> None:
    spied = run("search", method=RECORDER)
    # At the end of both epochs, and then with alpha's weights and with those of the genotype.
    assert_whole(spied.seen(train=False), SECOND, 4)


def test_curvature_is_of_the_second_part(run: Run) -> None:
    """A method that never calls the network leaves the Hessian's the only passes in training mode."""
    spied = run("search", method=RECORDER, curvature_batches=2, spectrum_size=3)
    batches = Counter(spied.seen(train=True))
    assert len(batches) == 2 and len(set(batches.values())) == 1  # the same two batches for every product and epoch
    assert len(set(flat(batches))) == 20 and set(flat(batches)) <= set(SECOND)


def test_portion_and_limit(run: Run) -> None:
    spied = run("search", method=RECORDER, limit=40, train_portion=0.25, batch_size=4)
    assert_epochs([ids_of(draw.train) for draw in spied.drawn], range(10), 2)
    assert set(flat(ids_of(draw.valid) for draw in spied.drawn)) <= set(range(10, 40))
    assert_whole(spied.seen(train=False), range(10, 40), 4)


def test_a_shuffled_split_is_disjoint(run: Run) -> None:
    spied = run("search", method=RECORDER, split="shuffled", batch_size=5)
    trained = set(flat(ids_of(draw.train) for draw in spied.drawn))
    measured = set(flat(spied.seen(train=False)))
    assert trained | measured == set(ALL) and not trained & measured and trained != set(FIRST)
    assert set(flat(ids_of(draw.valid) for draw in spied.drawn)) <= measured


def moved_rows(spied: Spied, start: Spied) -> set[int]:
    """Images that have changed w: each alone owns a row of it."""
    change = (weights_of(spied)[0] != weights_of(start)[0]).any(axis=1)
    return {i for i in [*ALL, *TESTED] if change[first_pixel(i)]}


LEARNERS = sorted(set(METHODS) - {"random"})
CHOICES = [(method, "first_order") for method in LEARNERS] + [("darts", name) for name in sorted(HYPERGRADIENTS)]


@pytest.mark.parametrize(("method", "hypergradient"), sorted(set(CHOICES)))
def test_every_method_keeps_the_parts_apart(run: Run, method: str, hypergradient: str) -> None:
    """Whatever it makes of its batches: w moves by images of the first part only, alpha's gradient sees the second."""
    population = {"strengths": "0,1e-300", "retrain_epochs": 0} if method.startswith("r-darts") else {}
    ruled = {"curvature_every": 1, "epochs": 7, "es_threshold": 1e9} if method in ("darts-es", "darts-ada") else {}
    whole = {"partial_channels": 1, "alpha_warm_up": 0.0} if method == "pc-darts" else {}
    changes = {"curvature_every": 0, "epochs": 1, "l2": 1e-300, **population, **ruled, **whole}  # L2 would move rows
    if METHODS[method].learns_alpha:
        changes["hypergradient"] = hypergradient
        changes["single_level"] = False  # one gradient would be of both parts
    if method == "idarts":
        changes["inner_steps"] = 1
    if method == "dots":
        changes |= {"epochs": 2, "topology_single_level": False}
    spied = run("search", method=method, batch_size=5, **changes)
    seen = set(spied.seen(train=True))
    for batch in seen:
        assert set(batch) <= set(FIRST) or set(batch) <= set(SECOND)
    on_w = [batch for batch in seen if set(batch) <= set(FIRST)]
    on_alpha = [batch for batch in seen if set(batch) <= set(SECOND)]
    assert set(flat(on_w)) == set(FIRST)
    assert len(on_alpha) >= 5 if method != "random-ws" else not on_alpha
    # An attack looks at w's images as they are measured.
    measured = set(FIRST) if method == "sdarts-adv" else set()
    assert set(flat(spied.seen(train=False))) == set(SECOND) | measured
    if not population:  # whose members are side by side in the state
        start = run("search", method=RECORDER, epochs=1, curvature_every=0, batch_size=5)
        assert moved_rows(spied, start) == set(FIRST)


def test_architectures_are_scored_on_the_second_part(run: Run) -> None:
    spied = run("search", method="random-ws", selection_samples=5, selection_batches=2, selection_finalists=2)
    batches = spied.seen(train=False)
    assert set(flat(batches)) == set(SECOND)
    # Two epochs, and two finalists on all: every pass has its padded batch, of which scores on two have none.
    assert sum(len(set(batch)) < 10 for batch in batches) == 4


def test_evaluation_trains_on_all_and_tests_on_the_test_images(run: Run) -> None:
    spied = run("evaluate")
    assert_epochs(spied.seen(network="discrete", train=True), ALL, 5)
    assert_whole(spied.seen(network="discrete", train=False), TESTED, 2)


def test_evaluation_holds_out_what_it_does_not_train_on(run: Run) -> None:
    spied = run("evaluate", valid_portion=0.3)
    assert_epochs(spied.seen(network="discrete", train=True), range(35), 3)
    measured = spied.seen(network="discrete", train=False)
    assert_whole([batch for batch in measured if min(batch) < TRAIN], range(35, TRAIN), 2)
    tested = [batch for batch in measured if min(batch) >= TRAIN]
    assert tested and set(flat(tested)) == set(TESTED)


def test_a_table_is_of_evaluations(run: Run) -> None:
    spied = run("tabulate", valid_portion=0.3)
    train, measured = (spied.seen(network="discrete", train=mode) for mode in (True, False))
    for number in range(2):
        assert_epochs(train[6 * number : 6 * number + 6], range(35), 3)
    assert_whole([batch for batch in measured if min(batch) < TRAIN], range(35, TRAIN), 2)
    assert_whole([batch for batch in measured if min(batch) >= TRAIN], TESTED, 2)
    # The linear network is the same for every architecture.
    alone = run("evaluate", valid_portion=0.3).result
    for entry in read_table(spied.folder).entries:
        assert entry.test_error == alone.test_error
        assert entry.valid_error == 1 - alone.metrics[-1]["valid_accuracy"]


def test_retraining_a_population_looks_at_no_test_image(run: Run) -> None:
    spied = run("search", method="r-darts-l2", strengths="0,0.1", retrain_epochs=2, batch_size=10, curvature_every=0)
    found = json.loads((spied.folder / "diagnostics.json").read_text())["candidates"]
    retrained = len({json.dumps(candidate["genotype"]) for candidate in found})
    train, measured = (spied.seen(network="discrete", train=mode) for mode in (True, False))
    assert len(train) == 4 * retrained
    for start in range(0, len(train), 4):
        assert_epochs(train[start : start + 4], FIRST, 2)
    assert_whole(measured, SECOND, len(train) // 2)
    assert not np.isin(flat(spied.seen(train=True) + spied.seen(train=False)), TESTED).any()
