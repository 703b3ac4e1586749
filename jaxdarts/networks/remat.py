"""How does the backward pass compute a function's inside again instead of keeping it, on every backend?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


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
