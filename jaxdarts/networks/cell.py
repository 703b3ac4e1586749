"""How does one cell compute, relaxed or discrete? Both are a list of connections with a gate on each."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import unknown_choice
from jaxdarts.networks import layers
from jaxdarts.networks.operations import OPERATIONS, FactorizedReduce, ReLUConvBN


@dataclass(frozen=True)
class Connection:
    """One operation that reads state `source` and adds to node `node` (state node + 2)."""

    node: int
    source: int
    operation: str


@dataclass(frozen=True)
class CellPlan:
    """A cell's connections and outputs: all that distinguishes a relaxed cell from a discrete one."""

    num_nodes: int
    connections: tuple[Connection, ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for connection in self.connections:
            if connection.operation not in OPERATIONS:
                raise unknown_choice("operation", connection.operation, OPERATIONS)

    def groups(self, source: int) -> dict[str, list[int]]:
        """Indices of the connections that read a state, by operation: these are computed together."""
        found: dict[str, list[int]] = {}
        for index, connection in enumerate(self.connections):
            if connection.source == source:
                found.setdefault(connection.operation, []).append(index)
        return found


class Cell(nn.Module):
    """A cell (Liu et al. 2019, section 2.1): preprocesses its two inputs, then every node is a gated sum.

    Edges that leave one state share what they can: its ReLU, pools with their batch norm, and one batched computation
    for all connections with the same operation. Parameters of the group of connections that apply an operation to state
    s are at `<operation>_from_<s>`, with a leading axis in the order of the plan's connections.
    """

    plan: CellPlan
    channels: int
    reduction: bool
    previous_reduction: bool
    affine: bool
    normalise_pools: bool

    @nn.compact
    def __call__(
        self, before: jax.Array, last: jax.Array, gates: jax.Array, train: bool, key: jax.Array | None
    ) -> jax.Array:
        """float[B, H, W, C] twice, gates float[connections, B or 1] -> float[B, H', W', channels * len(concat)]."""
        preprocess = FactorizedReduce if self.previous_reduction else ReLUConvBN
        states = [
            preprocess(self.channels, affine=self.affine, name="preprocess_0")(layers.relu(before)[None], train)[0],
            ReLUConvBN(self.channels, affine=self.affine, name="preprocess_1")(layers.relu(last)[None], train)[0],
        ]
        incoming: list[list[jax.Array]] = [[] for _ in range(self.plan.num_nodes)]
        for source in range(self.plan.num_nodes + 2):
            if source >= 2:
                terms = incoming[source - 2]
                states.append(sum(terms[1:], terms[0]) if terms else self._nothing(states[0]))
            state = states[source][None]
            rectified = layers.relu(state)
            for operation, members in self.plan.groups(source).items():
                module = OPERATIONS[operation](
                    edges=len(members),
                    stride=2 if self.reduction and source < 2 else 1,
                    affine=self.affine,
                    normalise_pools=self.normalise_pools,
                    name=f"{operation}_from_{source}",
                )
                group_key = None if key is None else jax.random.fold_in(key, members[0])
                output = module(state, rectified, train, group_key)
                if output is None:
                    continue
                gated = layers.gate(gates[np.array(members)], output)
                for member, term in zip(members, jax.lax.split(gated, (1,) * len(members)), strict=True):
                    incoming[self.plan.connections[member].node].append(term[0])
        return jnp.concatenate([states[state] for state in self.plan.concat], axis=-1)

    def _nothing(self, cell_input: jax.Array) -> jax.Array:
        """The state of a node that only `none` leads to."""
        batch, height, width, channels = cell_input.shape
        stride = 2 if self.reduction else 1
        return jnp.zeros((batch, -(-height // stride), -(-width // stride), channels), cell_input.dtype)
