"""How does the backward pass compute a function's inside again instead of keeping it, on every backend?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax


def rematerialise(function: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The same function of (parameters, inputs, fixed), of which a backward pass keeps only these arguments.

    What `jax.checkpoint` is for. It tells the second computation from the first by an optimisation barrier, which XLA's
    CPU backend removes, and with it the second computation: the program is the same as without. Here the second one
    reads the inputs plus zero times a cotangent, which no compiler may take for the inputs. So neither is it begun
    before the backward pass needs it.

    Args:
      function: its first two arguments are pytrees of floats; `fixed` is any pytree, and has derivative zero. It closes
        over no traced value.

    Returns:
      A function with its own reverse rule: reverse mode and forward over reverse are supported.
    """

    @jax.custom_vjp
    def rematerialised(parameters: Any, inputs: Any, fixed: Any) -> Any:
        return function(parameters, inputs, fixed)

    def forward(parameters: Any, inputs: Any, fixed: Any) -> tuple[Any, tuple[Any, Any, Any]]:
        # By vjp, so that functions with a reverse rule of their own inside can be differentiated forward over this.
        output, _ = jax.vjp(lambda p, i: function(p, i, fixed), parameters, inputs)
        return output, (parameters, inputs, fixed)

    def backward(arguments: tuple[Any, Any, Any], cotangents: Any) -> tuple[Any, Any, None]:
        parameters, inputs, fixed = arguments
        zero = jax.tree.leaves(cotangents)[0].ravel()[0] * 0
        tied = jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), inputs)
        _, pull_back = jax.vjp(lambda p, i: function(p, i, fixed), parameters, tied)
        return *pull_back(cotangents), None

    rematerialised.defvjp(forward, backward)
    return rematerialised


def rematerialised_scan(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, fixed: Any, inputs: Any
) -> tuple[Any, Any]:
    """`lax.scan(step, carry, (fixed, inputs))`, of which a backward pass keeps each step's carry and inputs.

    `lax.scan` divides a step into what reverse mode keeps and what it needs it for, and then no longer knows how
    kernels are differentiated forward. Here both ways are a scan of their own.

    Args:
      step: (carry, (fixed, inputs)) -> carry, what is seen; may close over traced values, which get derivatives.
      carry: pytree of floats.
      fixed: pytree with a leading axis of steps; has derivative zero.
      inputs: pytree of floats with a leading axis of steps.

    Returns:
      The last carry and what was seen, with a leading axis of steps. Reverse mode and forward over reverse are
      supported.
    """
    first = jax.tree.map(lambda leaf: leaf[0], (fixed, inputs))
    converted, parameters = jax.closure_convert(step, carry, first)

    def pullable(parameters: Any, carry: Any, fixed: Any, inputs: Any) -> Any:
        # By vjp in both directions, so that what has a reverse rule of its own can be differentiated forward over it.
        return jax.vjp(lambda p, c, i: converted(c, (fixed, i), *p), parameters, carry, inputs)

    def scan(parameters: Any, carry: Any, fixed: Any, inputs: Any) -> Any:
        def body(carry: Any, own: Any) -> Any:
            (after, seen), _ = pullable(parameters, carry, *own)
            return after, (carry, seen)

        last, (carries, seen) = lax.scan(body, carry, (fixed, inputs))
        return (last, seen), (parameters, carries, fixed, inputs)

    def backward(kept: Any, cotangents: Any) -> Any:
        parameters, carries, fixed, inputs = kept
        of_last, of_seen = cotangents

        def body(found: Any, own: Any) -> Any:
            of_parameters, of_carry = found
            *arguments, of_seen = own
            _, pull_back = pullable(parameters, *arguments)
            more, of_carry, of_inputs = pull_back((of_carry, of_seen))
            return (jax.tree.map(lax.add, of_parameters, more), of_carry), of_inputs

        zeros = jax.tree.map(jax.numpy.zeros_like, parameters)
        found, of_inputs = lax.scan(body, (zeros, of_last), (carries, fixed, inputs, of_seen), reverse=True)
        return *found, None, of_inputs

    reading = jax.custom_vjp(lambda *arguments: scan(*arguments)[0])
    reading.defvjp(scan, backward)
    return reading(parameters, carry, fixed, inputs)
