"""How does one cell compute, relaxed or discrete? Both are a list of connections with a gate on each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.networks import layers
from jaxdarts.networks.operations import (
    OPERATIONS,
    BatchNorm,
    FactorizedReduce,
    Operation,
    PointwiseConv,
    Separable,
)
from jaxdarts.networks.separable import separable_convs


@dataclass(frozen=True)
class Connection:
    """One operation that reads state `source` and adds to node `node`, which is a state after the cell's inputs."""

    node: int
    source: int
    operation: str


class Group(NamedTuple):
    """The connections that apply one operation to one state."""

    name: str  # of the operation
    operation: Operation
    members: tuple[int, ...]  # indices of the connections


@dataclass(frozen=True)
class CellPlan:
    """A cell's connections and outputs: all that distinguishes a relaxed cell from a discrete one."""

    num_nodes: int
    connections: tuple[Connection, ...]
    concat: tuple[int, ...]
    num_inputs: int = 2  # states before the nodes: the last two blocks' outputs, or the last one's as it is
    # Partial channels (Xu et al. 2020): operations get the first of so many equal parts of a state's channels, and the
    # other parts pass by on these edges (node, source), whose gates come after the connections'.
    parts: int = 1
    passes: tuple[tuple[int, int], ...] = ()
    # Edges that add a number to their node everywhere (Dong and Yang 2019); their gates, the numbers, come last.
    constants: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for connection in self.connections:
            if connection.operation not in OPERATIONS:
                raise unknown_choice("operation", connection.operation, OPERATIONS)

    def groups(self, source: int, stride: int) -> list[Group]:
        """The groups that read a state, those with the most layers first."""
        found: dict[str, list[int]] = {}
        for index, connection in enumerate(self.connections):
            if connection.source == source:
                found.setdefault(connection.operation, []).append(index)
        groups = [Group(name, OPERATIONS[name](stride), tuple(members)) for name, members in found.items()]
        return sorted(groups, key=lambda group: (-len(group.operation.layers), group.name))


class Rows(NamedTuple):
    """Where a group's results stand in an array with leading rows, one row a member or one for all."""

    group: Group
    rows: tuple[int, ...]


class Cell(nn.Module):
    """A cell (Liu et al. 2019, section 2.1): preprocesses its two inputs, then every node is a gated sum.

    With one input there is no preprocessing (Dong and Yang 2020).

    What the operations that read one state do is done together: their ReLU; the first layers of all of them, one batch
    norm over the results; the second layers of those that have one, and a batch norm; pools once for all edges.
    Programs are then a few large library calls, whatever the space.

    Parameters of the layers are at `<operation>_from_<source>_<layer>` with a leading axis in the order of the plan's
    connections, those of batch norms at `norm_<layer>_from_<source>` in the order of `norm_rows`.
    """

    plan: CellPlan
    channels: int
    reduction: bool
    previous_reduction: bool
    affine: bool
    normalise_pools: bool
    platform: str | None = None  # as in `separable_convs`

    @nn.compact
    def __call__(
        self,
        before: jax.Array,
        last: jax.Array,
        gates: jax.Array,
        train: bool,
        key: jax.Array | None,
        skip_dropout: jax.Array | None = None,
    ) -> jax.Array:
        """float[C, H, W, B] twice, gates float[connections, B or 1] -> float[channels * len(concat), H', W', B].

        `skip_dropout`: with which probability an element that passes an identity is dropped (Chen et al. 2019); None:
        none is. An edge has its own elements.
        """
        inputs = self.plan.num_inputs
        active = self.channels // self.plan.parts
        states = [last] if inputs == 1 else self._preprocess(before, last, train)
        incoming: list[list[jax.Array]] = [[] for _ in range(self.plan.num_nodes)]
        passing: list[list[jax.Array]] = [[] for _ in range(self.plan.num_nodes)]
        for source in range(self.plan.num_nodes + inputs):
            if source >= inputs:
                terms = incoming[source - inputs]
                state = sum(terms[1:], terms[0]) if terms else self._nothing(states[0][:active])
                if passed := passing[source - inputs]:
                    whole = jnp.concatenate([state, sum(passed[1:], passed[0])])
                    state = layers.shuffle_channels(whole, self.plan.parts)
                states.append(self._with_constants(source - inputs, state, gates))
            state = states[source] if self.plan.parts == 1 else states[source][:active]
            for outputs, placed in self._outputs(source, state, train, key, skip_dropout):
                for node, term in self._add_up(outputs, placed, gates):
                    incoming[node].append(term)
            for node, term in self._pass_by(source, states[source], gates):
                passing[node].append(term)
        return jnp.concatenate([states[state] for state in self.plan.concat], axis=0)

    def _preprocess(self, before: jax.Array, last: jax.Array, train: bool) -> list[jax.Array]:
        """ReLU, 1x1 convolution (a factorised reduction where the sizes differ), batch norm."""
        layer = FactorizedReduce if self.previous_reduction else PointwiseConv
        both = [
            layer(features=self.channels, name="preprocess_0")(layers.relu(before)[None]),
            PointwiseConv(self.channels, name="preprocess_1")(layers.relu(last)[None]),
        ]
        return list(BatchNorm(2, self.affine, name="preprocess_norm")(jnp.concatenate(both), train))

    def _outputs(
        self, source: int, state: jax.Array, train: bool, key: jax.Array | None, skip_dropout: jax.Array | None
    ) -> Iterator[tuple[jax.Array, list[Rows]]]:
        """What every group that reads a state computes: arrays float[rows, C, H', W', B] and whose rows they are."""
        stride = self._stride(source)
        groups = self.plan.groups(source, stride)
        direct = {}
        for group in groups:
            if group.operation.direct is not None and not group.operation.layers:
                key_here = self._key(key, group, train)
                result = group.operation.direct(state, stride, len(group.members), key_here)
                if group.operation.drops and skip_dropout is not None and key is not None:
                    own = jax.random.fold_in(key, group.members[0])
                    shape = (len(group.members), *result.shape[1:])
                    result = result * layers.keep_mask(own, skip_dropout, shape, result.dtype)
                direct[group.name] = result
                if not (group.operation.normalise and self.normalise_pools):
                    yield result, [_place(group, result.shape[0])]
        inputs = layers.relu(state)[None]
        where: dict[str, tuple[int, ...]] = {}
        for number, normalised in enumerate(norm_groups(groups, self.normalise_pools), start=1):
            active = [group for group in normalised if group.operation.layers]
            results = self._layers(source, number, active, inputs, where) if active else []
            results += [direct[group.name] for group in normalised[len(active) :]]
            widths = [len(group.members) if group in active else direct[group.name].shape[0] for group in normalised]
            norm = norm_rows(normalised, widths, train)
            joined = jnp.concatenate(results) if len(results) > 1 else results[0]
            y = BatchNorm(norm.num_rows, self.affine, norm.reads, name=f"norm_{number}_from_{source}")(joined, train)
            yield y, [placed for placed in norm.placed if len(placed.group.operation.layers) <= number]
            inputs, where = layers.relu(y), {placed.group.name: placed.rows for placed in norm.placed}

    def _layers(
        self, source: int, number: int, groups: Sequence[Group], inputs: jax.Array, where: Mapping[str, tuple[int, ...]]
    ) -> list[jax.Array]:
        """One layer of each group, all separable convolutions together: rows in the order of the groups."""

        def read(chosen: Sequence[Group]) -> jax.Array:
            if inputs.shape[0] == 1:
                return inputs
            rows = [row for group in chosen for row in where[group.name]]
            if rows == list(range(rows[0], rows[0] + len(rows))):
                return inputs[rows[0] : rows[0] + len(rows)]
            return jnp.stack([inputs[row] for row in rows])

        modules: list[tuple[Group, Any]] = [
            (
                group,
                group.operation.layers[number - 1](
                    edges=len(group.members), name=f"{group.name}_from_{source}_{number}"
                ),
            )
            for group in groups
        ]
        results = []
        for is_separable, some in itertools.groupby(modules, key=lambda pair: isinstance(pair[1], Separable)):
            pairs = list(some)
            if is_separable:
                kernels = [module(inputs) for _, module in pairs]
                results.append(
                    separable_convs(read([group for group, _ in pairs]), kernels, pairs[0][1].stride, self.platform)
                )
            else:
                results += [module(read([group])) for group, module in pairs]
        return results

    def _add_up(self, outputs: jax.Array, placed: Sequence[Rows], gates: jax.Array) -> Iterator[tuple[int, jax.Array]]:
        """What the rows of an array add to each node that they lead to."""
        if not placed:
            return
        members = [member for rows in placed for member in rows.group.members]
        rows = [row for one in placed for row in one.rows]
        nodes = sorted({self.plan.connections[member].node for member in members})
        place = np.zeros((len(self.plan.connections), len(nodes), outputs.shape[0]))
        for member, row in zip(members, rows, strict=True):
            place[member, nodes.index(self.plan.connections[member].node), row] = 1
        if self.plan.passes or self.plan.constants:
            gates = gates[: len(self.plan.connections)]
        # It only places gates, but at default precision a GPU would shorten them to ten bits.
        matrix = jnp.einsum("mb,mnr->nrb", gates, jnp.asarray(place, gates.dtype), precision=jax.lax.Precision.HIGHEST)
        sums = layers.mix(matrix, outputs)
        for index, node in enumerate(nodes):
            yield node, sums[index]

    def _pass_by(self, source: int, state: jax.Array, gates: jax.Array) -> Iterator[tuple[int, jax.Array]]:
        """What the channels of a state that no operation gets add to each node, by the edges' gates."""
        edges = [index for index, (_, read) in enumerate(self.plan.passes) if read == source]
        if not edges:
            return
        rest = state[self.channels // self.plan.parts :]
        rest = layers.max_pool_2x2(rest) if self._stride(source) == 2 else rest
        first = len(self.plan.connections)
        matrix = jnp.stack([gates[first + edge] for edge in edges])[:, None]
        sums = layers.mix(matrix, rest[None])
        for row, edge in enumerate(edges):
            yield self.plan.passes[edge][0], sums[row]

    def _with_constants(self, node: int, state: jax.Array, gates: jax.Array) -> jax.Array:
        """A node's state with what its edges' constants add, float[B or 1] each."""
        first = len(self.plan.connections) + len(self.plan.passes)
        rows = [first + row for row, (to, _) in enumerate(self.plan.constants) if to == node]
        return state + gates[rows[0] : rows[-1] + 1].sum(axis=0) if rows else state

    def _stride(self, source: int) -> int:
        return 2 if self.reduction and source < self.plan.num_inputs else 1

    def _key(self, key: jax.Array | None, group: Group, train: bool) -> jax.Array | None:
        if not group.operation.random:
            return None
        if key is None:
            if train and not self.is_initializing():
                raise InputError(f"key: a network with the operation {group.name!r} needs a random key in training")
            return None
        return jax.random.fold_in(key, group.members[0])

    def _nothing(self, cell_input: jax.Array) -> jax.Array:
        """The state of a node that only `none` leads to."""
        channels, height, width, batch = cell_input.shape
        stride = 2 if self.reduction else 1
        return jnp.zeros((channels, -(-height // stride), -(-width // stride), batch), cell_input.dtype)


class NormRows(NamedTuple):
    """How the rows of a batch norm's statistics belong to connections, and to the rows that it normalises."""

    num_rows: int
    reads: tuple[int, ...] | None  # as in BatchNorm
    placed: list[Rows]  # where each group's results stand after it


def norm_groups(groups: Sequence[Group], normalise_pools: bool) -> list[list[Group]]:
    """The groups whose results go into each batch norm of one state's operations, in the order of rows.

    First those with layers, then pools, which only the first batch norm takes.
    """
    depth = max((len(group.operation.layers) for group in groups), default=0)
    found = [[group for group in groups if len(group.operation.layers) > number] for number in range(depth)]
    pools = [group for group in groups if normalise_pools and group.operation.normalise]
    return [found[0] + pools, *found[1:]] if found else [pools] if pools else []


def norm_rows(groups: Sequence[Group], widths: Sequence[int], train: bool) -> NormRows:
    """A row of statistics for each connection, in the order of groups and their members.

    Args:
      groups: what is normalised together.
      widths: each group's input rows: one a member, or one for all.
      train: whether one row for all stays one, or becomes one a member.
    """
    reads: list[int] = []
    placed = []
    start = 0
    for group, width in zip(groups, widths, strict=True):
        own = [start + (index if width > 1 else 0) for index in range(len(group.members))]
        placed.append(Rows(group, tuple(own if train else range(len(reads), len(reads) + len(own)))))
        reads += own
        start += width
    return NormRows(len(reads), None if reads == list(range(start)) else tuple(reads), placed)


def _place(group: Group, width: int) -> Rows:
    return Rows(group, tuple(index if width > 1 else 0 for index in range(len(group.members))))
