"""What do runs on one and on several devices give? For test_devices.py, which starts this with four CPU devices."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxdarts.bilevel.products import value_and_gradients
from jaxdarts.errors import InputError, RunInterrupted
from jaxdarts.evaluate import choose_genotype
from jaxdarts.methods import Problem, View
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import relaxed_network
from jaxdarts.networks.layers import batch_apart
from jaxdarts.plans.evaluate import build_evaluation, prepare
from jaxdarts.precision import precision
from jaxdarts.runs import engine, interrupt
from jaxdarts.runs.compilation import quicken_compilation
from jaxdarts.runs.steps import accumulate, cursors, make_steps, traced_for
from jaxdarts.search import run_search
from jaxdarts.sharding import data_mesh, replicate
from jaxdarts.spaces import SearchSpace
from jaxdarts.tasks import kind_of
from jaxdarts.tasks.base import means
from jaxdarts.tasks.classification import Batch, bare_task
from tests.runs.comparing import assert_compiles_in_the_first_epoch_only
from tests.runs.tiny import tiny_config, tiny_evaluation

NOISY_SPACE = """
num_nodes = 1
operations = ["skip_connect", "noise"]
"""
# Everything random that a step can have; the curvature is a product with second derivatives.
CHANGES = {
    "drop_path": 0.3,
    "cutout": True,
    "cutout_length": 2,
    "batch_size": 12,
    "limit": 72,
    "curvature_products": 3,
    "spectrum_size": 3,
    "precision": "float64",
}


def numbers(result: Any) -> list[float]:
    """All of a run's state and metrics, one after the other."""
    leaves = [leaf for leaf in jax.tree.leaves(result.state) if jnp.issubdtype(leaf.dtype, jnp.number)]
    recorded = [
        np.ravel(value) if not isinstance(value, dict) else np.concatenate([np.ravel(value[cell]) for cell in value])
        for record in result.metrics
        for name, value in record.items()
        if value is not None and name not in ("seconds", "genotype", "skip_connections")
    ]
    return [float(value) for leaf in [*leaves, *recorded] for value in np.ravel(np.asarray(leaf))]


def interrupted(run: Callable[[], Any], step: int) -> None:
    """Runs until it has been asked to stop after a step."""
    advance, asked = engine.RunProgress.advance, []

    def ask(self: Any, done: int, epoch: int) -> None:
        advance(self, done, epoch)
        asked[-1].requested = done == step

    class Asked(interrupt.Interrupt):
        def __init__(self) -> None:
            super().__init__()
            asked.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interrupt, "Interrupt", Asked)
        patch.setattr(engine.RunProgress, "advance", ask)
        with pytest.raises(RunInterrupted):
            run()


def searches(folder: Path) -> dict[str, Any]:
    """Searches on one and on several devices, one of them interrupted and continued."""
    (folder / "tiny.toml").write_text(NOISY_SPACE)
    config = tiny_config(folder, **CHANGES)

    def run(name: str, resume: bool = False, **changes: Any) -> Any:
        return run_search(
            type(config)(**config.used(config.given, changes)), folder / name, resume=resume, stream=io.StringIO()
        )

    found = {"one": numbers(run("one"))}
    several: list[Any] = []
    assert_compiles_in_the_first_epoch_only(lambda: several.append(run("parts", devices=2)), config.epochs)
    found["parts"] = numbers(several[0])
    found["places"] = sorted({str(leaf.sharding.spec) for leaf in jax.tree.leaves(several[0].state)})
    interrupted(lambda: run("interrupted", devices=2), 4)
    shutil.copytree(folder / "interrupted", folder / "moved")
    found["resumed"] = numbers(run("interrupted", resume=True, devices=2))
    found["resumed on one"] = numbers(run("moved", resume=True, devices=1))
    whole = run("whole", devices=2, step_compilation="whole", remat="on", curvature_every=0, spectrum_size=0)
    found["state"], found["whole"] = (numbers(result._replace(metrics=[])) for result in (several[0], whole))
    return found


def evaluations(folder: Path) -> dict[str, Any]:
    """The state after two steps of an evaluation on one and on two devices, and the test loss with it."""
    config = tiny_evaluation(folder, batch_size=12, drop_path=0.3, precision="float64")
    found = {}
    with precision("float64"):
        for name, devices in (("one", 1), ("two", 2)):
            settings, genotype = config.replace(devices=devices), choose_genotype(config)
            with traced_for(devices):
                mesh = data_mesh(devices, config.batch_size)
                data = kind_of(genotype).training_data(settings, mesh)
                built, training = build_evaluation(settings, genotype, data), prepare(settings, genotype, data)
                one, steps = built.experiments[0], make_steps(built, jax.devices())
                state, totals = replicate(one.start(), built.mesh), None
                for _ in range(2):
                    state, new = steps.step(state, steps.data, cursors(one, 0, built.mesh))
                    totals, _ = accumulate(totals, new)
                assert training.task.test is not None
                measured = training.measurer(training.task.test, state)
                found[name] = numbers(Measured(state, [measured, means(totals)]))
    return found


class Measured(NamedTuple):
    """As much of a result as `numbers` looks at."""

    state: Any
    metrics: list[dict[str, Any]]


def program() -> dict[str, Any]:
    """What the gradient of a supernet costs one of two devices, and how often a batch is gathered for it."""
    space = SearchSpace.uniform("several", ("sep_conv_3x3",), num_nodes=1)
    network = relaxed_network(Supernet(space, 10, 4, 3), (16, 16, 3))
    problem = Problem(space, network, bare_task(), softmax(space))
    mesh = data_mesh(2, 24)
    assert mesh is not None

    def shapes(tree: Any, *axes: str) -> Any:
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

    params, stats = jax.eval_shape(problem.init_network, jax.random.key(0))
    alpha = jax.eval_shape(lambda: problem.relaxation.init(jax.random.key(0)))
    batch = jax.eval_shape(lambda: Batch(jnp.zeros((24, 16, 16, 3)), jnp.zeros(24, jnp.int32)))
    view = View(shapes(batch, "data"), shapes(stats))
    with batch_apart():
        gradients = jax.jit(partial(value_and_gradients, problem.outer))
        lowered = gradients.lower(shapes(params), shapes(alpha), view)
    compiled = lowered.compile()
    share = compiled.cost_analysis()["flops"] / lowered.cost_analysis()["flops"]
    return {"share": share, "gathers": compiled.as_text().count("all-gather(")}


def refusals(folder: Path) -> list[str]:
    """What is said about numbers of devices that can't be used."""
    said = []
    for changes in ({"devices": 3}, {"devices": 9}, {"devices": 4, "batch_size": 3}):
        with pytest.raises(InputError) as caught:
            run_search(tiny_config(folder, **changes), folder / "refused")
        said.append(str(caught.value))
    assert not (folder / "refused").exists()
    return said


if __name__ == "__main__":
    quicken_compilation()
    path = Path(sys.argv[1])
    (path / "searches").mkdir()
    found = {
        "refusals": refusals(path),
        "program": program(),
        "searches": searches(path / "searches"),
        "evaluations": evaluations(path),
    }
    print(json.dumps(found))
