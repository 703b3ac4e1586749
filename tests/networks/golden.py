"""What the public codes computed, for tests: a file's arrays, and one mixed operation with its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.interop import _TO_JAX, _layers
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A file's arrays and its settings."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def group(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays `name/*` by the rest of their names."""
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def images(array: np.ndarray) -> jax.Array:
    """NCHW as the networks take them, NHWC."""
    return jnp.asarray(array.transpose(0, 2, 3, 1))


def edge(
    plan: CellPlan, names: list[str], params: Mapping[str, np.ndarray], x: np.ndarray, stride: int, gates: Any
) -> Any:
    """One edge in training: a cell of one input and one node. x and the result are NCHW."""
    inputs = jnp.asarray(x.transpose(1, 2, 3, 0))
    cell = Cell(plan, x.shape[1], stride == 2, previous_reduction=False, affine=False, normalise_pools=True)
    arguments = (inputs, inputs, jnp.asarray(gates)[:, None], True, None)
    found = jax.eval_shape(lambda: cell.init(jax.random.key(0), *arguments))
    variables: Any = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), found)
    for one in plan.groups(0, stride):
        for row, member in enumerate(one.members):
            for entry in _layers(one, names[member], "", 0, row):
                values: Any = variables["params"]
                for key in entry.path[1:]:
                    values = values[key]
                values[row] = _TO_JAX[entry.kind](params[entry.torch_name])
    output, _ = cell.apply(variables, *arguments, mutable=["batch_stats"])
    return np.asarray(output).transpose(3, 0, 1, 2)
