"""How does one cell compute, relaxed or discrete? Both are a list of connections with a gate on each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdarts.errors import InputError
from jaxdarts.networks import kernels, layers
from jaxdarts.networks.cell_plan import CellPlan, Group
from jaxdarts.networks.layers import Normalised
from jaxdarts.networks.operations import BatchNorm, FactorizedReduce, PointwiseConv, Separable
from jaxdarts.networks.rows import Piece, Read, Rows, joined, norm_groups, norm_rows, piece_of, place, read_together
from jaxdarts.networks.separable import separable_convs


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
        noise = self._noise((active, *self._node_shape(states[0])[1:]), states[0].dtype, key, train)
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
            results = [one for one in self._outputs(source, state, train, noise, key, skip_dropout) if one[1]]
            # A kernel reads all arrays in one pass.
            together = gates.shape[-1] == 1 and kernels.usable(state.dtype, self.platform)
            for some in [results] if together and results else [[one] for one in results]:
                for node, term in self._add_up(some, gates, together):
                    incoming[node].append(term)
            for node, term in self._pass_by(source, states[source], gates):
                passing[node].append(term)
        return jnp.concatenate([states[state] for state in self.plan.concat], axis=0)

    def _preprocess(self, before: jax.Array, last: jax.Array, train: bool) -> list[jax.Array]:
        """ReLU, 1x1 convolution (a factorised reduction where the sizes differ), batch norm."""
        layer = FactorizedReduce if self.previous_reduction else PointwiseConv
        modules = [layer(self.channels, name="preprocess_0"), PointwiseConv(self.channels, name="preprocess_1")]
        pairs = zip(modules, (before, last), strict=True)
        norm = BatchNorm(2, self.affine, name="preprocess_norm")
        if train and kernels.usable(last.dtype, self.platform):
            results = norm([module.normalised(lax.expand_dims(x, (0,))) for module, x in pairs], train)
        else:
            results = norm([jnp.concatenate([module(layers.relu(x)[None]) for module, x in pairs])], train)
        return [row for rows in results for row in rows]

    def _outputs(
        self,
        source: int,
        state: jax.Array,
        train: bool,
        noise: Mapping[tuple[int, ...], jax.Array],
        key: jax.Array | None,
        skip_dropout: jax.Array | None,
    ) -> Iterator[tuple[jax.Array, list[Rows]]]:
        """What every group that reads a state computes: arrays float[rows, C, H', W', B] and whose rows they are."""
        stride = self._stride(source)
        groups = self.plan.groups(source, stride)
        direct: dict[str, jax.Array | Normalised] = {}
        with_kernels = train and kernels.usable(state.dtype, self.platform)
        row = lax.expand_dims(state, (0,))
        for group in groups:
            normalised = group.operation.normalise and self.normalise_pools
            if group.operation.random:
                yield noise[group.members], [place(group, len(group.members))]
            elif normalised and with_kernels and group.operation.kernel is not None:
                direct[group.name] = group.operation.kernel(row)
            elif group.operation.direct is not None and not group.operation.layers:
                result = group.operation.direct(row, stride)
                if group.operation.drops and skip_dropout is not None and key is not None:
                    own = jax.random.fold_in(key, group.members[0])
                    shape = (len(group.members), *result.shape[1:])
                    result = result * layers.keep_mask(own, skip_dropout, shape, result.dtype)
                direct[group.name] = result
                if not normalised:
                    yield result, [place(group, result.shape[0])]
        reads = dict.fromkeys((group.name for group in groups), Read(row))
        for number, members in enumerate(norm_groups(groups, self.normalise_pools), start=1):
            active = [group for group in members if group.operation.layers]
            pieces = self._layers(source, number, active, reads, with_kernels)
            pieces += [piece_of(group, direct[group.name]) for group in members[len(active) :]]
            pieces = joined(pieces)
            widths = [width for piece in pieces for width in piece.widths]
            norm = norm_rows(members, widths, train)
            module = BatchNorm(norm.num_rows, self.affine, norm.reads, name=f"norm_{number}_from_{source}")
            results = module([piece.result for piece in pieces], train)
            for y, placed in zip(results, norm.of_pieces(pieces), strict=True):
                yield y, [one for one in placed if len(one.group.operation.layers) <= number]
                reads |= {one.group.name: Read(y, one.rows) for one in placed}

    def _layers(
        self, source: int, number: int, groups: Sequence[Group], reads: Mapping[str, Read], with_kernels: bool
    ) -> list[Piece]:
        """One layer of each group, in their order. What kernels compute is normalised already."""
        found = []
        modules: list[tuple[Group, Any]] = [
            (
                group,
                group.operation.layers[number - 1](
                    edges=len(group.members), name=f"{group.name}_from_{source}_{number}"
                ),
            )
            for group in groups
        ]
        for is_separable, some in itertools.groupby(modules, key=lambda pair: isinstance(pair[1], Separable)):
            pairs = list(some)
            chosen = tuple(group for group, _ in pairs)
            if not is_separable:
                for group, module in pairs:
                    if with_kernels and isinstance(module, FactorizedReduce):
                        found.append(piece_of(group, module.normalised(reads[group.name].own())))
                    else:
                        found.append(piece_of(group, module(read_together([reads[group.name]]))))
                continue
            weights = [module(reads[group.name].array) for group, module in pairs]
            stride = pairs[0][1].stride
            if with_kernels:
                for group, (depthwise, pointwise, dilation) in zip(chosen, weights, strict=True):
                    own = reads[group.name].own()
                    found.append(piece_of(group, kernels.separable_norm(own, depthwise, pointwise, stride, dilation)))
            else:
                inputs = read_together([reads[group.name] for group in chosen])
                result = separable_convs(inputs, weights, stride, self.platform)
                found.append(Piece(chosen, tuple(len(group.members) for group in chosen), result))
        return found

    def _add_up(
        self, results: Sequence[tuple[jax.Array, list[Rows]]], gates: jax.Array, with_kernel: bool
    ) -> Iterator[tuple[int, jax.Array]]:
        """What the rows of some arrays add to each node that they lead to."""
        members, rows, count = [], [], 0
        for outputs, placed in results:
            members += [member for one in placed for member in one.group.members]
            rows += [count + row for one in placed for row in one.rows]
            count += outputs.shape[0]
        nodes = sorted({self.plan.connections[member].node for member in members})
        where = np.zeros((len(self.plan.connections), len(nodes), count), bool)
        for member, row in zip(members, rows, strict=True):
            where[member, nodes.index(self.plan.connections[member].node), row] = True
        if self.plan.passes or self.plan.constants:
            gates = gates[: len(self.plan.connections)]
        arrays = tuple(outputs for outputs, _ in results)
        if not with_kernel:
            sums: Sequence[jax.Array] | jax.Array = layers.mix(_placed(gates, where), *arrays)
        elif where.sum(axis=0).max() > 1:  # a node takes a row by several gates: an auxiliary skip beside a skip
            sums = kernels.mix(_placed(gates, where), arrays)
        else:
            sums = kernels.mix(gates, arrays, np.where(where.any(axis=0), where.argmax(axis=0), -1))
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

    def _noise(
        self, shape: tuple[int, ...], dtype: jnp.dtype, key: jax.Array | None, train: bool
    ) -> dict[tuple[int, ...], jax.Array]:
        """By their members what the groups of random operations draw, float[members, *shape], a key a group."""
        sources = range(self.plan.num_nodes + self.plan.num_inputs)
        groups = [group for source in sources for group in self.plan.groups(source, self._stride(source))]
        groups = [group for group in groups if group.operation.random]
        if not groups:
            return {}
        if key is None and train and not self.is_initializing():
            raise InputError(f"key: a network with the operation {groups[0].name!r} needs a random key in training")
        own = [jax.random.key(0) if key is None else jax.random.fold_in(key, group.members[0]) for group in groups]
        largest = max(len(group.members) for group in groups) * math.prod(shape)
        # By one generator, of numbers in a line: to compile one for each group took 40 s in a search of S4, and one of
        # five axes takes five times as long. JAX draws the same numbers however long the line is and of whatever axes.
        drawn = jax.vmap(lambda one: jax.random.normal(one, (largest,), dtype))(jnp.stack(own))
        return {
            group.members: numbers[: len(group.members) * math.prod(shape)].reshape(-1, *shape)
            for group, numbers in zip(groups, drawn, strict=True)
        }

    def _nothing(self, cell_input: jax.Array) -> jax.Array:
        """The state of a node that only `none` leads to."""
        return jnp.zeros(self._node_shape(cell_input), cell_input.dtype)

    def _node_shape(self, cell_input: jax.Array) -> tuple[int, ...]:
        channels, height, width, batch = cell_input.shape
        stride = 2 if self.reduction else 1
        return channels, -(-height // stride), -(-width // stride), batch


def _placed(gates: jax.Array, where: np.ndarray) -> jax.Array:
    """float[M, B or 1], bool[M, N, R] -> float[N, R, B or 1]."""
    # It only places gates, but at default precision a GPU would shorten them to ten bits.
    return jnp.einsum("mb,mnr->nrb", gates, jnp.asarray(where, gates.dtype), precision=jax.lax.Precision.HIGHEST)
