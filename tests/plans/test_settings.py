"""Is every impossible choice refused before anything starts?"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxdarts.checks import field_names
from jaxdarts.errors import InputError
from jaxdarts.methods import METHODS, StoppingRule
from jaxdarts.methods.parts import stopping_rule
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.runs.command_line import parse_evaluate, parse_search, parse_tabulate
from jaxdarts.settings import Settings, field_types, options

CONFIGS = Path(__file__).parents[2] / "configs"
COMMANDS: list[tuple[type[Settings], dict[str, Any]]] = [
    (SearchConfig, {}),
    (EvaluateConfig, {"genotype": "DARTS_V2"}),
    (TabulateConfig, {}),
]


@pytest.mark.parametrize(("kind", "values"), COMMANDS)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_presets_are_possible_and_know_their_name(kind: type[Settings], values: dict[str, Any], preset: str) -> None:
    config = kind(preset=preset, **values)
    config.check()
    assert config.preset == preset and kind(**config.flat()) == config
    assert pickle.loads(pickle.dumps(config)) == config


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
    assert expected.items() <= SearchConfig(preset="paper").flat().items()


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
    assert expected.items() <= EvaluateConfig(preset="paper", genotype="DARTS_V2").flat().items()


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
        "unknown method 'darts-es '; choose from beta-darts, darts, darts-ada, darts-es, darts-minus, ",
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


BAD_IN_EVALUATIONS = [
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
    method = next(name for name in METHODS if field in SearchConfig.names({"method": name}))
    with pytest.raises(InputError, match=f"^{message}") as caught:
        SearchConfig(**{"method": method, field: value}).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "value", "message"), BAD_IN_EVALUATIONS)
def test_bad_values_of_an_evaluation_are_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        EvaluateConfig(**{"genotype": "DARTS_V2", field: value}).check()
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
        ({"method": "beta-darts", "early_stopping": "stop", "curvature_every": 0}, "curvature_every must be at least"),
        ({"population": 2, "devices": 2}, "devices must be 1 for a population"),
        ({"population": 2, "seed": 2**32 - 1}, "seed must be at most 4294967294 for a population of 2"),
        ({"method": "r-darts-l2", "population": 3}, "population must be 4, one for each of strengths; got 3"),
        ({"method": "darts-ada", "population": 2}, "population must be 1 where a search may go back .*sweep"),
    ],
)
def test_what_a_method_needs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        SearchConfig(**changes).check()


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_rules_of_the_presets_can_fire(preset: str) -> None:
    for method in ("darts-es", "darts-ada"):
        config = SearchConfig(preset=preset, method=method)
        config.check()
        assert stopping_rule(config).first_decision < config.epochs - 2
    changed = config.replace(epochs=50, curvature_every=2, es_rule="code", es_threshold=2.0, es_first_epoch=0)
    assert stopping_rule(changed) == StoppingRule(5, 4, 2.0, 0, frequency=2)


@pytest.mark.parametrize(("kind", "values"), COMMANDS)
def test_every_number_has_a_range(kind: type[Settings], values: dict[str, Any]) -> None:
    for name, annotation in every_type(kind).items():
        if {int, float} & set(options(annotation)):
            owner = {"method": owners(name)[0]} if kind is SearchConfig else {}
            with pytest.raises(InputError, match=f"^{name} must be"):
                kind(**{**values, **owner, name: -1})


def test_numbers_of_any_kind_will_do() -> None:
    config = SearchConfig(learning_rate=1, clip_norm=np.float32(5), epochs=np.int64(3))
    assert config.flat().items() >= {"learning_rate": 1.0, "clip_norm": 5.0, "epochs": 3}.items()
    assert {type(config.learning_rate), type(config.clip_norm), type(config.epochs)} == {float, int}


def every_type(kind: type[Settings]) -> dict[str, Any]:
    """The types of all settings, whatever the method."""
    choices = [{"method": name} for name in METHODS] if kind is SearchConfig else [{}]
    return {n: a for values in choices for group in kind.group_types(values) for n, a in field_types(group).items()}


def owners(name: str) -> list[str]:
    """The methods that have a setting."""
    return [method for method in METHODS if name in SearchConfig.names({"method": method})]


OTHER_VALUES: dict[str, Any] = {
    "space": "s2",
    "method": None,
    "preset": "paper",
    "remat": "off",
    "channels": 16,
    "partial_channels": 2,
    "learning_rate_min": 0.002,
    "l2": 0.002,
    "ada_factor": 5.0,
    "hypergradient": "first_order",
    "beta_schedule": "constant-15",
    "beta_variant": "global",
    "temperature_end": 2.0,
    "temperature_schedule": "linear",
    "temperature_form": "update",
    "early_stopping": "stop",
    "es_rule": "code",
    "es_window": 5,
    "es_lag": 3,
    "split": "shuffled",
    "dataset": "digits",
    "precision": "float64",
    "step_compilation": "parts",
    "population_mapping": "vmap",
    "strengths": "0,0.1",
    "selection_samples": 2000,
    "gdas_gradient": "dense",
    "snas_resource": "multiply_adds",
    "auxiliary_skip_schedule": "cosine",
    "zero_one_loss": "l1",
    "projection_criterion": "loss",
    "stage_cells": "3,3,3",
    "stage_operations": "8,5,3",
    "stage_dropout": "0,0,0.5",
    "fair_derivation": "darts",
}
NEEDS: dict[str, dict[str, Any]] = {
    "unrolled_steps": {"hypergradient": "unrolled"},
    "clip_virtual_step": {"hypergradient": "unrolled"},
    "finite_difference_radius": {"hypergradient": "finite_difference"},
    "neumann_terms": {"hypergradient": "neumann"},
    "cg_max_steps": {"hypergradient": "conjugate_gradient"},
    "cg_damping": {"hypergradient": "conjugate_gradient"},
    "beta_variant": {"beta_weight": 1.0},
    "temperature_schedule": {"temperature_end": 2.0},
    "temperature_form": {"temperature_end": 2.0},
    "single_level": {"hypergradient": "first_order"},
    "snas_resource": {"snas_resource_weight": 1.0},
    "cutout_length": {"cutout": True},
    **dict.fromkeys(("es_rule", "es_window", "es_lag", "es_threshold", "es_first_epoch"), {"early_stopping": "stop"}),
    **dict.fromkeys(("ada_factor", "ada_max_l2"), {"early_stopping": "go-back"}),
    **dict.fromkeys(("retrain_epochs", "retrain_channels", "retrain_cells", "population_mapping"), {"population": 4}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", every_type(SearchConfig))
def test_a_setting_is_for_the_methods_that_have_it(name: str, method: str) -> None:
    annotation, default = every_type(SearchConfig)[name], SearchConfig(method=owners(name)[0]).flat()[name]
    kinds = options(annotation)
    value = OTHER_VALUES.get(name)
    if value is None and name != "method":
        value = not default if bool in kinds else (default or 0) + 1 if int in kinds else 0.5 if float in kinds else "x"
    if name == "method":
        value = method
    if method in owners(name):
        needed = NEEDS.get(name, {})
        if "hypergradient" in needed and name != "single_level" and method in ("snas", "dsnas"):
            needed = {**needed, "single_level": False}
        if name == "single_level" and not METHODS[method].takes_single_level:
            with pytest.raises(InputError, match=f"single_level cannot be used by method '{method}'"):
                SearchConfig(method=method, single_level=True, hypergradient="first_order")
            return
        if name in METHODS[method].instead:
            with pytest.raises(InputError, match=f"{name} .* is only for other methods; {method} has "):
                SearchConfig(method=method, **{name: value})
            return
        if "early_stopping" in needed and method in ("darts-es", "darts-ada"):
            needed = {"early_stopping": "go-back" if name.startswith("ada") else "stop"}
        assert getattr(SearchConfig(**{"epochs": 60, "method": method, **needed, name: value}), name) == value
        return
    with pytest.raises(InputError, match=f"^{name} .*{method!r}") as caught:
        SearchConfig(**{"method": method, name: value})
    assert "\n" not in str(caught.value) and any(owner in str(caught.value) for owner in owners(name))


def test_who_has_a_setting_is_named() -> None:
    for values, message in (
        ({"selection_samples": 3}, "selection_samples 3 is only for method random-ws; got method 'darts'"),
        ({"strengths": "0,1", "method": "random"}, "strengths '0,1' is only for method r-darts-l2 and r-darts-dp; got"),
        (
            {"alpha_l2": 1.0, "method": "random"},
            "alpha_l2 1.0 cannot be used by method 'random', which learns no alpha",
        ),
        ({"epoch": 3}, r"unknown setting 'epoch' \(did you mean 'epochs'\?\); python -m jaxdarts.search --help lists"),
    ):
        with pytest.raises(InputError, match=f"^{message}"):
            SearchConfig(**values)


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_refused_where_nothing_was_given(preset: str, method: str) -> None:
    config = SearchConfig(preset=preset, method=method)
    assert SearchConfig.unused(config.flat()) == {}
    assert SearchConfig.from_recorded({**config.flat(), "device": "cpu"}) == config


@pytest.mark.parametrize("kind", [SearchConfig, EvaluateConfig, TabulateConfig])
def test_every_setting_is_in_one_group(kind: type[Settings]) -> None:
    for method in METHODS if kind is SearchConfig else ("darts",):
        groups = kind.group_types({"method": method})
        names = [name for group in groups for name in field_names(group)]
        assert len(set(names)) == len(names)
        for group in groups:
            used = [name for use in getattr(group, "uses", ()) for name in use.fields]
            assert len(set(used)) == len(used) and set(used) <= set(field_names(group))


@pytest.mark.parametrize(
    ("given", "by"),
    [
        ({"es_window": 7}, "methods darts-es and darts-ada"),
        ({"es_window": 7, "method": "darts-es", "epochs": 30}, None),
        ({"es_window": 7, "method": "beta-darts", "early_stopping": "stop", "epochs": 30}, None),
        ({"ada_factor": 5.0, "method": "darts-es"}, "method darts-ada"),
        ({"ada_factor": 5.0, "method": "darts-ada"}, None),
        ({"unrolled_steps": 2, "hypergradient": "first_order"}, "hypergradient unrolled"),
        ({"unrolled_steps": 2}, None),
        ({"neumann_terms": 3}, "hypergradient neumann"),
        ({"cg_damping": 0.1, "hypergradient": "conjugate_gradient"}, None),
        ({"cutout_length": 4}, "cutout"),
        ({"cutout_length": 4, "cutout": True}, None),
        ({"cutout_length": 4, "method": "r-darts-dp"}, None),
        ({"retrain_epochs": 3}, "several searches in one run"),
        ({"retrain_epochs": 3, "population": 1}, "several searches in one run"),
        ({"retrain_epochs": 3, "population": 2}, None),
        ({"retrain_epochs": 3, "method": "r-darts-l2"}, None),
        ({"curvature_products": 5, "curvature_every": 0}, "curvature_every of at least 1"),
        ({"curvature_batches": 2, "curvature_every": 0}, None),  # the spectrum at the end
        ({"curvature_batches": 2, "curvature_every": 0, "spectrum_size": 0}, "curvature_every or spectrum_size"),
    ],
)
def test_a_setting_without_effect_is_refused(given: dict[str, Any], by: str | None) -> None:
    if by is None:
        SearchConfig(**given).check()
        return
    name, value = next(iter(given.items()))
    with pytest.raises(InputError, match=f"^{name} {value!r} is only for {by}"):
        SearchConfig(**given)


def test_members_of_a_population_have_what_is_of_use_to_them() -> None:
    from jaxdarts.plans.members import member_settings

    config = SearchConfig(method="r-darts-dp", strengths="0,0.5", cutout_length=4, retrain_epochs=3, seed=5)
    first, second = member_settings(config)
    assert (first.method, first.seed, first.drop_path, first.cutout, first.cutout_length) == ("darts", 5, 0, False, 16)
    assert (second.seed, second.drop_path, second.cutout, second.cutout_length) == (6, 0.5, True, 4)
    assert {first.data_seed, second.data_seed} == {5} and {first.population, second.population} == {None}


@pytest.mark.parametrize(
    "path", sorted([*CONFIGS.glob("*.toml"), *CONFIGS.glob("[et]*/*.toml")]), ids=lambda path: path.name
)
def test_shipped_configurations_are_possible(path: Path) -> None:
    parse = {"evaluate": parse_evaluate, "tables": parse_tabulate}.get(path.parent.name, parse_search)
    flags = ["--genotype", "DARTS_V2"] if parse is parse_evaluate else []
    parse(["--config", str(path), *flags])[0].check()
    assert f"--config {path.relative_to(CONFIGS.parent)}" in path.read_text()
