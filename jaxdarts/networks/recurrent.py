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

from jaxdarts.networks.kernels import read_relaxed, usable
from jaxdarts.networks.kernels.recurrent import ACTIVATIONS as KERNEL_ACTIVATIONS
from jaxdarts.networks.layers import keep_mask
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
        statistics = (mean.value, variance.value)
        # Constants change nothing that is normalised by its own moments; the kernel knows nothing of them.
        if by_kernel and (train or weights.constants is None):
            outputs, hidden, statistics = _read_by_kernel(
                kernels, self.space, weights, tokens, hidden, statistics, length, masks, train
            )
        else:
            cell = _relaxed_cell(self.space, weights, train)
            outputs, hidden, statistics = _read(kernels, cell, tokens, hidden, statistics, length, masks)
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
) -> tuple[TextOutputs, jax.Array, Any]:
    """The outputs, and hidden state and statistics after `length` time steps.

    `skips`: later steps are not computed, logits included. That takes a branch and a product of its own in every step,
    and pays where texts are often much shorter than T.
    """
    size, keep = hidden.shape[-1], None if masks is None else masks.hidden
    from_input = _inputs(kernels, tokens, masks)
    # Apart from each other, since the derivative of a slice is as large as the whole, in every time step.
    from_hidden, nodes = kernels.first[size:], list(kernels.nodes)

    def compute(hidden: jax.Array, before: Any, x: jax.Array) -> tuple[Any, Any]:
        gate, candidate = jnp.split(x + _masked(hidden, keep) @ from_hidden, 2, axis=-1)
        state = hidden + jax.nn.sigmoid(gate) * (jnp.tanh(candidate) - hidden)
        output, after = cell(nodes, state, keep, before)
        seen = (output, *(part[0] for part in _decoded(kernels, output[None], masks))) if skips else output
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
    (hidden, statistics), seen = lax.scan(jax.checkpoint(step), (hidden, statistics), (times, from_input))
    raw, dropped, logits = seen if skips else (seen, *_decoded(kernels, seen, masks))
    return TextOutputs(logits, raw, dropped), hidden, statistics


def _read_by_kernel(
    kernels: _Kernels,
    space: RecurrentSpace,
    weights: Weights,
    tokens: jax.Array,
    hidden: jax.Array,
    statistics: tuple[jax.Array, jax.Array],
    length: jax.Array | None,
    masks: Masks | None,
    train: bool,
) -> tuple[TextOutputs, jax.Array, tuple[jax.Array, jax.Array]]:
    """What `_read` does with the relaxed cell."""
    (steps, examples), size = tokens.shape, hidden.shape[-1]
    names, shares, _ = _shares(space, weights)
    count = jnp.int32(steps) if length is None else length
    found = read_relaxed(
        _inputs(kernels, tokens, masks),
        hidden,
        jnp.concatenate([kernels.first[None, size:], kernels.nodes]),
        shares,
        names,
        length=count,
        keep=jnp.ones_like(hidden) if masks is None else masks.hidden,
        moments=None if train else jnp.stack(statistics),
    )
    raw = found.outputs
    last = lax.dynamic_index_in_dim(raw, jnp.maximum(count - 1, 0), keepdims=False)
    hidden = jnp.where(count > 0, last, hidden)
    if train:
        added = jnp.zeros((space.num_nodes + 1, 1), raw.dtype)
        if weights.constants is not None:
            totals = [weights.constants[CELL][space.incoming(node)].sum() for node in range(space.num_nodes)]
            added = added.at[1:, 0].set(lax.stop_gradient(jnp.stack(totals)))
        # Exponential means over all states of all time steps that count, each as it comes.
        values = (found.means + added, found.variances * (examples / max(examples - 1, 1)))
        moved = count * (space.num_nodes + 1)
        later = moved - 1 - jnp.arange(values[0].shape[0] * values[0].shape[1])
        share = jnp.where(later >= 0, (1 - _MOMENTUM) * _MOMENTUM ** jnp.maximum(later, 0).astype(raw.dtype), 0)
        statistics = tuple(
            _MOMENTUM ** moved.astype(raw.dtype) * old + (share @ new.reshape(-1, size)).astype(old.dtype)
            for old, new in zip(statistics, values, strict=True)
        )  # type: ignore[assignment]
    dropped, logits = _decoded(kernels, raw, masks)
    return TextOutputs(logits, raw, dropped), hidden, statistics


def _inputs(kernels: _Kernels, tokens: jax.Array, masks: Masks | None) -> jax.Array:
    """What the first state's product gets from the words of all time steps, float[T, B, 2 H]."""
    rows = kernels.embedding if masks is None else kernels.embedding * masks.embedding
    x = rows[tokens]
    if masks is not None:
        x = x * (masks.inputs * masks.x)
    return x @ kernels.first[: x.shape[-1]]


def _decoded(kernels: _Kernels, raw: jax.Array, masks: Masks | None) -> tuple[jax.Array, jax.Array]:
    """What the logits are made of, and the logits."""
    dropped = raw if masks is None else raw * masks.output
    return dropped, dropped @ kernels.embedding.T + kernels.bias


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


def _relaxed_cell(space: RecurrentSpace, weights: Weights, train: bool) -> _Cell:
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
