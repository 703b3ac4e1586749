"""A genotype's network, trained from scratch to evaluate the genotype."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxdarts.networks import layers
from jaxdarts.networks.cell import Cell
from jaxdarts.networks.cell_plan import CellPlan, Connection
from jaxdarts.networks.layers import keep_mask
from jaxdarts.networks.macro import MACROS, Block
from jaxdarts.networks.operations import BatchNorm, PointwiseConv
from jaxdarts.networks.stem import Classifier, Linear, ResidualReduction, Stem
from jaxdarts.spaces import Architecture


class DiscreteNetwork(nn.Module):
    """The evaluation network of DARTS for CIFAR-sized images (Liu et al. 2019): affine batch norms, plain pools.

    A cell of NAS-Bench-201 has the network that the benchmark trains (Dong and Yang 2020), which is the same but for
    how cells become a network (`networks/macro.py`).

    Attributes:
      genotype: the cells. A node that doesn't exist is not concatenated: cells have channels for those that do.
      num_classes: outputs.
      channels: C, channels of the first cell's nodes.
      num_cells: cells in the chain; of NAS-Bench-201 in each of the three stages.
      auxiliary: also classify from the second reduction cell's output, in training. NAS-Bench-201 has no such head.
      platform: what programs are made for, e.g. `cuda`, where that isn't JAX's default backend (`jax.export`). It
        changes how the network is computed, not what.
    """

    genotype: Architecture
    num_classes: int
    channels: int = 36
    num_cells: int = 20
    auxiliary: bool = True
    platform: str | None = None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The chain between stem and classifier."""
        return tuple(MACROS[self.genotype.macro].blocks(self.num_cells, self.channels))

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        drop_path: jax.Array | float | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Class scores, and those of the auxiliary head (None outside training or without one).

        Args:
          images: float[B, H, W, channels], H and W at least 8; odd sizes are rounded up when halved.
          train: normalise by the batch's statistics.
          drop_path: probability with which one operation's result is dropped for one image, identities excepted.
            None leaves it out of the program.
          key: randomness of drop path and of `noise`.

        Returns:
          float[B, num_classes], and the same or None.
        """
        macro = MACROS[self.genotype.macro]
        before = last = Stem(macro.stem_factor * self.channels, name="stem")(images, train)
        auxiliary_scores = None
        for index, (cell_type, channels, reduction, previous_reduction) in enumerate(self.blocks):
            if cell_type is None:
                before, last = last, ResidualReduction(channels, name=f"cell_{index}")(last, train)
                continue
            plan = discrete_plan(self.genotype, cell_type)
            gates = jnp.ones((len(plan.connections), 1), images.dtype)
            noise_key = None
            if key is not None:
                drop_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
                if train and drop_path is not None:
                    # Differs from FairDARTS, which drops a node's sum at once, identities among it: as DARTS.
                    kept = keep_mask(drop_key, drop_path, (len(plan.connections), images.shape[0]), images.dtype)
                    exempt = jnp.array([_is_identity(connection, reduction) for connection in plan.connections])
                    gates = jnp.where(exempt[:, None], 1, kept)
            cell = Cell(
                plan,
                channels,
                reduction=reduction,
                previous_reduction=previous_reduction,
                affine=True,
                normalise_pools=False,
                platform=self.platform,
                name=f"cell_{index}",
            )
            before, last = last, cell(before, last, gates, train, noise_key)
            has_head = self.auxiliary and macro.auxiliary and index == 2 * self.num_cells // 3
            if has_head and (train or self.is_initializing()):
                auxiliary_scores = AuxiliaryHead(self.num_classes, name="auxiliary_head")(last, train)
        scores = Classifier(self.num_classes, macro.final_norm, name="classifier")(last, train)
        return scores, auxiliary_scores


class AuxiliaryHead(nn.Module):
    """ReLU, mean pooling to 2x2, 1x1 to 128, batch norm, ReLU, 2x2 to 768, batch norm, ReLU, linear.

    The reference pools 5x5 with stride 3, which gives a 2x2 map for sizes 8 to 10 only. Those are pooled the same here;
    for any other size the windows lie in the corners and overlap in the same proportion as for 8x8.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = layers.relu(x)
        for axis in (1, 2):
            size = y.shape[axis]
            window = 5 if 8 <= size <= 10 else -(-5 * size // 8)
            second = 3 if 8 <= size <= 10 else size - window
            corners = (lax.slice_in_dim(y, start, start + window, axis=axis) for start in (0, second))
            y = jnp.concatenate([corner.mean(axis=axis, keepdims=True) for corner in corners], axis=axis)
        y = PointwiseConv(128, name="conv_1")(y[None])
        y = layers.relu(BatchNorm(name="norm_1")([y], train)[0])
        # A 2x2 convolution of a 2x2 map is a linear layer.
        y = PointwiseConv(768, name="conv_2")(y.reshape(1, -1, 1, 1, y.shape[-1]))
        y = layers.relu(BatchNorm(name="norm_2")([y], train)[0])
        return Linear(self.num_classes, name="classifier")(y[0, :, 0, 0].T)


def discrete_plan(genotype: Architecture, cell_type: str) -> CellPlan:
    """The chosen operations as connections, in the genotype's order."""
    edges = zip(genotype.nodes(cell_type), genotype.edges(cell_type), strict=True)
    connections = tuple(Connection(node, source, operation) for node, (operation, source) in edges)
    return CellPlan(genotype.num_nodes, connections, genotype.concat(cell_type), genotype.num_inputs)


def _is_identity(connection: Connection, reduction: bool) -> bool:
    return connection.operation == "skip_connect" and not (reduction and connection.source < 2)
