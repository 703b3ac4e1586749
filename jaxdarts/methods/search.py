"""What is a search method? Two pure functions over one state, which is also the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.methods.verdict import History, Verdict, go_on, nowhere
from jaxdarts.networks import Supernet, softmax_weights
from jaxdarts.networks.initial import one_pool
from jaxdarts.networks.supernet import Alpha
from jaxdarts.spaces import Architecture, CellSpace


class Batch(NamedTuple):
    """Images ready for the network, and their classes."""

    images: jax.Array  # float[B, H, W, channels]
    labels: jax.Array  # int32[B]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SearchState:
    """All that is carried from step to step, and nothing else is."""

    params: Any  # w: the supernet's weights
    batch_stats: Any  # running statistics of its batch norms
    alpha: Alpha  # float[edges, operations] for each of the space's cell types
    opt_state: optax.OptState  # of w; learning rate and L2 are traced values inside
    alpha_opt_state: optax.OptState
    method_state: Any  # what a method carries beside this; () for DARTS
    drop_path: jax.Array  # scalar, present drop-path probability
    key: jax.Array  # typed key; a step's randomness follows from it and `step`
    step: jax.Array  # int32 scalar, steps done
    temperature: jax.Array | None = None  # scalar that alpha is divided by before it is relaxed; None: 1, not compiled


class SearchInfo(NamedTuple):
    """What one step reports. Scalars."""

    train_loss: jax.Array  # inner objective before the w step, with the new alpha
    train_correct: jax.Array  # int32, train images classified correctly then
    alpha_loss: jax.Array  # outer objective where the hypergradient was taken (at w' for unrolled)
    hypergradient_norm: jax.Array


Relax = Callable[[CellSpace, Alpha], Alpha]
Score = Callable[[Mapping[str, np.ndarray], int | None], np.ndarray]
"""(mixing weights float[n, edges, operations], number of validation batches; None: all) -> accuracies float[n]"""


class Candidate(NamedTuple):
    """An architecture that a selection has looked at closely."""

    genotype: Architecture
    accuracy: float  # of the supernet restricted to it, on the whole validation half


class SearchMethod(NamedTuple):
    """A search method. `init` and `step` are pure: jit, vmap and donate freely. The others have defaults.

    `decide` is asked when an epoch has ended, except the last, and the run obeys; `returnable` tells it what to keep
    for that.
    """

    init: Callable[[jax.Array], SearchState]  # key -> state
    step: Callable[[SearchState, Batch, Batch], tuple[SearchState, SearchInfo]]  # state, train and valid batch
    decide: Callable[[History], Verdict] = go_on  # a pure function of what was measured
    returnable: Callable[[History], Collection[int]] = nowhere  # the epochs that later verdicts may name
    learns: frozenset[str] = frozenset({"params", "alpha"})  # which of these the steps train; others aren't measured
    relax: Relax | None = None  # how its alpha becomes mixing weights, if not as the problem says
    select: Callable[[Score, jax.Array], list[Candidate]] | None = None  # the result, best first, if not alpha's


class LossInputs(NamedTuple):
    """What the loss of a step depends on beside w and alpha."""

    batch: Batch
    batch_stats: Any
    drop_path: jax.Array | None = None  # None leaves it out of the program
    key: jax.Array | None = None  # of drop path and `noise`
    temperature: jax.Array | None = None  # of the relaxation; None leaves it out of the program


class SearchProblem(NamedTuple):
    """What is searched, independent of how."""

    space: CellSpace
    supernet: Supernet
    image_shape: tuple[int, int, int]  # height, width, channels
    dtype: Any = jnp.float32  # of w, alpha and statistics
    relax: Relax = softmax_weights  # alpha -> mixing weights
    compute_dtype: Any = None  # of what goes through the network in training; None: dtype

    @property
    def needs_key(self) -> bool:
        """Whether the network is random even without drop path."""
        return "noise" in self.space.operation_names

    def init_network(self, key: jax.Array) -> tuple[Any, Any]:
        """Weights and running statistics at the start."""
        weights = {cell: jnp.zeros(self.space.alpha_shape(cell), self.dtype) for cell in self.space.cell_types}
        images = jnp.zeros((1, *self.image_shape), self.dtype)
        # Not rematerialised: numbers from the pool must not leave the trace of one cell for another's.
        with one_pool(key):
            variables = self.supernet.clone(remat=0).init(key, images, weights)
        return variables["params"], variables.get("batch_stats", {})

    def mixing_weights(self, alpha: Alpha, temperature: jax.Array | None = None) -> Alpha:
        """What the supernet takes: the relaxation of alpha / temperature (None: 1), such as softmax(alpha / T)."""
        if temperature is not None:
            alpha = jax.tree.map(lambda leaf: leaf / temperature, alpha)
        return self.relax(self.space, alpha)

    def loss(self, params: Any, alpha: Alpha, inputs: LossInputs) -> tuple[jax.Array, NetworkResult]:
        """`train_mode_loss` as a `Bilevel` takes it, for both objectives.

        One function object a problem, so that what is compiled for it serves every step and the curvature.
        """
        return train_mode_loss(
            self,
            params,
            alpha,
            inputs.batch,
            batch_stats=inputs.batch_stats,
            drop_path=inputs.drop_path,
            key=inputs.key,
            temperature=inputs.temperature,
        )


def as_given(space: CellSpace, weights: Alpha) -> Alpha:
    """No relaxation: what stands for alpha are mixing weights already."""
    return weights


@jax.jit
def step_keys(key: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two keys for the randomness of one step."""
    first, second = jax.random.split(jax.random.fold_in(key, step))
    return first, second


class NetworkResult(NamedTuple):
    """Beside the loss: class scores float[B, classes], and the running statistics after this batch."""

    scores: jax.Array
    batch_stats: Any


def train_mode_loss(
    problem: SearchProblem,
    params: Any,
    alpha: Alpha,
    batch: Batch,
    *,
    batch_stats: Any,
    drop_path: jax.Array | float | None = None,
    key: jax.Array | None = None,
    temperature: jax.Array | None = None,
) -> tuple[jax.Array, NetworkResult]:
    """Mean cross-entropy of a batch, normalised by the batch's own statistics (both objectives of DARTS)."""
    # Without a dtype of its own the network computes in that of its arguments, float64 included.
    narrow = partial(narrow_to, dtype=problem.compute_dtype)
    scores, updated = problem.supernet.apply(
        {"params": narrow(params), "batch_stats": batch_stats},
        narrow(batch.images),
        narrow(problem.mixing_weights(alpha, temperature)),
        train=True,
        drop_path=drop_path,
        key=key,
        mutable=["batch_stats"],
    )
    scores = scores.astype(jax.tree.leaves(alpha)[0].dtype)
    return cross_entropy(scores, batch.labels).mean(), NetworkResult(scores, updated["batch_stats"])


def narrow_to(tree: Any, dtype: Any) -> Any:
    """A pytree of floats as `dtype`; None: as it is."""
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def eval_mode_sums(
    problem: SearchProblem,
    params: Any,
    alpha: Alpha,
    batch: Batch,
    mask: jax.Array,
    *,
    batch_stats: Any,
    temperature: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Sums over the examples where mask bool[B] holds, with the running statistics: cross-entropy, correct answers."""
    variables = {"params": params, "batch_stats": batch_stats}
    key = jax.random.key(0) if problem.needs_key else None  # the operation `noise` is on in evaluation too
    weights = problem.mixing_weights(alpha, temperature)
    scores: Any = problem.supernet.apply(variables, batch.images, weights, key=key)
    losses = cross_entropy(scores, batch.labels)
    correct = scores.argmax(axis=-1) == batch.labels
    return jnp.where(mask, losses, 0).sum(), (mask & correct).sum(dtype=jnp.int32)


def cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """float[B] from scores float[B, classes] and labels int[B]."""
    # Not by indexing with the labels, whose reverse is a loop over the batch.
    return optax.softmax_cross_entropy(scores, jax.nn.one_hot(labels, scores.shape[-1], dtype=scores.dtype))
