"""Which kernels of our own run on this CPU, and the functions that call them?

XLA's programs for the layers of a cell move arrays through the memory several times more often than needed. A kernel
computes a layer from end to end while what lies between stays in the processor's cache (`source/`, C++, called through
`jax.ffi`). The functions beside them in plain JAX (`networks/separable.py`, `networks/layers.py`) are what other
devices use, and what tests hold the kernels to.
"""

from __future__ import annotations

from jaxdarts.networks.kernels.join import join, split
from jaxdarts.networks.kernels.library import described, usable, why_none
from jaxdarts.networks.kernels.mix import mix
from jaxdarts.networks.kernels.pool import pool_norm
from jaxdarts.networks.kernels.recurrent import read_relaxed
from jaxdarts.networks.kernels.separable import pointwise_norm, separable_norm

__all__ = [
    "described",
    "join",
    "mix",
    "pointwise_norm",
    "pool_norm",
    "read_relaxed",
    "separable_norm",
    "split",
    "usable",
    "why_none",
]
