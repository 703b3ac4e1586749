"""How do weights move between these networks and the PyTorch codes of DARTS, its successors and NAS-Bench-201?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.networks.cell_plan import CellPlan, Group
from jaxdarts.networks.discrete import DiscreteNetwork, discrete_plan
from jaxdarts.networks.macro import MACROS, Block
from jaxdarts.networks.rows import norm_groups
from jaxdarts.networks.supernet import Supernet, supernet_plan
from jaxdarts.spaces import Architecture, CellSpace, Genotype

Variables = dict[str, Any]
_CELL = re.compile(r"cells\.(\d+)\.")
_FIRST_OPERATION = re.compile(r"cells\.0\._ops\.\d+\._ops\.\d+\.op\.\d+\.weight")
# Of FairDARTS, which names an edge by the states that it leads to and from, and then its operation by a number.
_BETWEEN_STATES = re.compile(r"cells\.(\d+)\._ops\.\d+\.(\d+)\.\d+\.")
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # of data parallel and of compiled models, in any order
_CHECKPOINT_NAMES = ("state_dict", "model_state_dict", "model", "network", "net")


class _Entry(NamedTuple):
    """One PyTorch tensor and where it stands here."""

    torch_name: str
    collection: str  # "params" or "batch_stats"
    path: tuple[str, ...]
    kind: str  # how the axes are ordered, a key of _TO_JAX
    row: int | None  # index on the leading edge axis; None where there is no such axis


# PyTorch: convolutions OIHW, linear (out, in). Here: HWIO, depthwise (C, K, K), 1x1 (out, in), linear (in, out).
_TO_JAX = {
    "vector": lambda x: x,
    "linear": lambda x: x.T,
    "conv": lambda x: x.transpose(2, 3, 1, 0),
    "depthwise": lambda x: x[:, 0],
    "pointwise": lambda x: x[:, :, 0, 0],
    "whole_map": lambda x: x.reshape(x.shape[0], -1),  # the auxiliary head's 2x2 convolution
}
_TO_TORCH = {
    "vector": lambda x: x,
    "linear": lambda x: x.T,
    "conv": lambda x: x.transpose(3, 2, 0, 1),
    "depthwise": lambda x: x[:, None],
    "pointwise": lambda x: x[:, :, None, None],
    "whole_map": lambda x: x.reshape(x.shape[0], -1, 2, 2),
}


def from_torch(space_or_genotype: CellSpace | Architecture, state_dict: Mapping[str, np.ndarray]) -> Variables:
    """Parameters and running statistics from a PyTorch `state_dict`.

    Args:
      space_or_genotype: a search space for a search network, a genotype for an evaluation network.
      state_dict: numpy arrays under the names of the reference codes (`{k: v.numpy() for k, v in sd.items()}`), or a
        checkpoint that holds such an object under a name like `state_dict`. Prefixes of wrapped or compiled models
        (`module.`, `_orig_mod.`) are dropped. Without any running statistics these start at 0 and 1.

    Returns:
      {"params", "batch_stats"} for `network_of(space_or_genotype, state_dict).apply`, dtypes as given.

    Raises:
      InputError: names that are missing or unknown, or shapes that do not fit.
    """
    state = _unwrapped(state_dict)
    network = network_of(space_or_genotype, state)
    has_statistics = any(name.endswith("running_mean") for name in state)
    by_states = any(map(_BETWEEN_STATES.match, state))
    entries = [entry for entry in _entries(network, by_states) if entry.collection == "params" or has_statistics]
    missing = [entry.torch_name for entry in entries if entry.torch_name not in state]
    if missing:
        raise InputError(f"state_dict: {len(missing)} tensors are missing, the first is {missing[0]!r}")
    known = {entry.torch_name for entry in entries}
    unknown = sorted(name for name in state if name not in known and not name.endswith("num_batches_tracked"))
    unknown = [name for name in unknown if not _is_unused(network, name)]
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

    The inverse of `from_torch`, except for the counters `num_batches_tracked`, which are set to 0. A genotype some of
    whose nodes have another number of edges than two has FairDARTS' names, any other DARTS'.
    """
    state: dict[str, np.ndarray] = {}
    kind = _kind(network)
    for entry in _entries(network, isinstance(kind, Genotype) and kind.is_uneven):
        value: Any = variables[entry.collection]
        for key in entry.path:
            value = value[key]
        value = np.asarray(value)
        state[entry.torch_name] = _TO_TORCH[entry.kind](value if entry.row is None else value[entry.row])
        if entry.torch_name.endswith("running_var"):
            state[entry.torch_name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return state


def network_of(
    space_or_genotype: CellSpace | Architecture, state_dict: Mapping[str, np.ndarray]
) -> Supernet | DiscreteNetwork:
    """The network that a `state_dict` belongs to: channels, cells and classes are read off its shapes."""
    state = _unwrapped(state_dict)
    for name, axes in (("stem.0.weight", 4), ("classifier.weight", 2)):
        if name not in state:
            known = next((found for found in state if found.endswith(name)), None)
            hint = f"; {known!r} is there: drop what stands before {name!r}" if known else ""
            raise InputError(
                f"state_dict: no tensor {name!r}; expected the names of the DARTS, RobustDARTS or NAS-Bench-201 codes"
                f"{hint or f'; the first is {next(iter(state), None)!r}'}"
            )
        if state[name].ndim != axes or 0 in state[name].shape:
            raise InputError(f"state_dict: {name!r} has shape {state[name].shape}; expected {axes} axes")
    cells = 1 + max((int(match[1]) for match in map(_CELL.match, state) if match), default=-1)
    macro = MACROS[space_or_genotype.macro]
    cells, channels = macro.cells_in(cells), state["stem.0.weight"].shape[0] // macro.stem_factor
    classes = state["classifier.weight"].shape[0]
    if isinstance(space_or_genotype, Architecture):
        auxiliary = any(name.startswith("auxiliary_head.") for name in state)
        return DiscreteNetwork(space_or_genotype, classes, channels, cells, auxiliary)
    has_skips = any(".auxiliary_op." in name for name in state)  # of DARTS-
    # Of PC-DARTS: in the first cell, which is no reduction cell, operations keep the channels that they get.
    kept = next((value.shape[0] for name, value in state.items() if _FIRST_OPERATION.match(name)), channels)
    parts = channels // kept if kept and channels % kept == 0 else 1
    has_norm = "lastact.0.weight" in state and not macro.final_norm  # of DOTS
    return Supernet(
        space_or_genotype,
        classes,
        channels,
        cells,
        auxiliary_skip=has_skips,
        partial_channels=parts,
        final_norm=has_norm,
    )


def _unwrapped(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors under the names that the network itself gives them, without what saving and wrapping put around.

    Raises:
      InputError: two tensors come to one name, an object that is no tensor is among them, or there is nothing.
    """
    inner = [name for name in state_dict if isinstance(state_dict[name], Mapping)]
    if "stem.0.weight" not in state_dict and inner:
        chosen = [name for name in _CHECKPOINT_NAMES if name in inner]
        if not chosen:
            raise InputError(
                f"state_dict: no tensors, but objects named {', '.join(map(repr, inner))}; give the one of the weights"
            )
        return _unwrapped(state_dict[chosen[0]])
    state: dict[str, np.ndarray] = {}
    for name, value in state_dict.items():
        short = _WRAPPERS.sub("", name)
        if short in state:
            raise InputError(f"state_dict: {name!r} and another tensor both come to the name {short!r}")
        state[short] = np.asarray(value)
    return state


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
        ({cell: jnp.zeros(network.space.alpha_shape(cell)) for cell in network.space.cell_types},)
        if isinstance(network, Supernet)
        else ()
    )
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, *arguments))
    return {"params": {}, "batch_stats": {}, **shapes}


def _is_unused(network: Supernet | DiscreteNetwork, name: str) -> bool:
    """Whether a tensor is of an edge from a node that doesn't exist, which FairDARTS' code has and never computes."""
    match, kind = _BETWEEN_STATES.match(name), _kind(network)
    if match is None or not isinstance(kind, Genotype) or int(match[1]) >= len(network.blocks):
        return False
    cell_type, source = network.blocks[int(match[1])].cell_type, int(match[2])
    return cell_type is not None and 2 <= source < kind.num_nodes + 2 and source - 2 not in kind.nodes(cell_type)


def _entries(network: Supernet | DiscreteNetwork, by_states: bool) -> Iterator[_Entry]:
    """Every tensor of the network's `state_dict`, counters excepted. `by_states`: by the names of FairDARTS."""
    relaxed = isinstance(network, Supernet)
    yield _Entry("stem.0.weight", "params", ("stem", "conv", "kernel"), "conv", 0)
    yield from _norm("stem.1", ("stem", "norm"), affine=True)
    for index, block in enumerate(network.blocks):
        if block.cell_type is None:
            yield from _residual(f"cells.{index}", f"cell_{index}")
        else:
            yield from _cell(network, index, block, block.cell_type, by_states)
    if not relaxed and network.auxiliary:
        head, here = "auxiliary_head.features", "auxiliary_head"
        yield _Entry(f"{head}.2.weight", "params", (here, "conv_1", "kernel"), "pointwise", 0)
        yield from _norm(f"{head}.3", (here, "norm_1"), affine=True)
        yield _Entry(f"{head}.5.weight", "params", (here, "conv_2", "kernel"), "whole_map", 0)
        yield from _norm(f"{head}.6", (here, "norm_2"), affine=True)
        yield from _linear("auxiliary_head.classifier", (here, "classifier"))
    if MACROS[_kind(network).macro].final_norm or (relaxed and network.final_norm):
        yield from _norm("lastact.0", ("classifier", "norm"), affine=True)
    yield from _linear("classifier", ("classifier", "linear"))


def _kind(network: Supernet | DiscreteNetwork) -> CellSpace | Architecture:
    return network.space if isinstance(network, Supernet) else network.genotype


def _residual(torch_block: str, here: str) -> Iterator[_Entry]:
    for number, name in ((1, "conv_a"), (2, "conv_b")):
        yield _Entry(f"{torch_block}.{name}.op.1.weight", "params", (here, f"conv_{number}", "kernel"), "conv", 0)
        yield from _norm(f"{torch_block}.{name}.op.2", (here, f"norm_{number}"), affine=True)
    yield _Entry(f"{torch_block}.downsample.1.weight", "params", (here, "shortcut", "kernel"), "pointwise", 0)


def _names(
    network: Supernet | DiscreteNetwork, torch_cell: str, cell_type: str, by_states: bool
) -> tuple[CellPlan, list[str]]:
    """The cell's connections, and the PyTorch name of each."""
    staged = _kind(network).macro == "stages"
    if isinstance(network, Supernet):
        rows, columns, plan = supernet_plan(network.space, cell_type, network.auxiliary_skip)
        edges = [
            f"{torch_cell}.edges.{node + 1}<-{source}" if staged else f"{torch_cell}._ops.{edge}"
            for edge, (node, source) in enumerate(network.space.edges)
        ]
        names = [
            f"{edges[row]}.{column}" if staged else f"{edges[row]}._ops.{column}"
            for row, column in zip(rows, columns, strict=False)  # the auxiliary skips have no column
        ]
        return plan, names + [f"{edges[row]}.auxiliary_op" for row in rows[len(columns) : len(plan.connections)]]
    plan = discrete_plan(network.genotype, cell_type)
    if by_states:
        pairs = [(connection.node + plan.num_inputs, connection.source) for connection in plan.connections]
        return plan, [
            f"{torch_cell}._ops.{state}.{source}.{pairs[:position].count((state, source))}"
            for position, (state, source) in enumerate(pairs)
        ]
    operations = "layers" if staged else "_ops"
    return plan, [f"{torch_cell}.{operations}.{position}" for position in range(len(plan.connections))]


def _cell(
    network: Supernet | DiscreteNetwork, index: int, block: Block, cell_type: str, by_states: bool
) -> Iterator[_Entry]:
    torch_cell, here = f"cells.{index}", f"cell_{index}"
    plan, names = _names(network, torch_cell, cell_type, by_states)
    affine = isinstance(network, DiscreteNetwork)
    reduced_inputs = (block.previous_reduction, False) if plan.num_inputs == 2 else ()
    for number, reduced in enumerate(reduced_inputs):
        torch_name, path = f"{torch_cell}.preprocess{number}", (here, f"preprocess_{number}")
        if reduced:
            yield from _halves(torch_name, path, 0)
        else:
            yield _Entry(f"{torch_name}.op.1.weight", "params", (*path, "kernel"), "pointwise", 0)
        norm = f"{torch_name}.bn" if reduced else f"{torch_name}.op.2"
        yield from _norm(norm, (here, "preprocess_norm"), affine, number)
    normalise_pools = not affine and MACROS[_kind(network).macro].normalise_pools
    for source in range(plan.num_nodes + plan.num_inputs):
        groups = plan.groups(source, stride=2 if block.reduction and source < plan.num_inputs else 1)
        for group in groups:
            for row, member in enumerate(group.members):
                yield from _layers(group, names[member], here, source, row)
        for number, normalised in enumerate(norm_groups(groups, normalise_pools), start=1):
            norm_path = (here, f"norm_{number}_from_{source}")
            members = [(group, member) for group in normalised for member in group.members]
            for row, (group, member) in enumerate(members):
                yield from _norm(_norm_name(group, names[member], number), norm_path, affine, row)


def _layers(group: Group, name: str, cell: str, source: int, row: int) -> Iterator[_Entry]:
    """The kernels of one connection."""
    here = f"{group.name}_from_{source}"
    if group.name.startswith(("sep_conv", "dil_conv")):
        for number, first in zip(range(1, len(group.operation.layers) + 1), (1, 5), strict=False):
            path = (cell, f"{here}_{number}")
            yield _Entry(f"{name}.op.{first}.weight", "params", (*path, "depthwise"), "depthwise", row)
            yield _Entry(f"{name}.op.{first + 1}.weight", "params", (*path, "pointwise"), "pointwise", row)
    elif group.name == "conv_7x1_1x7":
        for position in (1, 2):
            kernel = (cell, f"{here}_1", f"conv_{position}", "kernel")
            yield _Entry(f"{name}.{position}.weight", "params", kernel, "conv", row)
    elif group.name == "nor_conv_1x1":
        yield _Entry(f"{name}.op.1.weight", "params", (cell, f"{here}_1", "conv", "kernel"), "pointwise", row)
    elif group.name == "nor_conv_3x3":
        yield _Entry(f"{name}.op.1.weight", "params", (cell, f"{here}_1", "kernel"), "conv", row)
    elif group.name == "skip_connect":
        if group.operation.layers:
            yield from _halves(name, (cell, f"{here}_1"), row)
    elif group.name not in ("none", "noise") and not group.name.endswith("pool_3x3"):
        raise InputError(f"operation {group.name!r} has no counterpart in the PyTorch codes")


def _norm_name(group: Group, name: str, number: int) -> str:
    """The PyTorch name of the batch norm after a connection's layer."""
    if group.name.startswith(("sep_conv", "dil_conv")):
        return f"{name}.op.{3 if number == 1 else 7}"
    if group.name.startswith("nor_conv"):
        return f"{name}.op.2"
    if group.name == "conv_7x1_1x7":
        return f"{name}.3"
    return f"{name}.1" if group.name.endswith("pool_3x3") else f"{name}.bn"


def _halves(name: str, path: tuple[str, ...], row: int) -> Iterator[_Entry]:
    for half in ("conv_1", "conv_2"):
        yield _Entry(f"{name}.{half}.weight", "params", (*path, half, "kernel"), "pointwise", row)


def _norm(name: str, path: tuple[str, ...], affine: bool, row: int = 0) -> Iterator[_Entry]:
    if affine:
        yield _Entry(f"{name}.weight", "params", (*path, "scale"), "vector", row)
        yield _Entry(f"{name}.bias", "params", (*path, "bias"), "vector", row)
    yield _Entry(f"{name}.running_mean", "batch_stats", (*path, "mean"), "vector", row)
    yield _Entry(f"{name}.running_var", "batch_stats", (*path, "variance"), "vector", row)


def _linear(name: str, path: tuple[str, ...]) -> Iterator[_Entry]:
    yield _Entry(f"{name}.weight", "params", (*path, "kernel"), "linear", None)
    yield _Entry(f"{name}.bias", "params", (*path, "bias"), "vector", None)
