"""How does everything random in a run follow from one seed, each key from its own name and used once?"""

from __future__ import annotations

from typing import NamedTuple

import jax


class RunKeys(NamedTuple):
    """The keys of a run, one for each thing that is random in it."""

    init: jax.Array  # of the state at the start
    order: jax.Array  # of the training examples; an epoch's own: fold_in(order, epoch)
    batches: jax.Array  # what else a step's batches draw: fold_in(batches, step)
    curvature: jax.Array  # first vectors of Lanczos: fold_in(curvature, epoch)
    spectrum: jax.Array  # the same at the end of a search
    selection: jax.Array  # architectures drawn to choose from: fold_in(selection, step)


def run_keys(seed: int) -> RunKeys:
    """The keys that follow from a seed.

    The root is split once and used for nothing else. A name added at the end leaves the others' keys as they are, since
    with JAX's partitionable threefry `split(key, n)[i]` does not depend on n; it equals `fold_in(key, i)`, which is why
    the root must never be folded.
    """
    return RunKeys(*jax.random.split(jax.random.key(seed), len(RunKeys._fields)))
