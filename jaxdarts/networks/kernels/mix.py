"""Gated sums over rows that lie in several arrays, by one kernel each way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.networks.kernels.calls import call, call_for_wanted


def mix(gates: jax.Array, arrays: tuple[jax.Array, ...]) -> jax.Array:
    """Sums over the rows of all arrays, of gates[n, r, 0] * row r: float[N, R, 1], float[.., *S] -> float[N, *S].

    Its own rules are reverse mode and forward over reverse. Every row is read once each way.
    """
    dtype = jnp.result_type(gates, *arrays)
    return _mix(gates[:, :, 0].astype(dtype), tuple(array.astype(dtype) for array in arrays))


@jax.custom_vjp
def _mix(gates: jax.Array, arrays: tuple[jax.Array, ...]) -> jax.Array:
    return _sums(gates, arrays)


@jax.custom_jvp
def _sums(gates: jax.Array, arrays: tuple[jax.Array, ...]) -> jax.Array:
    return call("Mix", _results(gates, arrays), (gates, *arrays), terms=1)[0]


@_sums.defjvp
def _sums_tangent(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (gates, arrays), (gates_t, arrays_t) = primals, tangents
    arguments = (gates_t, *arrays, gates, *arrays_t)
    return _sums(gates, arrays), call("Mix", _results(gates, arrays), arguments, terms=2)[0]


@jax.custom_jvp
def _back(gates: jax.Array, derivatives: jax.Array, arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return _wanted(gates, arrays, (gates, derivatives, *arrays), terms=1)


@_back.defjvp
def _back_tangent(primals: Any, tangents: Any) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    (gates, derivatives, arrays), (gates_t, derivatives_t, arrays_t) = primals, tangents
    arguments = (gates, derivatives, *arrays, gates_t, derivatives_t, *arrays_t)
    return _back(*primals), _wanted(gates, arrays, arguments, terms=2)


def _wanted(gates: jax.Array, arrays: tuple[jax.Array, ...], arguments: Any, terms: int) -> tuple[jax.Array, ...]:
    return call_for_wanted("MixBack", [(gates,), arrays], arguments, terms=terms)


def _kept(gates: jax.Array, arrays: tuple[jax.Array, ...]) -> Any:
    return _sums(gates, arrays), (gates, arrays)


def _pulled_back(kept: Any, derivatives: jax.Array) -> Any:
    gates, arrays = kept
    dgates, *darrays = _back(gates, derivatives, arrays)
    return dgates, tuple(darrays)


_mix.defvjp(_kept, _pulled_back)


def _results(gates: jax.Array, arrays: tuple[jax.Array, ...]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((gates.shape[0], *arrays[0].shape[1:]), gates.dtype)]
