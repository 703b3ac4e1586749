"""Gated sums over rows that lie in several arrays, by one kernel each way."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np

from jaxdarts.networks.kernels.calls import alike, call, call_for_wanted

Places: TypeAlias = tuple[tuple[int, ...], ...]
"""N rows of R numbers: of the gate by which a node takes a row, -1 where it takes nothing of it."""


def mix(gates: jax.Array, arrays: tuple[jax.Array, ...], places: np.ndarray | None = None) -> tuple[jax.Array, ...]:
    """Sums over the rows of all arrays, of gates[n, r, 0] * row r: float[N, R, 1], float[.., *S] -> N of float[*S].

    Its own rules are reverse mode and forward over reverse. Every row is read once each way.

    Args:
      gates: float[N, R, 1]; with `places` float[M, 1].
      arrays: R rows in all.
      places: int[N, R], the number of the gate that stands there, -1 for 0. So a program holds no matrix of gates,
        whose products with what places them take a third of the compiler's time.
    """
    gates, *rest = alike(gates, *arrays)
    if places is None:
        places = np.arange(gates.size).reshape(gates.shape[:2])
    return _mix(gates.reshape(-1), tuple(rest), tuple(map(tuple, places.tolist())))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mix(gates: jax.Array, arrays: tuple[jax.Array, ...], places: Places) -> tuple[jax.Array, ...]:
    return _sums(gates, arrays, places)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _sums(gates: jax.Array, arrays: tuple[jax.Array, ...], places: Places) -> tuple[jax.Array, ...]:
    return _call_sums(gates, (gates, *arrays), places, terms=1)


@_sums.defjvp
def _sums_tangent(places: Places, primals: Any, tangents: Any) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    (gates, arrays), (gates_t, arrays_t) = primals, tangents
    arguments = (gates_t, *arrays, gates, *arrays_t)
    return _sums(gates, arrays, places), _call_sums(gates, arguments, places, terms=2)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _back(
    gates: jax.Array, derivatives: tuple[jax.Array, ...], arrays: tuple[jax.Array, ...], places: Places
) -> tuple[jax.Array, ...]:
    return _wanted(gates, arrays, (gates, *derivatives, *arrays), places, terms=1)


@_back.defjvp
def _back_tangent(places: Places, primals: Any, tangents: Any) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    (gates, derivatives, arrays), (gates_t, derivatives_t, arrays_t) = primals, tangents
    arguments = (gates, *derivatives, *arrays, gates_t, *derivatives_t, *arrays_t)
    return _back(*primals, places), _wanted(gates, arrays, arguments, places, terms=2)


def _wanted(
    gates: jax.Array, arrays: tuple[jax.Array, ...], arguments: Any, places: Places, terms: int
) -> tuple[jax.Array, ...]:
    groups, nodes = [(gates,), arrays], len(places)
    return call_for_wanted("MixBack", groups, arguments, places=_flat(places), nodes=nodes, terms=terms)


def _kept(gates: jax.Array, arrays: tuple[jax.Array, ...], places: Places) -> Any:
    return _sums(gates, arrays, places), (gates, arrays)


def _pulled_back(places: Places, kept: Any, derivatives: tuple[jax.Array, ...]) -> Any:
    gates, arrays = kept
    dgates, *darrays = _back(gates, derivatives, arrays, places)
    return dgates, tuple(darrays)


_mix.defvjp(_kept, _pulled_back)


def _call_sums(gates: jax.Array, arguments: tuple[jax.Array, ...], places: Places, terms: int) -> tuple[jax.Array, ...]:
    results = [jax.ShapeDtypeStruct(arguments[1].shape[1:], gates.dtype)] * len(places)
    return call("Mix", results, arguments, places=_flat(places), nodes=len(places), terms=terms)


def _flat(places: Places) -> tuple[int, ...]:
    return tuple(place for row in places for place in row)
