"""Does the README say what is true? Its Python runs, and the files, flags and commands that it names exist."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdarts
from jaxdarts.runs.checks import field_names
from jaxdarts.runs.evaluate.config import EvaluateConfig
from jaxdarts.runs.search.config import SearchConfig
from jaxdarts.runs.sweep.file import read_sweep
from jaxdarts.runs.table.config import TabulateConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/numerics.md", "docs/adding_things.md", "docs/results.md")


def _blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def test_the_library_example() -> None:
    names: dict[str, Any] = {}
    for block in _blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), names)
    gradient, top = names["gradient"], names["top"]
    assert 0 < np.abs(gradient["reduce"]).max() < 1
    assert not gradient["normal"].any()  # the one cell of the example is a reduction cell
    assert abs(top.value) > 1e-4 and top.residual < 1e-4 * abs(top.value)
    assert isinstance(names["genotype"], jaxdarts.Genotype)


@pytest.fixture
def additions() -> Iterator[dict[str, Any]]:
    """What the examples of docs/adding_things.md define and register, until the test ends."""
    registries = ("OPERATIONS", "HYPERGRADIENTS", "DATASETS", "METHODS")
    with contextlib.ExitStack() as stack:
        for registry in registries:
            stack.enter_context(mock.patch.dict(getattr(jaxdarts, registry)))
        names: dict[str, Any] = {}
        for document in ("docs/numerics.md", "docs/adding_things.md"):
            for block in _blocks(document, "python"):
                exec(compile(block, document, "exec"), names)
        yield names


def test_the_added_operation_stands_in_a_network(additions: dict[str, Any]) -> None:
    space = jaxdarts.SearchSpace.uniform("added", ("conv_3x3", "skip_connect"), num_nodes=1)
    network = jaxdarts.Supernet(space, num_classes=3, channels=4, num_cells=3)
    images, weights = jnp.zeros((2, 8, 8, 3)), jaxdarts.init_alpha(space, jax.random.key(0))
    scores, _ = jax.eval_shape(lambda key: network.init_with_output(key, images, weights), jax.random.key(0))
    assert scores.shape == (2, 3)


def test_the_added_hypergradient_penalty_and_data_set(additions: dict[str, Any]) -> None:
    # L_train = (w - 2 alpha)^2 / 2 and L_valid = w alpha; one step of size 0.1 from w = 1 at alpha = 3 leads to 1.5.
    problem = jaxdarts.Bilevel(lambda w, a, _: ((w - 2 * a) ** 2 / 2, None), lambda w, a, _: (w * a, None))
    optimiser = jaxdarts.weight_optimiser(0.1, momentum=0.0, l2=0.0, clip_norm=None)
    w, alpha = jnp.asarray(1.0), jnp.asarray(3.0)
    gradient, info = jaxdarts.HYPERGRADIENTS["look_ahead"]()(
        problem, jaxdarts.InnerStep(optimiser, optimiser.init(w)), w, alpha, None, None
    )
    assert float(gradient) == pytest.approx(1.5) and float(info.valid_loss) == pytest.approx(4.5)
    assert float(additions["entropy"]({"normal": jnp.zeros((2, 4))})) == pytest.approx(2 * np.log(4))
    assert jaxdarts.load_dataset("stripes").image_shape == (16, 16, 1)


def test_the_added_method_holds_alpha(additions: dict[str, Any]) -> None:
    def step(state: jaxdarts.SearchState, train: None, valid: None) -> tuple[jaxdarts.SearchState, None]:
        return dataclasses.replace(state, alpha=state.alpha + 1, step=state.step + 1), None

    start = jaxdarts.SearchState(*[None] * 2, 0.0, *[None] * 5, 0)  # type: ignore[arg-type]
    with mock.patch.dict(additions, darts=lambda problem: jaxdarts.SearchMethod(lambda key: start, step)):
        method = jaxdarts.METHODS["frozen_start"](None, steps=2)
    state, alphas = method.init(jax.random.key(0)), []
    for _ in range(4):
        state, _ = method.step(state, None, None)  # type: ignore[arg-type]
        alphas.append(float(state.alpha))  # type: ignore[arg-type]
    assert alphas == [0, 0, 1, 2]


def test_toml_in_the_documents_is_a_space_or_a_sweep_that_loads(tmp_path: Path) -> None:
    blocks = [block for document in DOCUMENTS for block in _blocks(document, "toml")]
    assert blocks
    for block in blocks:
        (tmp_path / "space.toml").write_text(block)
        if "[grid]" in block:
            assert len(read_sweep(tmp_path / "space.toml").points) > 1
            continue
        assert jaxdarts.load_space(str(tmp_path / "space.toml"), jaxdarts.OPERATIONS).num_genotypes() > 1


@pytest.mark.parametrize("document", DOCUMENTS)
def test_linked_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [link for link in links if "://" not in link and not ((ROOT / document).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_of_the_package_that_are_named_exist(document: str) -> None:
    named = re.findall(r"`((?:jaxdarts|tests|benchmarks|configs|docs)/[\w/]+\.(?:py|toml|md|html))", _text(document))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_flags_in_the_readme_exist() -> None:
    known = {*field_names(SearchConfig), *field_names(EvaluateConfig), "run_dir", "resume", "config", "set", "help"}
    known |= {*field_names(TabulateConfig), "sweep_dir", "jobs", "variants", "retry", "methods"}
    known |= {"cluster", "gpus_per_run", "cpus_per_run", "attempts", "dist", "table"}
    known |= {"coordinator", "process_id", "process_count"}
    flags = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", _text("README.md"))}
    assert flags <= known


@pytest.mark.parametrize(
    "registry", ["SPACES", "GENOTYPES", "HYPERGRADIENTS", "METHODS", "OPERATIONS", "DATASETS", "BETA_DECAY_PENALTIES"]
)
def test_everything_registered_is_in_the_readme(registry: str) -> None:
    assert [name for name in getattr(jaxdarts, registry) if f"`{name}" not in _text("README.md")] == []


def _text(document: str) -> str:
    return (ROOT / document).read_text()
