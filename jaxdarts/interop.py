"""How do weights move between these networks and the PyTorch codes of DARTS and RobustDARTS?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.networks.cell import CellPlan
from jaxdarts.networks.discrete import DiscreteNetwork, discrete_plan
from jaxdarts.networks.stem import cell_layout
from jaxdarts.networks.supernet import Supernet, supernet_plan
from jaxdarts.spaces import CELL_TYPES, Genotype, SearchSpace

Variables = dict[str, Any]
_CELL = re.compile(r"cells\.(\d+)\.")


class _Entry(NamedTuple):
    """One PyTorch tensor and where it stands here."""

    torch_name: str
    collection: str  # "params" or "batch_stats"
    path: tuple[str, ...]
    kind: str  # how the axes are ordered, a key of _TO_JAX
    row: int | None  # index on the leading edge axis; None where there is no such axis


# PyTorch: convolutions OIHW, linear (out, in). Here: HWIO, depthwise (K, K, C), 1x1 and linear (in, out).
_TO_JAX = {
    "vector": lambda x: x,
    "linear": lambda x: x.T,
    "conv": lambda x: x.transpose(2, 3, 1, 0),
    "depthwise": lambda x: x[:, 0].transpose(1, 2, 0),
    "pointwise": lambda x: x[:, :, 0, 0].T,
    "whole_map": lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),  # the auxiliary head's 2x2 convolution
}
_TO_TORCH = {
    "vector": lambda x: x,
    "linear": lambda x: x.T,
    "conv": lambda x: x.transpose(3, 2, 0, 1),
    "depthwise": lambda x: x.transpose(2, 0, 1)[:, None],
    "pointwise": lambda x: x.T[:, :, None, None],
    "whole_map": lambda x: x.reshape(2, 2, -1, x.shape[-1]).transpose(3, 2, 0, 1),
}


def from_torch(space_or_genotype: SearchSpace | Genotype, state_dict: Mapping[str, np.ndarray]) -> Variables:
    """Parameters and running statistics from a PyTorch `state_dict`.

    Args:
      space_or_genotype: a search space for a search network, a genotype for an evaluation network.
      state_dict: numpy arrays under the names of the reference codes (`{k: v.numpy() for k, v in sd.items()}`); a
        `module.` prefix is dropped. Without any running statistics these start at 0 and 1.

    Returns:
      {"params", "batch_stats"} for `network_of(space_or_genotype, state_dict).apply`, dtypes as given.

    Raises:
      InputError: names that are missing or unknown, or shapes that do not fit.
    """
    state = {name.removeprefix("module."): np.asarray(value) for name, value in state_dict.items()}
    network = network_of(space_or_genotype, state)
    has_statistics = any(name.endswith("running_mean") for name in state)
    entries = [entry for entry in _entries(network) if entry.collection == "params" or has_statistics]
    missing = [entry.torch_name for entry in entries if entry.torch_name not in state]
    if missing:
        raise InputError(f"state_dict: {len(missing)} tensors are missing, the first is {missing[0]!r}")
    known = {entry.torch_name for entry in entries}
    unknown = sorted(name for name in state if name not in known and not name.endswith("num_batches_tracked"))
    if unknown:
        raise InputError(f"state_dict: {len(unknown)} tensors have no place, the first is {unknown[0]!r}")
    shapes = _shapes(network, state["stem.0.weight"].shape[1])
    variables: Variables = {"params": {}, "batch_stats": {}}
    rows: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in entries:
        value = _to_jax(entry, state[entry.torch_name], shapes)
        if entry.row is None:
            _put(variables, (entry.collection, *entry.path), value)
        else:
            rows.setdefault((entry.collection, *entry.path), []).append(value)
    for path, values in rows.items():
        _put(variables, path, np.stack(values))
    if not has_statistics:
        dtype = state["stem.0.weight"].dtype
        variables["batch_stats"] = jax.tree_util.tree_map_with_path(
            lambda path, leaf: np.full(leaf.shape, float(path[-1].key == "variance"), dtype), shapes["batch_stats"]
        )
    return variables


def to_torch(network: Supernet | DiscreteNetwork, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A PyTorch `state_dict` (numpy arrays) of a network's parameters and running statistics.

    The inverse of `from_torch`, except for the counters `num_batches_tracked`, which are set to 0.
    """
    state: dict[str, np.ndarray] = {}
    for entry in _entries(network):
        value: Any = variables[entry.collection]
        for key in entry.path:
            value = value[key]
        value = np.asarray(value)
        state[entry.torch_name] = _TO_TORCH[entry.kind](value if entry.row is None else value[entry.row])
        if entry.torch_name.endswith("running_var"):
            state[entry.torch_name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return state


def network_of(
    space_or_genotype: SearchSpace | Genotype, state_dict: Mapping[str, np.ndarray]
) -> Supernet | DiscreteNetwork:
    """The network that a `state_dict` belongs to: channels, cells and classes are read off its shapes."""
    state = {name.removeprefix("module."): value for name, value in state_dict.items()}
    for name, axes in (("stem.0.weight", 4), ("classifier.weight", 2)):
        if name not in state:
            raise InputError(f"state_dict: no tensor {name!r}; expected the names of the DARTS or RobustDARTS codes")
        if state[name].ndim != axes or 0 in state[name].shape:
            raise InputError(f"state_dict: {name!r} has shape {state[name].shape}; expected {axes} axes")
    cells = 1 + max((int(match[1]) for match in map(_CELL.match, state) if match), default=-1)
    channels = state["stem.0.weight"].shape[0] // 3
    classes = state["classifier.weight"].shape[0]
    if isinstance(space_or_genotype, Genotype):
        auxiliary = any(name.startswith("auxiliary_head.") for name in state)
        return DiscreteNetwork(space_or_genotype, classes, channels, cells, auxiliary)
    return Supernet(space_or_genotype, classes, channels, cells)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _to_jax(entry: _Entry, tensor: np.ndarray, shapes: Variables) -> np.ndarray:
    expected: Any = shapes[entry.collection]
    for key in entry.path:
        expected = expected[key]
    shape = expected.shape if entry.row is None else expected.shape[1:]
    try:
        value = _TO_JAX[entry.kind](tensor)
    except (ValueError, IndexError):
        value = None
    if value is None or value.shape != shape:
        torch_shape = _TO_TORCH[entry.kind](np.empty(shape)).shape
        raise InputError(f"state_dict: {entry.torch_name!r} has shape {tensor.shape}; expected {torch_shape}")
    return value


def _shapes(network: Supernet | DiscreteNetwork, image_channels: int) -> Variables:
    """The network's variables as shapes; nothing is computed."""
    images = jnp.zeros((1, 8, 8, image_channels))
    arguments = (
        ({cell: jnp.zeros(network.space.alpha_shape(cell)) for cell in CELL_TYPES},)
        if isinstance(network, Supernet)
        else ()
    )
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, *arguments))
    return {"params": {}, "batch_stats": {}, **shapes}


def _entries(network: Supernet | DiscreteNetwork) -> Iterator[_Entry]:
    """Every tensor of the network's `state_dict`, counters excepted."""
    relaxed = isinstance(network, Supernet)
    yield _Entry("stem.0.weight", "params", ("stem", "conv", "kernel"), "conv", 0)
    yield from _norm("stem.1", ("stem", "norm"), affine=True)
    for index, (cell_type, _, previous_reduction) in enumerate(cell_layout(network.num_cells, network.channels)):
        yield from _cell(network, index, cell_type, previous_reduction)
    if not relaxed and network.auxiliary:
        head, here = "auxiliary_head.features", "auxiliary_head"
        yield _Entry(f"{head}.2.weight", "params", (here, "conv_1", "kernel"), "pointwise", 0)
        yield from _norm(f"{head}.3", (here, "norm_1"), affine=True)
        yield _Entry(f"{head}.5.weight", "params", (here, "conv_2", "kernel"), "whole_map", 0)
        yield from _norm(f"{head}.6", (here, "norm_2"), affine=True)
        yield from _linear("auxiliary_head.classifier", (here, "classifier"))
    yield from _linear("classifier", ("classifier", "linear"))


def _cell(
    network: Supernet | DiscreteNetwork, index: int, cell_type: str, previous_reduction: bool
) -> Iterator[_Entry]:
    torch_cell, here = f"cells.{index}", f"cell_{index}"
    plan: CellPlan
    if isinstance(network, Supernet):
        rows, columns, plan = supernet_plan(network.space, cell_type)
        names = [f"{torch_cell}._ops.{row}._ops.{column}" for row, column in zip(rows, columns, strict=True)]
        affine = False
    else:
        plan = discrete_plan(network.genotype, cell_type)
        names = [f"{torch_cell}._ops.{position}" for position in range(len(plan.connections))]
        affine = True
    for number, reduced in ((0, previous_reduction), (1, False)):
        torch_name, path = f"{torch_cell}.preprocess{number}", (here, f"preprocess_{number}")
        if reduced:
            yield from _factorized_reduce(torch_name, path, 0, affine)
        else:
            yield _Entry(f"{torch_name}.op.1.weight", "params", (*path, "conv", "kernel"), "pointwise", 0)
            yield from _norm(f"{torch_name}.op.2", (*path, "norm"), affine)
    for source in range(plan.num_nodes + 2):
        strided = cell_type == "reduce" and source < 2
        for operation, members in plan.groups(source).items():
            path = (here, f"{operation}_from_{source}")
            for row, member in enumerate(members):
                yield from _operation(operation, names[member], path, row, affine, strided)


def _operation(
    operation: str, name: str, path: tuple[str, ...], row: int, affine: bool, strided: bool
) -> Iterator[_Entry]:
    if operation in ("none", "noise"):
        return
    if operation.startswith(("sep_conv", "dil_conv")):
        for repeat, first in enumerate((1, 5) if operation.startswith("sep") else (1,), start=1):
            conv = (*path, f"conv_{repeat}")
            yield _Entry(f"{name}.op.{first}.weight", "params", (*conv, "depthwise"), "depthwise", row)
            yield _Entry(f"{name}.op.{first + 1}.weight", "params", (*conv, "pointwise"), "pointwise", row)
            yield from _norm(f"{name}.op.{first + 2}", (*path, f"norm_{repeat}"), affine, row)
    elif operation == "conv_7x1_1x7":
        for position in (1, 2):
            yield _Entry(f"{name}.{position}.weight", "params", (*path, f"conv_{position}", "kernel"), "conv", row)
        yield from _norm(f"{name}.3", (*path, "norm_1"), affine, row)
    elif operation.endswith("pool_3x3"):
        if not affine:  # only the search network's pools have a batch norm
            yield from _norm(f"{name}.1", (*path, "norm"), affine=False, row=row)
    elif operation == "skip_connect":
        if strided:
            yield from _factorized_reduce(name, (*path, "reduce"), row, affine)
    else:
        raise InputError(f"operation {operation!r} has no counterpart in the PyTorch codes")


def _factorized_reduce(name: str, path: tuple[str, ...], row: int, affine: bool) -> Iterator[_Entry]:
    for half in ("conv_1", "conv_2"):
        yield _Entry(f"{name}.{half}.weight", "params", (*path, half, "kernel"), "pointwise", row)
    yield from _norm(f"{name}.bn", (*path, "norm"), affine, row)


def _norm(name: str, path: tuple[str, ...], affine: bool, row: int = 0) -> Iterator[_Entry]:
    if affine:
        yield _Entry(f"{name}.weight", "params", (*path, "scale"), "vector", row)
        yield _Entry(f"{name}.bias", "params", (*path, "bias"), "vector", row)
    yield _Entry(f"{name}.running_mean", "batch_stats", (*path, "mean"), "vector", row)
    yield _Entry(f"{name}.running_var", "batch_stats", (*path, "variance"), "vector", row)


def _linear(name: str, path: tuple[str, ...]) -> Iterator[_Entry]:
    yield _Entry(f"{name}.weight", "params", (*path, "kernel"), "linear", None)
    yield _Entry(f"{name}.bias", "params", (*path, "bias"), "vector", None)
