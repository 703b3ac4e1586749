"""Is every part of every step random by itself, and all of it by the seed?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.meaning.by_hand import FIRST, LABELS, RECORDER, SECOND, TRAIN
from tests.meaning.conftest import Run
from tests.meaning.spying import Spied

DROPPING = {"drop_path": 0.4, "curvature_every": 0}


def drop_path_keys(spied: Spied, network: str = "supernet") -> dict[tuple[int, ...], set[tuple[int, ...]]]:
    """The keys that every batch was seen with."""
    keys: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for call in spied.calls:
        if call.train and call.network == network:
            assert call.key is not None
            keys.setdefault(call.ids, set()).add(call.key)
    return keys


@pytest.mark.parametrize("hypergradient", ["first_order", "unrolled", "finite_difference"])
def test_every_batch_of_a_search_has_its_own_drop_path(run: Run, hypergradient: str) -> None:
    """One key a batch, also where a hypergradient looks at w's batch several times; all different, and from crops'."""
    spied = run("search", hypergradient=hypergradient, **DROPPING)
    keys = drop_path_keys(spied)
    assert [sum(set(ids) <= set(part) for ids in keys) for part in (FIRST, SECOND)] == [4, 4]
    assert all(len(of_batch) == 1 for of_batch in keys.values())
    different = set.union(*keys.values())
    assert len(different) == 8
    assert len(spied.augment_keys) == len(set(spied.augment_keys)) == 8
    assert not different & set(spied.augment_keys)


def test_drop_path_rises_from_epoch_to_epoch_and_is_off_in_measurements(run: Run) -> None:
    trained = run("search", hypergradient="first_order", **DROPPING)
    assert [call.drop_path for call in trained.calls if call.train] == [0.0] * 4 + [pytest.approx(0.4)] * 4
    measured = run("search", method=RECORDER, drop_path=0.4)
    assert {call.drop_path for call in measured.calls if call.train} <= {0.0, None}  # the Hessian


def test_every_batch_of_an_evaluation_has_its_own_drop_path(run: Run) -> None:
    spied = run("evaluate", drop_path=0.4)
    keys = drop_path_keys(spied, "discrete")
    assert len(keys) == 10 == len(set.union(*keys.values()))
    assert len(spied.augment_keys) == len(set(spied.augment_keys)) == 10
    assert not set.union(*keys.values()) & set(spied.augment_keys)
    rates = [call.drop_path for call in spied.calls if call.train]
    assert rates == [0.0] * 5 + [pytest.approx(0.2)] * 5  # e / E of it in epoch e of E


@pytest.mark.parametrize("command", ["search", "evaluate"])
def test_all_randomness_follows_from_the_seed(run: Run, command: str) -> None:
    changes = DROPPING if command == "search" else {"drop_path": 0.4}
    one, again, other = (run(command, **changes, **more) for more in ({}, {"checkpoints_to_keep": 2}, {"seed": 1}))
    assert one.calls == again.calls and one.augment_keys == again.augment_keys
    train = [[call for call in spied.calls if call.train] for spied in (one, other)]
    assert not {call.key for call in train[0]} & {call.key for call in train[1]}
    assert not {call.ids for call in train[0]} & {call.ids for call in train[1]}
    assert not set(one.augment_keys) & set(other.augment_keys)


def test_equal_images_are_cropped_differently(run: Run, tmp_path: Path) -> None:
    """In one batch, in the two batches of a step, in the next step, and with another seed."""
    picture = np.random.default_rng(0).permutation(64).reshape(8, 8, 1).astype(np.uint8)
    labels = np.array([LABELS[i] for i in range(TRAIN)])
    np.savez(tmp_path / "equal.npz", x_train=np.stack([picture] * TRAIN), y_train=labels)
    seen: list[bytes] = []
    for seed in (0, 1):
        spied = run(
            "search", dataset=tmp_path / "equal.npz", method=RECORDER, crop_padding=3, flip=True, seed=seed, epochs=2
        )
        for batch in (batch for draw in spied.drawn for batch in (draw.train, draw.valid)):
            assert len({image.tobytes() for image in batch}) > 5
            seen.append(batch.tobytes())
    assert len(seen) == len(set(seen)) == 16
