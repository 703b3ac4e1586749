"""What is a search problem, and what is a method? Pure functions over one state, which is also the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
import optax

from jaxdarts.methods.relaxations import SOFTMAX, Alpha, Mixing, Relaxation
from jaxdarts.methods.verdict import History, Verdict, go_on, nowhere
from jaxdarts.networks.functional import Context, Network
from jaxdarts.networks.supernet import Weights
from jaxdarts.spaces import Architecture, CellSpace, discretise
from jaxdarts.tasks.base import Batch, Task, Totals

Values: TypeAlias = dict[str, jax.Array]
"""What schedules set and a step reads, scalars: "drop_path", "temperature", ...; what is missing isn't compiled."""


RANDOM_VALUES = ("drop_path", "skip_dropout", "dropout")  # by which a network drops something in training


class Memories(NamedTuple):
    """What a network carries from batch to batch of either part of the data: () where that is nothing."""

    train: Any = ()
    valid: Any = ()


class View(NamedTuple):
    """What a loss depends on beside w and alpha. A pytree."""

    batch: Batch
    stats: Any  # running statistics, which a forward pass in training makes anew
    memory: Any = ()  # what the network carries between its batches
    values: Values = {}
    key: jax.Array | None = None  # of drop path, of sampling, of random operations; None: nothing is random


class Seen(NamedTuple):
    """What a loss reports beside its value."""

    totals: Totals
    stats: Any
    memory: Any


@dataclass(frozen=True, eq=False)
class Problem:
    """What is searched or trained, independent of how. A training from scratch has no alpha: `{}`.

    `outer` and `inner` are one function object a problem each, so that what is compiled for them serves every step and
    the curvature.
    """

    space: CellSpace | None  # None: nothing is searched
    network: Network
    task: Task
    relaxation: Relaxation
    weights_loss: Callable[[Weights], jax.Array] | None = None  # a term of both objectives, of the mixing weights alone

    def outer(self, params: Any, alpha: Alpha, view: View) -> tuple[jax.Array, Seen]:
        """The outer objective, normalised by the batch's own statistics, as a `Bilevel` takes it."""
        return self._loss(self.task.loss, params, alpha, view)

    def inner(self, params: Any, alpha: Alpha, view: View) -> tuple[jax.Array, Seen]:
        """The inner objective."""
        return self._loss(self.task.inner_loss, params, alpha, view)

    def init_network(self, key: jax.Array) -> tuple[Any, Any]:
        """Weights and running statistics at the start."""
        return self.network.init(key)

    @property
    def losses(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The inner and the outer objective; the same function where the task has one loss for both."""
        return (self.outer if self.task.inner_loss is self.task.loss else self.inner), self.outer

    def _loss(self, loss: Any, params: Any, alpha: Alpha, view: View) -> tuple[jax.Array, Seen]:
        key, own_key = view.key, None
        if self.relaxation.uses_key:
            own_key, key = relaxation_and_network_keys(view.key)
        weights = self.relaxation.sample(alpha, view.values, own_key)
        context = Context(True, key, view.values)
        outputs, stats, memory = self.network.apply(params, view.stats, weights, view.batch, view.memory, context)
        value, totals = loss(outputs, view.batch)
        if self.weights_loss is not None:
            value = value + self.weights_loss(weights)
        return value, Seen(totals, stats, memory)

    def measured(
        self,
        params: Any,
        stats: Any,
        weights: Weights,
        values: Values,
        batch: Batch,
        mask: jax.Array,
        memory: Any = (),
        train: bool = False,
    ) -> tuple[Totals, Any]:
        """Sums over the examples where mask bool[B] holds, with these mixing weights, and the memory after them.

        Normalised by the running statistics, or with `train` by those of the whole batch; nothing is dropped.
        """
        kept = {name: value for name, value in values.items() if name not in RANDOM_VALUES}
        # Random operations are random in evaluation too.
        context = Context(train, jax.random.key(0) if self.network.needs_key else None, kept)
        outputs, _, memory = self.network.apply(params, stats, weights, batch, memory, context)
        return self.task.measure(outputs, batch, mask), memory

    def memories(self) -> Memories:
        """What is carried from batch to batch, at the start."""
        start = self.network.memory(self.network.width)
        return Memories(start, start)

    def needs_key(self, values: Collection[str]) -> bool:
        """Whether a step with these scheduled values is random."""
        return self.relaxation.uses_key or self.network.needs_key or any(name in values for name in RANDOM_VALUES)

    def mean_weights(self, alpha: Alpha, values: Values) -> Weights:
        """The mixing weights that are measured and discretised."""
        return self.relaxation.mean(alpha, values)


def relaxation_and_network_keys(key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The keys of the two parts of a loss that are random, where the relaxation is."""
    assert key is not None
    first, second = jax.random.split(key)
    return first, second


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SearchState:
    """All that is carried from step to step, and nothing else is."""

    params: Any  # w: the network's weights
    stats: Any  # running statistics of its batch norms
    memory: Memories
    alpha: Alpha  # of the relaxation; {} where nothing is searched
    opt_state: optax.OptState  # of w; learning rate and L2 are traced values inside
    alpha_opt_state: optax.OptState
    method_state: Any  # what a method carries beside this; () for DARTS
    values: Values  # what schedules set
    key: jax.Array  # typed key; a step's randomness follows from it and `step`
    step: jax.Array  # int32 scalar, steps done


class Judge(Protocol):
    """Scores mixing weights with a state's network on the validation part, in evaluation mode."""

    def __call__(self, weights: Weights | None = None) -> dict[str, float]:
        """Every metric's mean; None: the weights of the state's alpha."""

    def score(self, weights: Mapping[str, np.ndarray], num_batches: int | None) -> np.ndarray:
        """The task's objective, float64[n], of n architectures' weights [n, edges, operations] by cell type.

        On the first `num_batches` batches, the same for all; None: on the whole part.
        """


class Candidate(NamedTuple):
    """An architecture that a choice has looked at closely."""

    genotype: Architecture
    score: float  # the task's objective, of the supernet restricted to it


Choose: TypeAlias = Callable[[SearchState, Judge, jax.Array], list[Candidate]]
Schedule: TypeAlias = Callable[[int], float]


Derive: TypeAlias = Callable[[CellSpace, Weights, Alpha], Architecture]
"""(space, mean weights, alpha) -> the genotype that they stand for"""


def strengths(weights: Weights) -> dict[str, np.ndarray]:
    """What discretisation ranks by: an operation's weight, times its edge's if edges have any."""
    found = {cell: np.asarray(value) for cell, value in weights.operations.items()}
    if weights.edges is None:
        return found
    return {cell: value * np.asarray(weights.edges[cell])[:, None] for cell, value in found.items()}


def strongest(space: CellSpace, weights: Weights, alpha: Alpha = None) -> Architecture:
    """DARTS' derivation, of the strongest operations and edges; see `discretise`. Alpha itself isn't looked at."""
    return discretise(space, strengths(weights))


class Method(NamedTuple):
    """How a problem is solved. `init` and `step` are pure: jit, vmap and donate freely. The others have defaults.

    `schedules` go by name: "temperature" is in `state.values`, "weights/l2" a hyperparameter in `state.opt_state`,
    "alpha/beta_weight" one in `state.alpha_opt_state`. `decide` is asked when an epoch has ended, except the last, and
    the run obeys; `returnable` tells it what to keep for that.
    """

    problem: Problem  # what its steps solve, with its own relaxation
    init: Callable[[jax.Array], SearchState]  # key -> state
    step: Callable[[SearchState, Batch, Batch], tuple[SearchState, Totals]]  # state, train and valid batch
    schedules: Mapping[str, Schedule] = {}  # (epoch, counted from 0) -> value
    decide: Callable[[History], Verdict] = go_on  # a pure function of what was measured
    returnable: Callable[[History], Collection[int]] = nowhere  # the epochs that later verdicts may name
    learns: frozenset[str] = frozenset({"params", "alpha"})  # which of these the steps train; others aren't measured
    derive: Derive = strongest  # the genotype that mean weights and alpha stand for
    choose: Choose | None = None  # the result, best first; None: the genotype derived
    as_measured: Callable[[SearchState], SearchState] = lambda state: state  # with the weights that are measured
    restarts: int = 0  # how often a run may go back to its newest checkpoint where a loss is not finite


class Ingredients(NamedTuple):
    """What a method is built from: the problem, and the settings of the run and of the method itself."""

    problem: Problem
    settings: Any  # every setting of the run and of the method, by its name
    around: Callable[[Relaxation], Relaxation] = lambda relaxation: relaxation  # put around the method's own


CLASSIFICATION_ONLY = ("classification",)
"""Of methods that need cells with channels, or batches whose examples can be joined."""


class MethodEntry(NamedTuple):
    """A method by name: how it is built, and what the command line should know of it."""

    build: Callable[[Ingredients], Method]
    says: str  # one sentence: how it decides
    settings: Sequence[type] = ()  # groups of settings of its own, frozen dataclasses
    # Values of common settings that it changes: in any preset "", in one its name, in one and a space PRESET/SPACE.
    defaults: Mapping[str, Mapping[str, Any]] = {}
    draws: Mapping[str, str] = {}  # schedules of its own that a report shows: name -> heading
    mixing: Mixing = SOFTMAX  # by which a report makes strengths of recorded alpha
    learns_alpha: bool = True
    takes_single_level: bool = True  # whether one gradient may train alpha and w
    network: Callable[[Any], Mapping[str, Any]] = lambda settings: {}  # what its supernet has that others have not
    members: Callable[[Any], Sequence[Mapping[str, Any]]] | None = None  # settings in which several searches differ
    some: Mapping[str, Any] = {}  # values of common settings that some of these searches have, whatever is asked for
    # Of a method that searches in stages: what the stages are, by their names, where they aren't all like this.
    stages: Mapping[str, MethodEntry] = {}
    instead: Mapping[str, str] = {}  # common settings that have no effect -> its own that says the same
    tasks: Collection[str] = ("classification", "language")  # names in `tasks.TASKS`
    in_stages: bool = False  # whether it searches in stages, by a plan of its own
    check_space: Callable[[Any, CellSpace], None] = lambda settings, space: None
    """(settings, space): raises InputError where they don't go with it"""

    def stage(self, name: str | None) -> MethodEntry:
        """What one of its stages is."""
        return self.stages.get(name or "", self)
