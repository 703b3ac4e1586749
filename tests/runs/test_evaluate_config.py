"""Is every impossible choice about an evaluation refused, and does `paper` mean the published settings?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs.command_line import ProcessOptions, parse_evaluate
from jaxdarts.runs.evaluate.config import EVALUATE_PRESETS, EvaluateConfig, check_evaluate_config

CONFIGS = Path(__file__).parents[2] / "configs" / "evaluate"
GOOD = EvaluateConfig(genotype="DARTS_V2")


@pytest.mark.parametrize("preset", EVALUATE_PRESETS)
def test_presets_are_possible_and_know_their_name(preset: str) -> None:
    check_evaluate_config(dataclasses.replace(EVALUATE_PRESETS[preset], genotype="DARTS_V2"))
    assert EVALUATE_PRESETS[preset].preset == preset


def test_paper_is_the_published_evaluation() -> None:
    expected = {
        "dataset": "cifar10",
        "epochs": 600,
        "batch_size": 96,
        "channels": 36,
        "cells": 20,
        "image_size": None,
        "limit": None,
        "valid_portion": 0.0,
        "learning_rate": 0.025,
        "learning_rate_min": 0.0,
        "momentum": 0.9,
        "l2": 3e-4,
        "clip_norm": 5.0,
        "drop_path": 0.2,
        "auxiliary_weight": 0.4,
        "cutout": True,
        "cutout_length": 16,
        "flip": True,
        "crop_padding": 4,
    }
    assert expected.items() <= dataclasses.asdict(EVALUATE_PRESETS["paper"]).items()


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("genotype", "", "genotype must be a name such as DARTS_V2, a file or the folder of a search; got ''"),
    ("channels", 0, "channels must be at least 1; got 0"),
    ("cells", 0, "cells must be at least 1; got 0"),
    ("valid_portion", 1.0, "valid_portion must be at least 0 and less than 1; got 1.0"),
    ("drop_path", 1.0, "drop_path must be at least 0 and less than 1; got 1.0"),
    ("learning_rate", float("nan"), "learning_rate must be a finite number; got nan"),
    ("learning_rate_min", 0.5, "learning_rate_min must be at most learning_rate"),
    ("image_size", 7, "image_size must be at least 8; got 7"),
    ("flip", "yes", "flip must be true or false; got 'yes'"),
    ("space", 3, "space must be text or None; got 3"),
    ("preset", "papers", "unknown preset 'papers'; choose from paper, quick"),
    ("split", "random", "unknown split 'random'; choose from file, shuffled"),
    ("precision", "fp32", "unknown precision 'fp32'"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_bad_values_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        check_evaluate_config(dataclasses.replace(GOOD, **{field: value}))
    assert "\n" not in str(caught.value)


def test_every_number_has_a_range() -> None:
    fields = dataclasses.fields(EvaluateConfig)
    bad: Any = -1
    for name in [field.name for field in fields if field.type in ("int", "float", "int | None")]:
        with pytest.raises(InputError, match=f"^{name} must be"):
            check_evaluate_config(dataclasses.replace(GOOD, **{name: bad}))


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('preset = "paper"\ngenotype = "DARTS_V1"\nepochs = 5\ncutout = false\n')
    config, options = parse_evaluate(["--epochs=6", "--config", str(file), "--no-flip"])
    assert config == dataclasses.replace(
        EVALUATE_PRESETS["paper"], genotype="DARTS_V1", epochs=6, cutout=False, flip=False
    )
    assert options == ProcessOptions(config=str(file))
    with pytest.raises(InputError, match="unknown flag '--alpha-l2'"):
        parse_evaluate(["--alpha-l2", "0"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_shipped_configurations_are_possible(path: Path) -> None:
    config, _ = parse_evaluate(["--config", str(path), "--genotype", "DARTS_V2"])
    check_evaluate_config(config)
    assert f"--config configs/evaluate/{path.name}" in path.read_text()
