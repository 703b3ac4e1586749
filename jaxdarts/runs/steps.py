"""How does a method's step become what a run calls, of one experiment or of several side by side?"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdarts.bilevel import Ahead, compilable, run_program
from jaxdarts.methods.base import SearchState
from jaxdarts.networks.layers import batch_apart
from jaxdarts.plans.base import Built, Experiment
from jaxdarts.sharding import replicate
from jaxdarts.tasks.base import Stream, Totals

_AXIS = "population"


class Steps(NamedTuple):
    """The functions that a run steps with. What is carried is one state, a list of them, or one with a leading axis."""

    step: Callable[[Any, Any, Any], tuple[Any, Any]]  # (carried, data, cursors) -> carried, totals; may donate carried
    join: Callable[[Sequence[Any]], Any]  # one tree an experiment -> carried
    split: Callable[[Any], list[Any]]  # carried, or totals -> one tree an experiment
    data: Any
    calendar: Calendar


class Calendar:
    """Which steps are an epoch's? All epochs have as many, or each has its own number."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._starts = stream, [0]

    def start(self, epoch: int) -> int:
        """Steps before an epoch."""
        if self._stream.steps_in is None:
            return epoch * self._stream.steps
        while len(self._starts) <= epoch:
            self._starts.append(self._starts[-1] + self._stream.steps_in(len(self._starts) - 1))
        return self._starts[epoch]

    def end(self, epoch: int) -> int:
        """Steps before the next."""
        return self.start(epoch + 1)

    def epoch(self, step: int) -> int:
        """The epoch of the step that is taken after so many."""
        if self._stream.steps_in is None:
            return step // self._stream.steps
        epoch = max(bisect.bisect_right(self._starts, step) - 1, 0)
        while self.end(epoch) <= step:
            epoch += 1
        return epoch


@contextmanager
def traced_for(devices: int) -> Iterator[None]:
    """For the length of a run: its programs are written so that they can be partitioned, if they will be."""
    with batch_apart(devices * jax.process_count() > 1):
        yield


def cursors(experiment: Experiment, epoch: int, mesh: Mesh | None) -> Any:
    """What an epoch's steps of an experiment draw from: of either stream, and the key of the batches."""
    task, keys = experiment.task, experiment.keys
    assert task.train is not None
    valid = task.valid.start(keys.order, epoch) if _draws_valid(experiment) and task.valid is not None else None
    return task.train.start(keys.order, epoch), valid, replicate(keys.batches, mesh)


def make_steps(built: Built, devices: Sequence[jax.Device]) -> Steps:
    """The step of a stage; compiles nothing. Several experiments share the devices evenly, with no communication."""
    first = built.experiments[0]
    task, count = first.task, len(built.experiments)
    assert task.train is not None
    data = (task.train.data, task.valid.data if _draws_valid(first) and task.valid is not None else None)
    one = _one(first, built.whole and count == 1)
    steps = Calendar(task.train)
    if count == 1:
        return Steps(one, lambda trees: trees[0], lambda tree: [tree], data, steps)
    shared = shared_devices(count, devices)
    whole = built.whole or len(shared) > 1
    if len(shared) > 1:
        data = jax.device_put(data, NamedSharding(_mesh_of(shared), P()))
    if not whole and not built.together:
        return Steps(_in_turn(one), list, list, data, steps)
    split = partial(_on_first, count=count)
    return Steps(_side_by_side(one, built.together, whole, shared), stack, split, data, steps)


def shared_devices(count: int, devices: Sequence[jax.Device]) -> Sequence[jax.Device]:
    """As many of the devices as get the same number of experiments each."""
    return devices[: max(n for n in range(1, min(count, len(devices)) + 1) if count % n == 0)]


def _draws_valid(experiment: Experiment) -> bool:
    return "alpha" in experiment.method.learns or experiment.method.problem.space is not None


def _one(experiment: Experiment, whole: bool) -> Callable[..., Any]:
    """(state, data, cursors) -> state, totals, on batches drawn on the device."""
    task, method = experiment.task, experiment.method
    assert task.train is not None
    valid = task.valid if _draws_valid(experiment) else None
    return _drawn_and_taken(method.step, task.train.batch, valid and valid.batch, whole)


@lru_cache(maxsize=8)  # trainings that differ in their seed only share the programs
def _drawn_and_taken(
    take: Callable[..., Any],
    train_batch: Callable[..., Any],
    valid_batch: Callable[..., Any] | None,
    whole: bool,
) -> Callable[..., Any]:
    @compilable
    @jax.jit
    def draw(data: Any, cursors: Any, step: jax.Array) -> tuple[Any, Any]:
        train_cursor, valid_cursor, key = cursors
        key = jax.random.fold_in(key, step)
        train = train_batch(data[0], train_cursor, step, key)
        return train, None if valid_batch is None else valid_batch(data[1], valid_cursor, step, key)

    def step(state: SearchState, data: Any, cursors: Any) -> tuple[SearchState, Totals]:
        return take(state, *draw(data, cursors, state.step))

    return _whole(step) if whole else step


def _whole(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step as one program, to which the state is donated."""
    # Without `keep_unused` JAX writes every call of a gradient out anew, without the results that are not used there.
    # With it all are calls of one function, and the compiler leaves out the same. On a CPU a step comes in parts.
    return jax.jit(step, donate_argnums=0, keep_unused=jax.default_backend() != "cpu")


def _in_turn(one: Callable[..., Any]) -> Callable[..., Any]:
    """One experiment after another, by programs that serve all of them."""

    def step(states: list[Any], data: Any, cursors: list[Any]) -> tuple[list[Any], list[Totals]]:
        pairs = [one(state, data, own) for state, own in zip(states, cursors, strict=True)]
        return [state for state, _ in pairs], [totals for _, totals in pairs]

    return step


def _side_by_side(
    one: Callable[..., Any], together: bool, whole: bool, devices: Sequence[jax.Device]
) -> Callable[..., Any]:
    """A step of a state with a leading axis. The result of each experiment is its own to rounding."""

    def all_at_once(state: Any, data: Any, cursors: Any) -> Any:
        row = lambda pair: one(pair[0], data, pair[1])  # noqa: E731
        return jax.vmap(row)((state, cursors)) if together else jax.lax.map(row, (state, cursors))

    if not whole:
        return lambda state, data, cursors: all_at_once(state, data, stack(cursors))
    if len(devices) < 2:
        jitted = _whole(all_at_once)
        return lambda state, data, cursors: run_program(jitted, state, data, stack(cursors))
    mesh, split, copied = _mesh_of(devices), P(_AXIS), P()
    sharded = jax.shard_map(all_at_once, mesh=mesh, in_specs=(split, copied, split), out_specs=split, check_vma=False)
    jitted = _whole(sharded)

    def placed(state: Any, data: Any, cursors: Any) -> Any:
        # Does nothing to what lies there already: all but the cursors and, at the start of an epoch, the state.
        state, cursors = jax.device_put((state, stack(cursors)), NamedSharding(mesh, split))
        return run_program(jitted, state, data, cursors)

    return placed


def _mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    return jax.make_mesh((len(devices),), (_AXIS,), (jax.sharding.AxisType.Auto,), devices=devices)


@jax.jit
def stack(trees: Sequence[Any]) -> Any:
    """One pytree with a leading axis on every leaf, from several of the same structure."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def unstack(tree: Any, count: int) -> list[Any]:
    """The inverse of `stack`."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def _on_first(tree: Any, count: int) -> list[Any]:
    """One pytree for each experiment, all on the first device."""
    trees = unstack(tree, count)
    return trees if len(jax.devices()) == 1 else jax.device_put(trees, jax.devices()[0])


@compilable
@jax.jit
def accumulate(sums: Any, totals: Any) -> tuple[Any, jax.Array]:
    """The sums over an epoch's steps so far (None: no step), and a number that is finite as long as everything is."""
    finite = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(totals) if jnp.issubdtype(leaf.dtype, jnp.floating))
    return totals if sums is None else jax.tree.map(jnp.add, sums, totals), jnp.asarray(finite)


@contextmanager
def compiled_ahead(
    built: Built, steps: Steps, begin: Callable[[], tuple[Sequence[SearchState], Any]]
) -> Iterator[None]:
    """Threads compile what a first step needs; everything is compiled by the end of the context.

    `begin` gives the states before the step, and what it draws from. What makes these is compiled with it.
    """
    if built.mesh is not None or len(jax.devices()) > 1 or (built.together and not built.whole):
        # Arguments that are split over devices, or have an axis more than is traced, need other programs.
        yield
        return

    def first_step() -> Any:
        states, drawn = begin()
        one_program = built.whole and len(built.experiments) == 1
        step = partial(run_program, steps.step) if one_program else steps.step
        _, new = step(steps.join(states), steps.data, drawn)
        return accumulate(accumulate(None, new)[0], new)

    with Ahead() as ahead:
        ahead.trace(first_step)
        yield
