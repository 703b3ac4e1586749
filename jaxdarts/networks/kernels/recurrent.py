"""The relaxed recurrent cell over a whole text, by one kernel each way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxdarts.networks.kernels.calls import call

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
"""What the kernel knows, in its order."""


class Read(NamedTuple):
    """What the cell makes of a text of L time steps; those from the length on are 0."""

    outputs: jax.Array  # float[L, B, H]: means of all states but the first, which are the hidden states too
    means: jax.Array  # float[L, N + 1, H]: that the states were normalised by
    variances: jax.Array  # float[L, N + 1, H]


class _Settings(NamedTuple):
    used: int  # a bit an activation
    own: bool  # normalised by moments of the examples


def read_relaxed(
    inputs: jax.Array,
    hidden: jax.Array,
    kernels: jax.Array,
    shares: jax.Array,
    activations: Sequence[str],
    *,
    length: jax.Array,
    keep: jax.Array,
    moments: jax.Array | None = None,
) -> Read:
    """All time steps of a relaxed cell of N nodes.

    The first state is h + c (tanh(q) - h) of the hidden state h, where (g, q) is its product plus the input, and c the
    sigmoid of g. Node n then adds, over states s before it and activations f, `p (s + c (f(q) - s))`, with (g, q) the
    state's product with the node's kernel. All states are normalised over the examples.

    Its own rules are reverse mode and forward over reverse. Products and activations are computed again in each; kept
    are the states. `length`, `keep`, `moments`, and the moments in the result, have derivative zero.

    Args:
      inputs: float[L, B, 2 H], already multiplied by the first state's kernel of inputs.
      hidden: float[B, H], before the first time step.
      kernels: float[N + 1, H, 2 H]: of the hidden state, and then of each node.
      shares: float[N (N + 1) / 2, len(activations)]: p.
      activations: names out of `ACTIVATIONS`, each once.
      length: int32 scalar, the time steps that count.
      keep: float[B, H]: what a state is multiplied by where it enters a product.
      moments: float[2, H], means and variances to normalise by. None: those of the examples.
    """
    columns = [
        shares[:, activations.index(name)] if name in activations else jnp.zeros_like(shares[:, 0])
        for name in ACTIVATIONS
    ]
    # The first state is one that reads the hidden state alone, through tanh.
    first = jnp.zeros((1, len(ACTIVATIONS)), shares.dtype).at[0, ACTIVATIONS.index("tanh")].set(1)
    table = jnp.concatenate([first, jnp.stack(columns, axis=1)])
    used = sum(1 << place for place, name in enumerate(ACTIVATIONS) if name in activations)
    settings = _Settings(used, moments is None)
    given = jnp.zeros((2, hidden.shape[1])) if moments is None else moments
    arrays = [part.astype(hidden.dtype) for part in (inputs, hidden, kernels, keep, table, given)]
    outputs, _, means, variances = _read(*arrays, length, settings)
    return Read(outputs, jax.lax.stop_gradient(means), jax.lax.stop_gradient(variances))


# Below, `moved` is (inputs, hidden, kernels, shares), which have derivatives, and `fixed` (keep, moments, length).


@partial(jax.custom_vjp, nondiff_argnums=(7,))
def _read(inputs, hidden, kernels, keep, shares, moments, length, settings):  # type: ignore[no-untyped-def]
    return _forward((inputs, hidden, kernels, shares), (keep, moments, length), settings)


def _arguments(moved: Any, fixed: Any) -> tuple[jax.Array, ...]:
    inputs, hidden, kernels, shares = moved
    keep, moments, length = fixed
    return inputs, hidden, kernels, keep, shares, moments, length


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _forward(moved: Any, fixed: Any, settings: _Settings) -> tuple[jax.Array, ...]:
    """Outputs, states, means and variances."""
    inputs, _, kernels, _ = moved
    steps, examples, double = inputs.shape
    states = (steps, len(kernels), examples, double // 2)
    shapes = ((steps, examples, double // 2), states, *[(*states[:2], states[3])] * 2)
    return _call("Forward", shapes, _arguments(moved, fixed), settings)


@_forward.defjvp
def _forward_tangent(settings, primals, tangents):  # type: ignore[no-untyped-def]
    moved, fixed = primals
    outputs, states, means, variances = found = _forward(moved, fixed, settings)
    kept = (outputs, states, variances)
    shapes = [array.shape for array in kept]
    tangent = _call("ForwardTangent", shapes, (*_arguments(moved, fixed), *kept, *tangents[0]), settings)
    return found, (tangent[0], tangent[1], jnp.zeros_like(means), tangent[2])


@partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _backward(moved, fixed, kept, derivatives, settings, of_kernels):  # type: ignore[no-untyped-def]
    """The derivatives in `moved`, those in the kernels only where they are wanted."""
    arguments = (*_arguments(moved, fixed), *kept, derivatives)
    found = _call("Backward", _shapes(moved, of_kernels), arguments, settings, of_kernels)
    return _in_order(found, moved)


@_backward.defjvp
def _backward_tangent(settings, of_kernels, primals, tangents):  # type: ignore[no-untyped-def]
    moved, fixed, kept, derivatives = primals
    moved_t, _, kept_t, derivatives_t = tangents
    arguments = (*_arguments(moved, fixed), *kept, derivatives, *moved_t, *kept_t, derivatives_t)
    found = list(_call("BackwardTangent", _shapes(moved, False), arguments, settings))
    if of_kernels:
        # By a call of its own, which goes when nothing depends on it: products with the rows of alpha need it not.
        found.append(_call("BackwardTangent", _shapes(moved, True), arguments, settings, True)[-1])
    return _backward(*primals, settings, of_kernels), _in_order(found, moved)


def _shapes(moved: Any, of_kernels: bool) -> list[tuple[int, ...]]:
    inputs, hidden, kernels, shares = (array.shape for array in moved)
    return [inputs, hidden, shares, *([kernels] if of_kernels else [])]


def _in_order(found: Sequence[jax.Array], moved: Any) -> tuple[jax.Array, ...]:
    inputs, hidden, shares, *kernels = found
    return inputs, hidden, kernels[0] if kernels else jnp.zeros_like(moved[2]), shares


def _call(
    name: str,
    shapes: Sequence[tuple[int, ...]],
    arguments: Sequence[jax.Array],
    settings: _Settings,
    more: bool = False,
) -> tuple[jax.Array, ...]:
    results = [jax.ShapeDtypeStruct(shape, arguments[0].dtype) for shape in shapes]
    return call(f"Recurrent{name}", results, arguments, used=settings.used, own=settings.own, kernels=more)


def _kept(inputs, hidden, kernels, keep, shares, moments, length, settings):  # type: ignore[no-untyped-def]
    moved = tuple(argument.value for argument in (inputs, hidden, kernels, shares))
    fixed = tuple(argument.value for argument in (keep, moments, length))
    found = outputs, states, _, variances = _forward(moved, fixed, settings)
    # Which derivatives are wanted is known only here: told by the structure of what is kept.
    return found, (moved, fixed, (outputs, states, variances), () if kernels.perturbed else None)


def _pulled_back(settings: _Settings, kept: Any, cotangents: Any) -> Any:
    moved, fixed, results, of_kernels = kept
    derivatives = cotangents[0]
    if isinstance(derivatives, SymbolicZero):
        derivatives = jnp.zeros(derivatives.shape, derivatives.dtype)
    inputs, hidden, kernels, shares = _backward(moved, fixed, results, derivatives, settings, of_kernels is not None)
    keep, moments, length = fixed
    nothing = np.zeros(length.shape, jax.dtypes.float0)
    return inputs, hidden, kernels, jnp.zeros_like(keep), shares, jnp.zeros_like(moments), nothing


_read.defvjp(_kept, _pulled_back, symbolic_zeros=True)
