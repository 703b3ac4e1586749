"""How does a recurrent cell read text: the relaxed cell of a search, and the cell of a genotype?

Liu et al. 2019, sections 2.1 and 3.1, as their code has it. Axis letters: T time steps, B examples side by side, H
hidden units, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdarts.networks.kernels import gated_activations, usable
from jaxdarts.networks.kernels.recurrent import ACTIVATIONS as KERNEL_ACTIVATIONS
from jaxdarts.networks.layers import keep_mask
from jaxdarts.networks.remat import rematerialised_scan
from jaxdarts.networks.supernet import Weights
from jaxdarts.spaces import RecurrentGenotype, RecurrentSpace

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}
"""By name; `none`, which gives nothing, is not among them."""
CELL = "recurrent"  # the only cell type
_RANGE = 0.04  # of initial weights: uniform between -0.04 and 0.04
_EPSILON, _MOMENTUM = 1e-5, 0.9  # of the search cell's batch norm


@dataclass(frozen=True)
class Dropouts:
    """Probabilities with which parts of a text network are dropped in training."""

    output: float = 0.0  # of what the logits are made of, the same at every time step
    hidden: float = 0.0  # of states where they enter the cell's products
    x: float = 0.0  # of the input where it enters the cell's product
    inputs: float = 0.0  # of the embedded input, the same at every time step
    embedding: float = 0.0  # of whole words of the input

    @property
    def any(self) -> bool:
        """Whether something is dropped."""
        return any((self.output, self.hidden, self.x, self.inputs, self.embedding))


class Masks(NamedTuple):
    """What one forward pass keeps, divided by the probability to be kept."""

    embedding: jax.Array  # float[V, 1], of the input only
    inputs: jax.Array  # float[1, B, H]
    x: jax.Array  # float[B, H]
    hidden: jax.Array  # float[B, H]; what is carried on isn't masked
    output: jax.Array  # float[1, B, H]


class TextOutputs(NamedTuple):
    """What a network makes of a stretch of text. Time steps from the stretch's length on mean nothing."""

    logits: jax.Array  # float[T, B, V]
    raw: jax.Array  # float[T, B, H]: what the cell gives
    dropped: jax.Array  # float[T, B, H]: what the logits are made of


class _Kernels(NamedTuple):
    embedding: jax.Array  # float[V, H]; also makes the logits
    bias: jax.Array  # float[V]
    first: jax.Array  # float[2 H, 2 H]: of state 0, rows of the input and then of the hidden state
    nodes: jax.Array  # float[nodes, H, 2 H]


_Cell: TypeAlias = Callable[[Sequence[jax.Array], jax.Array, jax.Array | None, Any], tuple[jax.Array, Any]]
"""(kernel float[H, 2 H] of each node, state 0, mask of states, statistics) -> output float[B, H], statistics"""


def draw_masks(
    key: jax.Array, dropouts: Dropouts, words: int, examples: int, hidden: int, scale: jax.Array | float, dtype: Any
) -> Masks:
    """The masks of one forward pass. `scale` multiplies every probability and may be traced."""
    locked, own = (1, examples, hidden), (examples, hidden)
    shapes = Masks((words, 1), locked, own, own, locked)  # type: ignore[arg-type]
    rates = Masks(dropouts.embedding, dropouts.inputs, dropouts.x, dropouts.hidden, dropouts.output)  # type: ignore[arg-type]
    keys = jax.random.split(key, len(rates))
    return Masks(
        *(
            keep_mask(key, rate * jnp.asarray(scale, dtype), shape, dtype) if rate else jnp.ones(shape, dtype)  # type: ignore[arg-type, operator]
            for key, rate, shape in zip(keys, rates, shapes, strict=True)
        )
    )


class TextSupernet(nn.Module):
    """The search network of recurrent cells, as a pure function of mixing weights.

    A node adds, over all states before it and all activations, `p (s + c (f(h) - s))`, where c (a sigmoid) and h are
    the halves of the state's product with the node's kernel, and is normalised over the batch like state 0, by one
    batch norm without scale and bias whose running statistics mix all states and time steps.

    Attributes:
      space: the search space.
      words: V, the vocabulary.
      hidden: H, of the embedding and the cell.
      dropouts: see there.
      platform: what programs are made for, e.g. `cuda`, where that isn't JAX's default backend (`jax.export`).
    """

    space: RecurrentSpace
    words: int
    hidden: int
    dropouts: Dropouts = Dropouts()
    platform: str | None = None

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        hidden: jax.Array,
        weights: Weights,
        *,
        length: jax.Array | None = None,
        train: bool = False,
        masks: Masks | None = None,
    ) -> tuple[TextOutputs, jax.Array]:
        """What the cell makes of a text, and the hidden state after it.

        Args:
          tokens: int32[T, B].
          hidden: float[B, H], before the first of them.
          weights: float[edges, activations] at "recurrent", e.g. softmax of alpha; used as they are. float[edges], if
            there are any, multiply whole edges.
          length: int32 scalar, the time steps that count; the state stays as it is after them. None: all T.
          train: normalise by the batch's statistics (and update the running ones where the collection is mutable).
          masks: what is kept; None: everything.
        """
        kernels = _kernels(self, self.space.num_nodes)
        start = lambda value: lambda: jnp.full((self.hidden,), value, kernels.bias.dtype)  # noqa: E731
        mean = self.variable("batch_stats", "mean", start(0.0))
        variance = self.variable("batch_stats", "variance", start(1.0))
        names = _activations(self.space)
        by_kernel = usable(kernels.bias.dtype, self.platform) and set(names) <= set(KERNEL_ACTIVATIONS)
        cell = _relaxed_cell(self.space, weights, train, by_kernel)
        statistics = (mean.value, variance.value)
        outputs, hidden, statistics = _read(
            kernels, cell, tokens, hidden, statistics, length, masks, by_kernel=by_kernel
        )
        if train and self.is_mutable_collection("batch_stats") and not self.is_initializing():
            mean.value, variance.value = statistics
        return outputs, hidden


class TextNetwork(nn.Module):
    """A genotype's recurrent network: node i is `s + c (f(h) - s)` of the one state s that it reads.

    The output, which is also the hidden state, is the mean of the genotype's concatenated states. Attributes as those
    of `TextSupernet`.
    """

    genotype: RecurrentGenotype
    words: int
    hidden: int
    dropouts: Dropouts = Dropouts()

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        hidden: jax.Array,
        *,
        length: jax.Array | None = None,
        masks: Masks | None = None,
    ) -> tuple[TextOutputs, jax.Array]:
        """What the cell makes of a text, and the hidden state after it; arguments as of `TextSupernet`."""
        kernels = _kernels(self, self.genotype.num_nodes)
        outputs, hidden, _ = _read(
            kernels, _discrete_cell(self.genotype), tokens, hidden, (), length, masks, skips=True
        )
        return outputs, hidden


def _kernels(module: TextSupernet | TextNetwork, num_nodes: int) -> _Kernels:
    def uniform(key: jax.Array, shape: Sequence[int]) -> jax.Array:
        return jax.random.uniform(key, tuple(shape), minval=-_RANGE, maxval=_RANGE)

    size = module.hidden
    return _Kernels(
        module.param("embedding", uniform, (module.words, size)),
        module.param("bias", nn.initializers.zeros, (module.words,)),
        module.param("first", uniform, (2 * size, 2 * size)),
        module.param("nodes", uniform, (num_nodes, size, 2 * size)),
    )


def _read(
    kernels: _Kernels,
    cell: _Cell,
    tokens: jax.Array,
    hidden: jax.Array,
    statistics: Any,
    length: jax.Array | None,
    masks: Masks | None,
    skips: bool = False,
    by_kernel: bool = False,
) -> tuple[TextOutputs, jax.Array, Any]:
    """The outputs, and hidden state and statistics after `length` time steps.

    `skips`: later steps are not computed, logits included. That takes a branch and a product of its own in every step,
    and pays where texts are often much shorter than T.
    """
    rows = kernels.embedding if masks is None else kernels.embedding * masks.embedding
    x = rows[tokens]
    if masks is not None:
        x = x * (masks.inputs * masks.x)
    size, keep = hidden.shape[-1], None if masks is None else masks.hidden
    from_input = x @ kernels.first[:size]  # of all time steps at once
    # Apart from each other, since the derivative of a slice is as large as the whole, in every time step.
    from_hidden, nodes = kernels.first[size:], list(kernels.nodes)

    def decode(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        dropped = raw if masks is None else raw * masks.output
        return dropped, dropped @ kernels.embedding.T + kernels.bias

    def compute(hidden: jax.Array, before: Any, x: jax.Array) -> tuple[Any, Any]:
        gate, candidate = jnp.split(x + _masked(hidden, keep) @ from_hidden, 2, axis=-1)
        state = hidden + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - hidden)
        output, after = cell(nodes, state, keep, before)
        seen = (output, *(part[0] for part in decode(output[None]))) if skips else output
        return (output, after), seen

    def rest(hidden: jax.Array, before: Any, x: jax.Array) -> Any:
        nothing = jnp.zeros_like(hidden)
        logits = jnp.zeros((hidden.shape[0], kernels.bias.shape[0]), hidden.dtype)
        return (hidden, before), (nothing, nothing, logits)

    def step(carry: Any, inputs: Any) -> Any:
        time, x = inputs
        if length is None:
            return compute(carry[0], carry[1], x)
        if skips:
            return lax.cond(time < length, compute, rest, *carry, x)
        new, seen = compute(carry[0], carry[1], x)
        return jax.tree.map(lambda one, other: jnp.where(time < length, one, other), new, carry), seen

    times = jnp.arange(tokens.shape[0])
    # Computed again in the backward pass: reading what was kept takes longer, and six times the memory.
    if by_kernel:
        (hidden, statistics), seen = rematerialised_scan(step, (hidden, statistics), times, from_input)
    else:
        (hidden, statistics), seen = lax.scan(jax.checkpoint(step), (hidden, statistics), (times, from_input))
    raw, dropped, logits = seen if skips else (seen, *decode(seen))
    return TextOutputs(logits, raw, dropped), hidden, statistics


def _masked(states: jax.Array, keep: jax.Array | None) -> jax.Array:
    return states if keep is None else states * keep


def _masked_rows(states: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Of states below each other."""
    return states if keep is None else (states.reshape(-1, *keep.shape) * keep).reshape(states.shape)


def _discrete_cell(genotype: RecurrentGenotype) -> _Cell:
    def cell(
        kernels: Sequence[jax.Array], state: jax.Array, keep: jax.Array | None, statistics: Any
    ) -> tuple[jax.Array, Any]:
        states = [state]
        for node, (activation, source) in enumerate(genotype.edges(CELL)):
            before = states[source]
            gate, candidate = jnp.split(_masked(before, keep) @ kernels[node], 2, axis=-1)
            states.append(before + jax.nn.sigmoid(gate) * (ACTIVATIONS[activation](candidate) - before))
        kept = [states[index] for index in genotype.concat(CELL)]
        return sum(kept[1:], kept[0]) / len(kept), statistics

    return cell


def _relaxed_cell(space: RecurrentSpace, weights: Weights, train: bool, by_kernel: bool) -> _Cell:
    """One product a node over all the states that it reads, and one evaluation of each activation."""
    names, shares, total = _shares(space, weights)

    def cell(
        kernels: Sequence[jax.Array], state: jax.Array, keep: jax.Array | None, statistics: Any
    ) -> tuple[jax.Array, Any]:
        state, statistics = _normalised(state, statistics, train)
        # States below each other, and shares for each row: sums over units and then over examples, which the derivative
        # in the weights takes, are twice as fast on a CPU as sums over both.
        states, examples = state, len(state)
        for node in range(space.num_nodes):
            rows = space.incoming(node)
            products = _masked_rows(states, keep) @ kernels[node]
            if by_kernel:
                state = gated_activations(products, states, shares[rows], names)
            else:
                gate, candidate = jnp.split(products, 2, axis=-1)
                own = jnp.repeat(shares[rows], examples, axis=0)
                found = sum(own[:, column, None] * ACTIVATIONS[name](candidate) for column, name in enumerate(names))
                # Over activations the weights p of s + c (f(h) - s) add up, but for that of `none`: it gives nothing.
                kept = jnp.repeat(total[rows], examples)[:, None] * states
                mixed = kept + jax.nn.sigmoid(gate) * (found - kept)
                state = mixed.reshape(-1, *state.shape).sum(axis=0)
            if weights.constants is not None:
                state = state + weights.constants[CELL][rows].sum()
            state, statistics = _normalised(state, statistics, train)
            states = jnp.concatenate([states, state])
        return states.reshape(-1, *state.shape)[1:].mean(axis=0), statistics

    return cell


def _activations(space: RecurrentSpace) -> list[str]:
    return [name for name in space.operation_names if name != "none"]


def _shares(space: RecurrentSpace, weights: Weights) -> tuple[list[str], jax.Array, jax.Array]:
    """The activations of a space, how much of each is in an edge, float[edges, activations], and their sum."""
    names = _activations(space)
    candidates = space.operations(CELL)
    table = np.zeros((*space.alpha_shape(CELL), len(names)))
    for edge, own in enumerate(candidates):
        for column, name in enumerate(own):
            if name != "none":
                table[edge, column, names.index(name)] = 1
    given = weights.operations[CELL]
    if weights.edges is not None:
        given = given * weights.edges[CELL][:, None]
    shares = (given[:, :, None] * jnp.asarray(table, given.dtype)).sum(axis=1)
    return names, shares, shares.sum(axis=1)


def _normalised(state: jax.Array, statistics: Any, train: bool) -> tuple[jax.Array, Any]:
    mean, variance = statistics
    if not train:
        return (state - mean) * lax.rsqrt(variance + _EPSILON), statistics
    own = state.mean(axis=0)
    spread = jnp.square(state - own).mean(axis=0)
    # As in PyTorch the running variance is made of unbiased ones.
    unbiased = spread * (len(state) / max(len(state) - 1, 1))
    moved = [
        _MOMENTUM * old + (1 - _MOMENTUM) * lax.stop_gradient(new).astype(old.dtype)
        for old, new in ((mean, own), (variance, unbiased))
    ]
    return (state - own) * lax.rsqrt(spread + _EPSILON), tuple(moved)
