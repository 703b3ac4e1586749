"""How do several searches take their steps side by side in one program?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxdarts.methods import SearchState
from jaxdarts.runs.inputs import SearchData
from jaxdarts.runs.population.members import member_configs
from jaxdarts.runs.search.assemble import Draws, EpochSums, Search, assemble, is_whole, starting
from jaxdarts.runs.search.config import SearchConfig

_AXIS = "population"
Step = Callable[..., tuple[SearchState, EpochSums, jax.Array]]
"""(state, sums, data, draws) -> state, sums, what is finite as long as everything is."""


class Population(NamedTuple):
    """All that a run of several searches needs.

    State, sums and draws have a leading axis of members on every leaf. Where members are stepped in turn, `step`
    returns lists of the members' own states and sums, and takes either, so that they are not joined and parted at every
    step; a member whose draws are None is left as it is.
    """

    config: SearchConfig
    members: tuple[Search, ...]  # each could run alone; they share data, network and compiled functions
    data: SearchData
    steps_per_epoch: int
    init: Callable[[], SearchState]
    order: Callable[[int | Sequence[int]], Draws]  # epoch, or one for each member -> what its steps draw from
    step: Step  # may donate state and sums
    in_turn: bool  # by programs that serve every member
    mesh: None = None  # of devices that batches are split over: members are split, not batches


def assemble_population(config: SearchConfig) -> Population:
    """Reads the data and prepares everything; compiles nothing.

    What differs between members (keys, L2, drop path, whether there is cutout) are traced values in state and draws.

    Raises:
      InputError: the space, the data or a size cannot be used.
    """
    configs = member_configs(config)
    devices = devices_for(len(configs), jax.devices())
    by_map, whole = is_by_map(config), is_whole(config) or len(devices) > 1
    # A program that holds drop path or cutout serves members without: their probability is 0.
    shared = assemble(
        dataclasses.replace(
            config,
            drop_path=max(member.drop_path for member in configs),
            cutout=any(member.cutout for member in configs),
        ),
        together=1 if by_map else len(configs) // len(devices),
    )
    jitted_init = jax.jit(shared.method.init)
    members = []
    for member in configs:
        init, order = starting(member, jitted_init, len(shared.data.train.labels))
        members.append(shared._replace(config=member, init=init, order=order))

    def orders(epochs: int | Sequence[int]) -> Draws:
        own = [epochs] * len(members) if isinstance(epochs, int) else epochs
        return stack([member.order(epoch) for member, epoch in zip(members, own, strict=True)])

    return Population(
        config=config,
        members=tuple(members),
        data=shared.data if len(devices) < 2 else jax.device_put(shared.data, NamedSharding(mesh_of(devices), P())),
        steps_per_epoch=shared.steps_per_epoch,
        init=lambda: stack([member.init() for member in members]),
        order=orders,
        step=side_by_side(shared.step, len(members), by_map=by_map, whole=whole, devices=devices),
        in_turn=by_map and not whole,
    )


def is_by_map(config: SearchConfig) -> bool:
    """Whether members are computed one after another.

    So it is on a CPU unless told otherwise: together they take as long there, and a step of several is compiled beside
    that of one (docs/performance.md).
    """
    return config.population_mapping == "map" or (
        config.population_mapping == "auto" and jax.default_backend() == "cpu"
    )


def devices_for(num_members: int, devices: Sequence[jax.Device]) -> Sequence[jax.Device]:
    """The most devices that all get the same number of members."""
    return devices[: max(n for n in range(1, min(num_members, len(devices)) + 1) if num_members % n == 0)]


def side_by_side(
    step: Step, num_members: int, *, by_map: bool, whole: bool, devices: Sequence[jax.Device] = ()
) -> Step:
    """The step of a population, from that of one search. The result of each member is its own to rounding.

    Args:
      step: of one search.
      num_members: the length of the leading axis of state, sums and draws.
      by_map: one member after another, instead of all in one batched computation.
      whole: one program; else the parts that `step` consists of are programs, which by `by_map` serve every member.
      devices: several share the members evenly, with no communication; needs `whole`.
    """

    def in_turn(state: Any, sums: Any, data: SearchData, draws: Draws) -> Any:
        states, all_sums, all_draws = (list(apart(part, num_members)) for part in (state, sums, draws))
        finite: dict[int, jax.Array] = {}
        for i, drawn in enumerate(all_draws):
            if drawn is not None:
                states[i], all_sums[i], finite[i] = step(states[i], all_sums[i], data, drawn)
        nothing = jnp.zeros_like(next(iter(finite.values())))
        return states, all_sums, stack([finite.get(i, nothing) for i in range(num_members)])

    def together(state: SearchState, sums: EpochSums, data: SearchData, draws: Draws) -> Any:
        one = lambda row: step(row[0], row[1], data, row[2])  # noqa: E731
        return jax.lax.map(one, (state, sums, draws)) if by_map else jax.vmap(one)((state, sums, draws))

    if not whole:
        return in_turn if by_map else together
    if len(devices) < 2:
        return jax.jit(together, donate_argnums=(0, 1))
    mesh = mesh_of(devices)
    split, copied = P(_AXIS), P()
    sharded = jax.shard_map(
        together, mesh=mesh, in_specs=(split, split, copied, split), out_specs=split, check_vma=False
    )
    jitted = jax.jit(sharded, donate_argnums=(0, 1))

    def placed(state: SearchState, sums: EpochSums, data: SearchData, draws: Draws) -> Any:
        # Does nothing to what lies there already: all but the draws and, at the start of an epoch, state and sums.
        state, sums, draws = jax.device_put((state, sums, draws), NamedSharding(mesh, split))
        return jitted(state, sums, data, draws)

    return placed


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """Devices in a row, along the members' axis."""
    return jax.make_mesh((len(devices),), (_AXIS,), (jax.sharding.AxisType.Auto,), devices=devices)


@jax.jit
def stack(trees: Sequence[Any]) -> Any:
    """One pytree with a leading axis on every leaf, from several of the same structure."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@partial(jax.jit, static_argnums=1)
def unstack(tree: Any, count: int) -> list[Any]:
    """The inverse of `stack`."""
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def apart(tree: Any, count: int) -> list[Any]:
    """`unstack`, of what is not yet a list of the members' own trees."""
    return tree if isinstance(tree, list) else unstack(tree, count)


def joined(tree: Any) -> Any:
    """`stack`, of what is a list of the members' own trees."""
    return stack(tree) if isinstance(tree, list) else tree
