"""Is every impossible choice refused before anything starts?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.methods import StoppingRule
from jaxdarts.runs.search.config import PRESETS, SearchConfig, stopping_rule
from jaxdarts.runs.search.validity import check_config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_possible_and_know_their_name(preset: str) -> None:
    check_config(PRESETS[preset])
    assert PRESETS[preset].preset == preset


def test_paper_is_the_published_search() -> None:
    expected = {
        "dataset": "cifar10",
        "hypergradient": "unrolled",
        "unrolled_steps": 1,
        "epochs": 50,
        "batch_size": 64,
        "channels": 16,
        "cells": 8,
        "image_size": None,
        "limit": None,
        "train_portion": 0.5,
        "split": "file",
        "learning_rate": 0.025,
        "learning_rate_min": 0.001,
        "momentum": 0.9,
        "l2": 3e-4,
        "clip_norm": 5.0,
        "clip_virtual_step": False,
        "alpha_learning_rate": 3e-4,
        "alpha_b1": 0.5,
        "alpha_b2": 0.999,
        "alpha_l2": 1e-3,
        "alpha_init_scale": 1e-3,
        "drop_path": 0.0,
        "cutout": False,
        "cutout_length": 16,
        "flip": True,
        "crop_padding": 4,
    }
    assert expected.items() <= dataclasses.asdict(PRESETS["paper"]).items()


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("channels", 0, "channels must be at least 1; got 0"),
    ("epochs", 0, "epochs must be at least 1; got 0"),
    ("batch_size", 0, "batch_size must be at least 1; got 0"),
    ("batch_size", 2.5, "batch_size must be a whole number; got 2.5"),
    ("epochs", True, "epochs must be a whole number; got True"),
    ("cells", 2, "cells must be at least 3; got 2"),
    ("image_size", 7, "image_size must be at least 8; got 7"),
    ("image_size", "32", "image_size must be a whole number or None; got '32'"),
    ("learning_rate", -0.1, "learning_rate must be greater than 0; got -0.1"),
    ("learning_rate", float("nan"), "learning_rate must be a finite number; got nan"),
    ("learning_rate", float("inf"), "learning_rate must be a finite number; got inf"),
    ("learning_rate_min", 0.5, "learning_rate_min must be at most learning_rate"),
    ("momentum", 1.0, "momentum must be at least 0 and less than 1; got 1.0"),
    ("train_portion", 1.0, "train_portion must be greater than 0 and less than 1; got 1.0"),
    ("train_portion", 0, "train_portion must be greater than 0 and less than 1; got 0"),
    (
        "method",
        "darts-es ",
        "unknown method 'darts-es '; choose from beta-darts, darts, darts-ada, darts-es, r-darts-dp",
    ),
    ("es_rule", "papers", "unknown es_rule 'papers'; choose from code, paper, quick"),
    ("es_window", 4, "es_window must be odd, since the average is centred; got 4"),
    ("es_window", 0, "es_window must be at least 1; got 0"),
    ("es_threshold", 0.0, "es_threshold must be greater than 0; got 0.0"),
    ("ada_factor", 1.0, "ada_factor must be greater than 1; got 1.0"),
    ("selection_samples", 0, "selection_samples must be at least 1; got 0"),
    ("l2", -1e-4, "l2 must be at least 0; got -0.0001"),
    ("drop_path", 1.0, "drop_path must be"),
    ("unrolled_steps", 0, "unrolled_steps must be at least 1; got 0"),
    ("finite_difference_radius", 0.0, "finite_difference_radius must be greater than 0"),
    ("limit", 0, "limit must be at least 2; got 0"),
    ("seed", -1, "seed must be between 0 and"),
    ("flip", "yes", "flip must be true or false; got 'yes'"),
    ("data_dir", 3, "data_dir must be text or None; got 3"),
    ("dataset", "", "dataset must be a name"),
    ("space", "s9", "unknown space 's9'; choose from darts, "),
    ("space", "none.toml", "space: cannot read 'none.toml'"),
    ("preset", "papers", "unknown preset 'papers'; choose from paper, quick .did you mean 'paper'"),
    ("method", "drats", "unknown method 'drats'; choose from .*darts"),
    ("hypergradient", "second_order", "unknown hypergradient 'second_order'; choose from conjugate_gradient, "),
    ("split", "random", "unknown split 'random'; choose from file, shuffled"),
    ("precision", "fp32", "unknown precision 'fp32'"),
    ("remat", "yes", "unknown remat 'yes'; choose from auto, off, on or a number of cells"),
    ("remat", "4", r"remat must be at most cells \(3\); got 4"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_bad_values_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        check_config(dataclasses.replace(SearchConfig(), **{field: value}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "darts-ada", "ada_max_l2": 1e-4}, r"ada_max_l2 must be at least l2 \(0.0003\).*; got 0.0001"),
        ({"method": "darts-ada", "l2": 0.0}, "l2 must be greater than 0 for darts-ada"),
        ({"method": "darts-es", "curvature_every": 0}, "curvature_every must be at least 1 for darts-es"),
        (
            {"method": "darts-es", "es_rule": "paper"},
            r"es_window 5, es_lag 5 and es_first_epoch 10 \(es_rule 'paper', curvature_every 1\) give a first decision "
            r"after 18 epochs, too late for epochs 10; choose smaller ones or epochs of at least 19",
        ),
        ({"method": "darts-ada", "es_window": 15}, "es_window 15, .* too late for epochs 10"),
        ({"method": "random-ws", "selection_samples": 3}, "selection_finalists must be at most selection_samples"),
    ],
)
def test_what_a_method_needs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        check_config(dataclasses.replace(SearchConfig(), **changes))
    check_config(dataclasses.replace(SearchConfig(), **{**changes, "method": "darts"}))


@pytest.mark.parametrize("preset", PRESETS)
def test_rules_of_the_presets_can_fire(preset: str) -> None:
    for method in ("darts-es", "darts-ada"):
        config = dataclasses.replace(PRESETS[preset], method=method)
        check_config(config)
        assert stopping_rule(config).first_decision < config.epochs - 2
    changed = dataclasses.replace(config, curvature_every=2, es_rule="code", es_threshold=2.0, es_first_epoch=0)
    assert stopping_rule(changed) == StoppingRule(5, 4, 2.0, 0, frequency=2)


def test_every_number_has_a_range() -> None:
    numbers = [field.name for field in dataclasses.fields(SearchConfig) if field.type in ("int", "float", "int | None")]
    bad: Any = -1
    for name in numbers:
        with pytest.raises(InputError, match=f"^{name} must be"):
            check_config(dataclasses.replace(SearchConfig(), **{name: bad}))


def test_whole_numbers_will_do_for_real_ones() -> None:
    check_config(dataclasses.replace(SearchConfig(), learning_rate=1, clip_norm=5))
