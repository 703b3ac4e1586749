"""What does a GPU compile? Every step is exported for `cuda` as a run there would make it; nothing is computed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import export

import jaxdarts as jd
from jaxdarts.bilevel import HYPERGRADIENTS
from jaxdarts.networks import Weights
from jaxdarts.networks.kernels import described
from jaxdarts.networks.recurrent import TextSupernet
from jaxdarts.plans.base import Built
from jaxdarts.plans.evaluate import build_evaluation
from jaxdarts.plans.members import member_settings
from jaxdarts.plans.robust import robust_plan
from jaxdarts.plans.search import build_search
from jaxdarts.runs.steps import cursors, make_steps
from jaxdarts.spaces import load_genotype
from tests.runs.text import tiny_text_search
from tests.runs.tiny import tiny_config, tiny_evaluation

SPACE = 'num_nodes = 1\noperations = ["none", "sep_conv_3x3", "max_pool_3x3"]\n'
GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('max_pool_3x3', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('sep_conv_3x3', 1)], reduce_concat=[2])"
)
METHODS = ("gdas", "pc-darts", "sdarts-adv", "idarts", "random-ws")
DEPTHWISE = re.compile(r"stablehlo\.convolution.* feature_group_count = (?!1\b)")
# Of the CPU's convolutions, tables of positions; the smallest here has 9 * 64 * 16 entries.
CONSTANT = re.compile(r"stablehlo\.constant dense<.* : tensor<([\dx]+)x\w+>")
# Batch statistics are products with a vector.
STATISTICS = re.compile(r"stablehlo\.dot_general.* : \(tensor<\d+x\d+x\d+xf32>, tensor<\d+xf32>\) -> .*")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen by the kind of device is chosen as on a GPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a space and a genotype of one separable convolution and one pool a state."""
    (tmp_path / "tiny.toml").write_text(SPACE)
    (tmp_path / "tiny.txt").write_text(GENOTYPE)
    return tmp_path


def exported(step: Callable[..., Any], *arguments: Any) -> str:
    """A jitted function's program for a GPU as MLIR text, with its notes of where each operation comes from."""
    return export.export(step, platforms=["cuda"])(*arguments).mlir_module()


def step_of(built: Built) -> str:
    """The program of a stage's step, with the drawing of its batches."""
    steps = make_steps(built, jax.devices())
    state = jax.eval_shape(lambda: steps.join([one.start() for one in built.experiments]))
    drawn = jax.eval_shape(lambda: [cursors(one, 0, None) for one in built.experiments])
    if len(drawn) == 1:
        return exported(steps.step, state, steps.data, drawn[0])
    # Joining what members draw from is outside of their program.
    return exported(jax.jit(steps.step), state, steps.data, drawn)


def check_forms(program: str) -> None:
    """Convolutions are the library's, and nothing is as on a CPU."""
    assert DEPTHWISE.search(program)
    assert "custom_call @jaxdarts" not in program
    assert all(math.prod(map(int, shape.split("x"))) < 1000 for shape in CONSTANT.findall(program))


def check_statistics(program: str) -> None:
    """Of full precision, whatever products have by default."""
    found = [match[0] for match in STATISTICS.finditer(program)]
    assert found and all("precision = [HIGHEST, HIGHEST]" in line for line in found)


@pytest.mark.parametrize("name", HYPERGRADIENTS)
def test_search_steps(name: str, gpu: None, folder: Path) -> None:
    config = tiny_config(folder, cells=1, hypergradient=name)
    program = step_of(build_search([config], config))
    check_forms(program)
    check_statistics(program)


@pytest.mark.parametrize("name", METHODS)
def test_steps_of_methods(name: str, gpu: None, folder: Path) -> None:
    config = tiny_config(folder, cells=1, channels=4, method=name)
    program = step_of(build_search([config], config))
    check_forms(program)
    check_statistics(program)


def test_steps_side_by_side(gpu: None, folder: Path) -> None:
    config = tiny_config(folder, cells=1, population=2)
    stage = robust_plan(config, member_settings(config))([])
    assert stage is not None
    built = stage.build()
    assert built.together and built.whole
    check_forms(step_of(built))


def test_training_steps(gpu: None, folder: Path) -> None:
    config = tiny_evaluation(folder)
    program = step_of(build_evaluation(config, load_genotype(config.genotype)))
    check_forms(program)
    check_statistics(program)


@pytest.mark.parametrize("name", ["first_order", "unrolled"])
def test_steps_on_text(name: str, gpu: None, tmp_path: Path) -> None:
    config = tiny_text_search(tmp_path, hypergradient=name)
    assert "custom_call @jaxdarts" not in step_of(build_search([config], config))


@pytest.mark.parametrize("platform", ["cuda", None])
def test_a_text_network_made_for_another_platform(platform: str | None) -> None:
    """Kernels of a CPU are in none but the CPU's own programs."""
    space = jd.load_space("rnn")
    net = TextSupernet(space, 7, 4, platform=platform)
    tokens, hidden = jnp.zeros((3, 2), jnp.int32), jnp.zeros((2, 4))
    weights = Weights({"recurrent": jnp.ones(space.alpha_shape("recurrent"))})
    variables = jax.eval_shape(net.init, jax.random.key(0), tokens, hidden, weights)
    program = jax.jit(net.apply).trace(variables, tokens, hidden, weights)
    lowered = program.lower(lowering_platforms=(platform or "cpu",)).as_text()
    assert ("jaxdarts_Recurrent" in lowered) == (platform is None and described() != "none")


def test_a_step_made_for_another_platform_without_a_run(folder: Path) -> None:
    space = jd.load_space(str(folder / "tiny.toml"))
    problem = jd.SearchProblem(space, jd.Supernet(space, 10, 2, 1, platform="cuda"), (8, 8, 1))
    parts = {"weight_optimiser": jd.weight_optimiser(0.025), "alpha_optimiser": jd.alpha_optimiser()}
    method = jd.darts(problem, hypergradient=jd.unrolled(), virtual_step=jd.virtual_step_optimiser(0.025), **parts)
    batch = jd.Batch(jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32), jax.ShapeDtypeStruct((4,), jnp.int32))
    check_forms(exported(jax.jit(method.step), jax.eval_shape(method.init, jax.random.key(0)), batch, batch))


def test_an_exact_step_of_three_cells_is_short(gpu: None) -> None:
    """A GPU compiles all of it: calls of one gradient are calls of one function, without tables."""
    sizes = {"image_size": 32, "batch_size": 64, "channels": 16, "cells": 3}
    config = jd.SearchConfig(space="s1", dataset="digits", limit=400, **sizes)
    program = step_of(build_search([config], config))
    assert len(program) < 2e6
    assert len(re.findall(r"func\.func private @value_and_gradients", program)) == 2  # itself, and its derivative
