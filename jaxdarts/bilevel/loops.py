"""How do a loop and a choice run where nothing is traced? By Python: JAX would compile them anew at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


def scan(
    body: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, xs: Any, length: int, reverse: bool = False
) -> tuple[Carry, Any]:
    """`jax.lax.scan`; `length` is at least 1."""
    if _is_traced(carry, xs):
        return jax.lax.scan(body, carry, xs, length=length, reverse=reverse)
    results = []
    for step in reversed(range(length)) if reverse else range(length):
        carry, result = body(carry, jax.tree.map(lambda leaf, i=step: leaf[i], xs))
        results.append(result)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *(results[::-1] if reverse else results))


def while_loop(condition: Callable[[Carry], Any], body: Callable[[Carry], Carry], carry: Carry) -> Carry:
    """`jax.lax.while_loop`."""
    if _is_traced(carry):
        return jax.lax.while_loop(condition, body, carry)
    while condition(carry):
        carry = body(carry)
    return carry


def cond(choice: jax.Array, yes: Callable[..., Carry], no: Callable[..., Carry], *operands: Any) -> Carry:
    """`jax.lax.cond`. Under `vmap` both are computed."""
    if _is_traced(choice, operands):
        return jax.lax.cond(choice, yes, no, *operands)
    return yes(*operands) if choice else no(*operands)


def _is_traced(*trees: Any) -> bool:
    """Whether one of the leaves is, or what is computed here from nothing."""
    leaves = [*jax.tree.leaves(trees), jnp.zeros(())]
    return any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
