"""What do runs on one and on several devices give? For test_devices.py, which starts this with four CPU devices."""

from __future__ import annotations

import dataclasses
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
from jaxdarts.methods import Batch, LossInputs, SearchProblem
from jaxdarts.networks import Supernet, init_alpha
from jaxdarts.networks.layers import batch_apart
from jaxdarts.runs import stepping
from jaxdarts.runs.compilation import quicken_compilation
from jaxdarts.runs.device import precision
from jaxdarts.runs.devices import data_mesh, replicate, traced_for
from jaxdarts.runs.evaluate.assemble import RetrainSums, assemble_evaluation, choose_genotype
from jaxdarts.runs.search.loop import run_search
from jaxdarts.spaces import SearchSpace
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
    advance = stepping.RunProgress.advance

    def ask(self: Any, done: int, epoch: int) -> None:
        advance(self, done, epoch)
        interrupt.requested = done == step

    class Asked(stepping.Interrupt):
        def __init__(self) -> None:
            nonlocal interrupt
            super().__init__()
            interrupt = self

    interrupt: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxdarts.runs.interrupt.Interrupt", Asked)
        patch.setattr(stepping.RunProgress, "advance", ask)
        with pytest.raises(RunInterrupted):
            run()


def searches(folder: Path) -> dict[str, Any]:
    """Searches on one and on several devices, one of them interrupted and continued."""
    (folder / "tiny.toml").write_text(NOISY_SPACE)
    config = tiny_config(folder, **CHANGES)

    def run(name: str, resume: bool = False, **changes: Any) -> Any:
        changed = dataclasses.replace(config, **changes)
        return run_search(changed, folder / name, resume=resume, stream=io.StringIO())

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
            run = assemble_evaluation(dataclasses.replace(config, devices=devices), choose_genotype(config))
            with traced_for(devices):
                state, sums = replicate((run.init(), RetrainSums.zero(run.problem.dtype)), run.mesh)
                for _ in range(2):
                    state, sums, _ = run.step(state, sums, run.data, run.order(0))
                loss, _ = run.measure(state, run.test)
            found[name] = [*numbers(Measured(state, [{"loss": loss}])), float(sums.train_loss)]
    return found


class Measured(NamedTuple):
    """As much of a result as `numbers` looks at."""

    state: Any
    metrics: list[dict[str, Any]]


def program() -> dict[str, Any]:
    """What the gradient of a supernet costs one of two devices, and how often a batch is gathered for it."""
    space = SearchSpace.uniform("several", ("sep_conv_3x3",), num_nodes=1)
    problem = SearchProblem(space, Supernet(space, 10, 4, 3), (16, 16, 3))
    mesh = data_mesh(2, 24)
    assert mesh is not None

    def shapes(tree: Any, *axes: str) -> Any:
        place = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

    params, batch_stats = jax.eval_shape(problem.init_network, jax.random.key(0))
    alpha = jax.eval_shape(lambda: init_alpha(space, jax.random.key(0)))
    batch = jax.eval_shape(lambda: Batch(jnp.zeros((24, 16, 16, 3)), jnp.zeros(24, jnp.int32)))
    inputs = LossInputs(shapes(batch, "data"), shapes(batch_stats))
    with batch_apart():
        gradients = jax.jit(partial(value_and_gradients, problem.loss))
        lowered = gradients.lower(shapes(params), shapes(alpha), inputs)
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
