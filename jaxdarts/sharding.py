"""Which devices does a run compute on, and what lies where on them?

Batches are split over the devices along one axis of a mesh, and everything else is on all of them whole. Programs are
written for the whole batch and partitioned by XLA, so that batch statistics, losses and gradients are those of the
whole batch, and a run on several devices gives what it gives on one, up to the order in which numbers are added.
"""

from __future__ import annotations

from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdarts.errors import InputError

DATA_AXIS = "data"

Tree = TypeVar("Tree")


def data_mesh(devices: int, batch_size: int) -> Mesh | None:
    """A 1-d mesh of the first `devices` devices of every process; None for one device in all, which needs none.

    Raises:
      InputError: there are not so many devices, or the batch cannot be split over them evenly.
    """
    processes = jax.process_count()
    by_process = {process: jax.local_devices(process) for process in range(processes)}
    available = min(len(found) for found in by_process.values())
    if devices > available:
        platform = jax.default_backend()
        hint = (
            "; a CPU counts as more with XLA_FLAGS=--xla_force_host_platform_device_count=N"
            if platform == "cpu" and devices > 1
            else ""
        )
        where = f"{platform} devices here" if processes == 1 else f"{platform} devices of each process"
        raise InputError(f"devices must be at most {available}, the {where}; got {devices}{hint}")
    count = devices * processes
    if batch_size % count:
        low = batch_size - batch_size % count
        choices = f"{low} or {low + count}" if low else f"{count}"
        each = "" if processes == 1 else f" ({processes} processes with {devices} each)"
        raise InputError(
            f"batch_size must be a multiple of {count}, the devices{each} that a batch is split over, such as "
            f"{choices}; got {batch_size}"
        )
    if count == 1:
        return None
    chosen = [device for found in by_process.values() for device in found[:devices]]
    return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of a pytree on all devices of the mesh, whole; without one, as they are.

    With several processes each gives its own copy, and all copies must be equal: nothing is sent.
    """
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    here = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]

    def place(leaf: jax.Array) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        copies = [jax.device_put(leaf, device) for device in here]
        return jax.make_array_from_single_device_arrays(copies[0].shape, sharding, copies)

    return jax.tree.map(place, tree)


def split_batch(batch: Tree, mesh: Mesh | None) -> Tree:
    """Inside a jitted function: arrays of which each device holds and computes its part of the first axis."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))


def examples_in_memory(devices: int, batch_size: int) -> int:
    """How many examples of a batch share one memory: a device's part, or on a CPU that of a process."""
    parts = jax.process_count() * (1 if jax.default_backend() == "cpu" else devices)
    return max(1, batch_size // parts)
