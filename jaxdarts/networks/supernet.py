"""The relaxed network: every edge of every cell is a weighted sum of all its candidate operations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan, Connection
from jaxdarts.networks.layers import keep_mask
from jaxdarts.networks.macro import MACROS, Block
from jaxdarts.networks.remat import rematerialise
from jaxdarts.networks.stem import Classifier, ResidualReduction, Stem
from jaxdarts.spaces import CellSpace

Alpha = dict[str, jax.Array]


class Weights(NamedTuple):
    """What a search network is mixed by, for each of the space's cell types."""

    operations: Mapping[str, jax.Array]  # float[edges, operations], of every candidate
    edges: Mapping[str, jax.Array] | None = None  # float[edges], multiply all of an edge; None: not in the program
    constants: Mapping[str, jax.Array] | None = None  # float[edges], added to all of an edge's result; None: as above


class Supernet(nn.Module):
    """The search network of DARTS (Liu et al. 2019) and RobustDARTS, as a pure function of *mixing weights*.

    The space says how cells become a network (`networks/macro.py`), so it is also that of NAS-Bench-201 (Dong and Yang
    2020). In the spaces of DARTS the cells at
    `num_cells // 3` and `2 * num_cells // 3` are reduction cells and double the channels. Candidates and preprocessing
    have no affine batch norm, in the spaces of DARTS pools have a batch norm of their own.

    Attributes:
      space: the search space.
      num_classes: outputs.
      channels: C, channels of the first cell's nodes.
      num_cells: cells in the chain; of NAS-Bench-201 in each of the three stages.
      remat: in training, keep only what goes into each of this many first blocks for the backward pass, and compute
        what is inside again (`rematerialise`); a residual block is as it is. The first blocks keep most: a reduction
        halves what a cell holds.
      auxiliary_skip: every edge has a skip connection beside its candidates (Chu et al. 2021): the identity, or a
        factorised reduction with weights of its own. It enters with the coefficient that a call gives.
      partial_channels: K of PC-DARTS (Xu et al. 2020): the first 1/K of a state's channels go through an edge's
        operations and the others pass by, through a 2x2 max pool where the edge has stride 2; then the channels of the
        K parts are taken in turn. Weights of edges act on both. K divides the channels; 1: all go through operations.
      skip_dropout: in training elements that pass an identity may be dropped at random (Chen et al. 2019), with the
        probability that a call gives.
      final_norm: the classifier begins with a batch norm and a ReLU (Gu et al. 2021), also where the space's
        macro architecture has none.
      platform: what programs are made for, e.g. `cuda`, where that isn't JAX's default backend (`jax.export`). It
        changes how the network is computed, not what.
    """

    space: CellSpace
    num_classes: int
    channels: int = 16
    num_cells: int = 8
    remat: int = 0
    auxiliary_skip: bool = False
    partial_channels: int = 1
    skip_dropout: bool = False
    final_norm: bool = False
    platform: str | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The chain between stem and classifier."""
        return tuple(MACROS[self.space.macro].blocks(self.num_cells, self.channels))

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        weights: Weights | Mapping[str, jax.Array],
        *,
        train: bool = False,
        drop_path: jax.Array | float | None = None,
        auxiliary_skip: jax.Array | float | None = None,
        skip_dropout: jax.Array | float | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Class scores.

        Args:
          images: float[B, H, W, channels], H and W at least 8; odd sizes are rounded up when halved.
          weights: float[edges, operations] for each of the space's cell types, e.g. `softmax(alpha)`; used as they are.
            As `Weights` also float[edges], which multiply whole edges (Xu et al. 2020, edge normalisation), and
            float[edges], each added to the edge's result at every channel and position (Dong and Yang 2019).
          train: normalise by the batch's statistics (and update the running ones where the collection is mutable).
          drop_path: probability with which an edge's whole mixed result is dropped for one image (Zela et al. 2020).
            None leaves it out of the program. Used only with a key and in training; may be traced.
          auxiliary_skip: coefficient of the auxiliary skip connections, in a network that has them; may be traced.
          skip_dropout: with which probability an element that passes an identity is dropped, in a network that does
            that. Used only with a key and in training; may be traced.
          key: randomness of drop path, of dropped elements and of the operation `noise`.

        Returns:
          float[B, num_classes].
        """
        if self.partial_channels < 1 or self.channels % self.partial_channels:
            raise InputError(f"partial_channels must divide the channels, {self.channels}; got {self.partial_channels}")
        if self.is_initializing() and self.auxiliary_skip:
            auxiliary_skip = 1.0
        if (auxiliary_skip is not None) != self.auxiliary_skip:
            has = "has" if self.auxiliary_skip else "has no"
            raise InputError(f"auxiliary_skip: the network {has} auxiliary skip connections; got {auxiliary_skip!r}")
        if skip_dropout is not None and not self.skip_dropout:
            raise InputError(f"skip_dropout: the network drops no elements; got {skip_dropout!r}")
        weights = weights if isinstance(weights, Weights) else Weights(weights)
        drops = train and key is not None and skip_dropout is not None
        dropout = jnp.asarray(skip_dropout, images.dtype) if drops else None
        macro = MACROS[self.space.macro]
        before = last = Stem(macro.stem_factor * self.channels, name="stem")(images, train)
        for index, (cell_type, channels, reduction, previous_reduction) in enumerate(self.blocks):
            if cell_type is None:
                before, last = last, ResidualReduction(channels, name=f"cell_{index}")(last, train)
                continue
            edges, columns, plan = supernet_plan(
                self.space, cell_type, self.auxiliary_skip, self.partial_channels, weights.constants is not None
            )
            gates = _gates(weights, cell_type, edges, columns, auxiliary_skip, passing=bool(plan.passes))
            drop_key = noise_key = None
            if key is not None:
                drop_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
            if train and drop_key is not None and drop_path is not None:
                kept = keep_mask(drop_key, drop_path, (self.space.num_edges, images.shape[0]), images.dtype)
                gates = gates * kept[edges]
            cell = Cell(
                plan,
                channels,
                reduction=reduction,
                previous_reduction=previous_reduction,
                affine=False,
                normalise_pools=macro.normalise_pools,
                platform=self.platform,
                name=f"cell_{index}",
            )
            if index < self.remat and train and not self.is_initializing():
                output = self._rematerialised(cell, before, last, gates, noise_key, dropout)
            else:
                output = cell(before, last, gates, train, noise_key, dropout)
            before, last = last, output
        normalise = macro.final_norm or self.final_norm
        return Classifier(self.num_classes, normalise, name="classifier")(last, train)

    def _rematerialised(
        self,
        cell: Cell,
        before: jax.Array,
        last: jax.Array,
        gates: jax.Array,
        key: jax.Array | None,
        skip_dropout: jax.Array | None,
    ) -> jax.Array:
        """A cell's output in training, of which the backward pass keeps only the inputs."""
        unbound, variables = cell.unbind()

        def compute(params: Any, inputs: tuple[jax.Array, ...], fixed: tuple[Any, ...]) -> tuple[jax.Array, Any]:
            batch_stats, key, skip_dropout = fixed
            output, updated = unbound.apply(
                {"params": params, "batch_stats": batch_stats},
                *inputs,
                True,
                key,
                skip_dropout,
                mutable=["batch_stats"],
            )
            return output, updated["batch_stats"]

        inputs, fixed = (before, last, gates), (variables["batch_stats"], key, skip_dropout)
        output, batch_stats = rematerialise(compute)(variables["params"], inputs, fixed)
        if self.is_mutable_collection("batch_stats"):
            self.put_variable("batch_stats", str(cell.name), batch_stats)
        return output


def _gates(
    weights: Weights,
    cell_type: str,
    rows: np.ndarray,
    columns: np.ndarray,
    auxiliary: jax.Array | float | None,
    passing: bool,
) -> jax.Array:
    """What each connection of a cell, each edge that channels pass by on and each constant's 1 is multiplied by.

    float[rows, 1].
    """
    matrix = weights.operations[cell_type]
    edges = None if weights.edges is None else weights.edges[cell_type]
    if edges is not None:
        matrix = matrix * edges[:, None]
    gates = [_entries(matrix, rows[: len(columns)], columns)]
    if len(rows) > len(columns):
        whole = jnp.ones(matrix.shape[0], matrix.dtype) if edges is None else edges
        gates += [] if auxiliary is None else [jnp.asarray(auxiliary, matrix.dtype) * whole]
        gates += [whole] if passing else []
        gates += [] if weights.constants is None else [weights.constants[cell_type] * whole]
    return _join(gates)[:, None]


def _entries(matrix: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """matrix[rows, columns] by slices: the reverse of an indexed read is a loop over the entries."""
    if len(rows) == matrix.size:
        return matrix.reshape(-1)
    flat = matrix.reshape(-1)
    places = rows * matrix.shape[1] + columns
    breaks = [0, *(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    return jnp.concatenate([flat[places[a] : places[b - 1] + 1] for a, b in itertools.pairwise(breaks)])


def _join(arrays: list[jax.Array]) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def supernet_plan(
    space: CellSpace,
    cell_type: str,
    auxiliary_skip: bool = False,
    partial_channels: int = 1,
    constants: bool = False,
) -> tuple[np.ndarray, np.ndarray, CellPlan]:
    """Every candidate of every edge as a connection, with its row (edge) and column (operation) in alpha.

    The auxiliary skip connections come after all candidates, then the edges that channels pass by on, and then the
    edges' constants: rows without a column.
    """
    rows, columns, connections = [], [], []
    for edge, ((node, source), operations) in enumerate(zip(space.edges, space.operations(cell_type), strict=True)):
        for column, operation in enumerate(operations):
            rows.append(edge)
            columns.append(column)
            connections.append(Connection(node, source, operation))
    if auxiliary_skip:
        rows += range(space.num_edges)
        connections += [Connection(node, source, "skip_connect") for node, source in space.edges]
    passes = space.edges if partial_channels > 1 else ()
    added = space.edges if constants else ()
    rows += [*range(len(passes)), *range(len(added))]
    plan = CellPlan(
        space.num_nodes, tuple(connections), space.concat, space.num_inputs, partial_channels, passes, added
    )
    return np.array(rows), np.array(columns), plan


def softmax_weights(space: CellSpace, alpha: Mapping[str, jax.Array]) -> Alpha:
    """DARTS' relaxation: softmax over each edge's candidates; 0 for entries that pad shorter candidate lists."""
    return {
        cell: jax.nn.softmax(jnp.where(jnp.asarray(space.mask(cell)), alpha[cell], -jnp.inf), axis=-1)
        if not space.mask(cell).all()
        else jax.nn.softmax(alpha[cell], axis=-1)
        for cell in space.cell_types
    }


def init_alpha(space: CellSpace, key: jax.Array, scale: float = 1e-3) -> Alpha:
    """Initial architecture parameters: `scale` times standard normal values, float32[edges, operations]."""
    keys = jax.random.split(key, len(space.cell_types))
    drawn = {
        cell: scale * jax.random.normal(cell_key, space.alpha_shape(cell))
        for cell, cell_key in zip(space.cell_types, keys, strict=True)
    }
    return {cell: values * space.mask(cell).astype(values.dtype) for cell, values in drawn.items()}
