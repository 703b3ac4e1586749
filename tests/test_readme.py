"""Does the README say what is true? Its Python runs, and the files, flags and commands that it names exist."""

from __future__ import annotations

import contextlib
import io
import json
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
from jaxdarts.bilevel import BETA_DECAY_PENALTIES, Parts
from jaxdarts.checks import field_names
from jaxdarts.errors import InputError
from jaxdarts.json_files import read_lines
from jaxdarts.plans.search import build_search
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.runs.command_line import FLAGS, ProcessOptions
from jaxdarts.runs.engine import run_plan
from jaxdarts.runs.folder import create, reopen
from jaxdarts.runs.interrupt import Interrupt
from jaxdarts.runs.steps import cursors, make_steps
from jaxdarts.runs.surroundings import Surroundings
from jaxdarts.runs.sweep.file import read_sweep
from jaxdarts.settings import Settings
from jaxdarts.spaces import load_space
from jaxdarts.tasks.base import means
from tests.methods.making import at_epoch, batches, started
from tests.methods.test_methods import make
from tests.runs.tiny import tiny_config, tiny_evaluation

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("manual", "numerics", "adding_things", "results", "performance", "clusters")),
)
REGISTRIES: dict[str, dict[str, Any]] = {
    name: getattr(jaxdarts, name)
    for name in ("SPACES", "GENOTYPES", "HYPERGRADIENTS", "METHODS", "OPERATIONS", "DATASETS", "TASKS")
}
REGISTRIES["BETA_DECAY_PENALTIES"] = BETA_DECAY_PENALTIES


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
    with contextlib.ExitStack() as stack:
        for registry in REGISTRIES.values():
            stack.enter_context(mock.patch.dict(registry))
        names: dict[str, Any] = {}
        for document in ("docs/numerics.md", "docs/adding_things.md"):
            for block in _blocks(document, "python"):
                exec(compile(block, document, "exec", dont_inherit=True), names)
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
    with pytest.raises(InputError, match="hold_steps 2 is only for method frozen_start; got method 'darts'"):
        SearchConfig(hold_steps=2)
    search = make("frozen_start", hold_steps=2)
    state, step = started(search), Parts().run(search.step)
    moved = []
    for seed in range(4):
        before = state.alpha["normal"]
        state, totals = step(at_epoch(search, state, seed), *batches(seed))
        assert np.isfinite(means(totals)["hypergradient_norm"])
        moved.append(not np.array_equal(before, state.alpha["normal"]))
    assert moved == [False, False, True, True]


def test_the_added_task_is_searched_by_plans_and_steps_that_do_not_know_it(
    additions: dict[str, Any], tmp_path: Path
) -> None:
    class BrightSpace(jaxdarts.SearchSpace):
        task = "brightness"

    config = tiny_config(tmp_path, limit=200, alpha_learning_rate=1e-2)
    space = BrightSpace(**load_space(config.space).to_json())
    built = build_search([config], config, space)
    (experiment,), steps = built.experiments, make_steps(built, jax.devices())
    state, losses = experiment.start(), []
    for epoch in range(3):
        chosen = cursors(experiment, epoch, None)
        state, totals = steps.step(at_epoch(experiment.method, state, 0), steps.data, chosen)
        assert set(totals) == {"train_loss", "alpha_loss", "hypergradient_norm"}
        losses.append(means(totals)["train_loss"])
    assert losses[-1] < losses[0] < 20  # how bright an image is lies between -3 and 3 or so
    assert [name for name, _ in built.shown] == ["train_loss", "valid_loss", "dominant_eigenvalue"]


def test_the_added_plan_trains_what_was_found(additions: dict[str, Any], tmp_path: Path) -> None:
    """And comes to the same results when it is continued."""
    search = tiny_config(tmp_path, epochs=1, curvature_every=0, spectrum_size=0)
    training = tiny_evaluation(tmp_path, epochs=1)
    plan, around = additions["search_then_train"](search, training), Surroundings("", Interrupt(), io.StringIO())
    with create(tmp_path / "run", "plan", {"command": "search", **search.flat()}, {}, "", 1) as store:
        searched, trained = run_plan(plan, store, around)
    (found,), (result,) = searched.results, trained.results
    assert trained.path == tmp_path / "run" / "training"
    config = json.loads((trained.path / "config.json").read_text())
    assert {name: config[name] for name in training.flat()} == training.flat()
    with reopen(tmp_path / "run", 1) as store:
        again = run_plan(plan, store, around)
    assert [again[0].results[0].genotype, again[1].results[0].result] == [found.genotype, result.result]
    assert len(read_lines(trained.path / "metrics.jsonl")) == 1


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


@pytest.mark.parametrize("document", ["README.md", "docs/manual.md"])
def test_flags_in_the_documents_exist(document: str) -> None:
    commands: tuple[type[Settings], ...] = (SearchConfig, EvaluateConfig, TabulateConfig)
    known = {name for kind in commands for values in kind.every() for name in kind.names(values)}
    known |= {*field_names(ProcessOptions), "help", "help_all"}
    known |= {f"no_{name}" for name in known}
    known |= {flag.removeprefix("--") for flag in FLAGS.values()}
    known |= {"sweep_dir", "jobs", "variants", "retry", "methods"}
    known |= {"cluster", "gpus_per_run", "cpus_per_run", "attempts", "dist", "table"}
    flags = {flag.replace("-", "_") for flag in re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", _text(document))}
    assert len(flags) > 10 and flags <= known


@pytest.mark.parametrize("registry", sorted(set(REGISTRIES) - {"TASKS"}))
def test_everything_registered_is_in_the_readme_or_the_manual(registry: str) -> None:
    text = _text("README.md") + _text("docs/manual.md")
    assert [name for name in REGISTRIES[registry] if f"`{name}" not in text] == []


def _text(document: str) -> str:
    return (ROOT / document).read_text()
