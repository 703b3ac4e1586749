"""How is a genotype's network trained from scratch? Two pure functions over one state, as in a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel import apply_update
from jaxdarts.methods.search import Batch, NetworkResult, cross_entropy, narrow_to
from jaxdarts.networks import DiscreteNetwork
from jaxdarts.networks.initial import one_pool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RetrainState:
    """All that is carried from step to step, and nothing else is."""

    params: Any  # the network's weights
    batch_stats: Any  # running statistics of its batch norms
    opt_state: optax.OptState  # learning rate and L2 are traced values inside
    drop_path: jax.Array  # scalar, present drop-path probability
    key: jax.Array  # typed key; a step's randomness follows from it and `step`
    step: jax.Array  # int32 scalar, steps done


class RetrainInfo(NamedTuple):
    """What one step reports. Scalars."""

    train_loss: jax.Array  # cross-entropy of the network's own scores
    train_correct: jax.Array  # int32, images classified correctly by them
    auxiliary_loss: jax.Array  # cross-entropy of the auxiliary head; 0 without one
    gradient_norm: jax.Array  # before it is clipped


class RetrainMethod(NamedTuple):
    """How a network is trained. Both functions are pure: jit, vmap and donate freely."""

    init: Callable[[jax.Array], RetrainState]  # key -> state
    step: Callable[[RetrainState, Batch], tuple[RetrainState, RetrainInfo]]


class RetrainProblem(NamedTuple):
    """What is trained, independent of how."""

    network: DiscreteNetwork
    image_shape: tuple[int, int, int]  # height, width, channels
    auxiliary_weight: float = 0.4  # of the auxiliary head's loss
    dtype: Any = jnp.float32  # of weights and statistics
    compute_dtype: Any = None  # of what goes through the network in training; None: dtype

    @property
    def needs_key(self) -> bool:
        """Whether the network is random even without drop path."""
        return "noise" in self.network.genotype.operations

    def init_network(self, key: jax.Array) -> tuple[Any, Any]:
        """Weights and running statistics at the start."""
        with one_pool(key):
            variables = self.network.init(key, jnp.zeros((1, *self.image_shape), self.dtype))
        return variables["params"], variables["batch_stats"]


def retraining(
    problem: RetrainProblem, *, optimiser: optax.GradientTransformation, uses_drop_path: bool = True
) -> RetrainMethod:
    """Training from scratch with auxiliary head and drop path (Liu et al. 2019, section 3.2).

    What follows a schedule is in the state: `state.drop_path`, and the learning rate in `state.opt_state`
    (`set_hyperparameters`). Cost of a step: one gradient.

    Args:
      problem: the network, and its auxiliary head's weight.
      optimiser: of the weights.
      uses_drop_path: compile drop path in; its probability is `state.drop_path`.
    """

    def init(key: jax.Array) -> RetrainState:
        network_key, step_key = jax.random.split(key)
        params, batch_stats = problem.init_network(network_key)
        return RetrainState(
            params=params,
            batch_stats=batch_stats,
            opt_state=optimiser.init(params),
            drop_path=jnp.zeros((), problem.dtype),
            key=step_key,
            step=jnp.zeros((), jnp.int32),
        )

    def step(state: RetrainState, batch: Batch) -> tuple[RetrainState, RetrainInfo]:
        key = jax.random.fold_in(state.key, state.step) if uses_drop_path or problem.needs_key else None
        drop_path = state.drop_path if uses_drop_path else None
        loss = partial(retraining_loss, problem, batch_stats=state.batch_stats, drop_path=drop_path, key=key)
        (_, (result, train_loss, auxiliary_loss)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch=batch
        )
        params, opt_state = apply_update(optimiser, gradient, state.opt_state, state.params)
        new_state = RetrainState(
            params=params,
            batch_stats=result.batch_stats,
            opt_state=opt_state,
            drop_path=state.drop_path,
            key=state.key,
            step=state.step + 1,
        )
        correct = (result.scores.argmax(axis=-1) == batch.labels).sum(dtype=jnp.int32)
        return new_state, RetrainInfo(train_loss, correct, auxiliary_loss, optax.tree.norm(gradient))

    return RetrainMethod(init, step)


def retraining_loss(
    problem: RetrainProblem,
    params: Any,
    *,
    batch: Batch,
    batch_stats: Any,
    drop_path: jax.Array | float | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, tuple[NetworkResult, jax.Array, jax.Array]]:
    """What a step minimises: mean cross-entropy plus `auxiliary_weight` times that of the auxiliary head.

    Returns:
      The sum; scores and new running statistics, and both cross-entropies.
    """
    (scores, auxiliary_scores), updated = problem.network.apply(
        {"params": narrow_to(params, problem.compute_dtype), "batch_stats": batch_stats},
        narrow_to(batch.images, problem.compute_dtype),
        train=True,
        drop_path=drop_path,
        key=key,
        mutable=["batch_stats"],
    )
    dtype = jax.tree.leaves(params)[0].dtype  # float64 of research code too, whatever the problem's
    scores = scores.astype(dtype)
    train_loss = cross_entropy(scores, batch.labels).mean()
    auxiliary_loss = jnp.zeros_like(train_loss)
    if auxiliary_scores is not None:
        auxiliary_loss = cross_entropy(auxiliary_scores.astype(dtype), batch.labels).mean()
    total = train_loss + problem.auxiliary_weight * auxiliary_loss
    return total, (NetworkResult(scores, updated["batch_stats"]), train_loss, auxiliary_loss)


def retrained_sums(
    problem: RetrainProblem, params: Any, batch_stats: Any, batch: Batch, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sums over the examples where mask bool[B] holds, with the running statistics: cross-entropy, correct answers."""
    key = jax.random.key(0) if problem.needs_key else None  # the operation `noise` is on in evaluation too
    scores, _ = problem.network.apply({"params": params, "batch_stats": batch_stats}, batch.images, key=key)
    losses = cross_entropy(scores, batch.labels)
    correct = scores.argmax(axis=-1) == batch.labels
    return jnp.where(mask, losses, 0).sum(), (mask & correct).sum(dtype=jnp.int32)
