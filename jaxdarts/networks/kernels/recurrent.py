"""The relaxed recurrent cell over a whole text, by one kernel each way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.networks.kernels.calls import call, call_for_wanted

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


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _backward(moved, fixed, kept, derivatives, settings):  # type: ignore[no-untyped-def]
    """The derivatives in `moved`; those in the kernels, which take a third of the time, only where they are wanted."""
    return _wanted("Backward", moved, (*_arguments(moved, fixed), *kept, derivatives), settings)


@_backward.defjvp
def _backward_tangent(settings, primals, tangents):  # type: ignore[no-untyped-def]
    moved, fixed, kept, derivatives = primals
    moved_t, _, kept_t, derivatives_t = tangents
    arguments = (*_arguments(moved, fixed), *kept, derivatives, *moved_t, *kept_t, derivatives_t)
    return _backward(*primals, settings), _wanted("BackwardTangent", moved, arguments, settings)


def _wanted(name: str, moved: Any, arguments: Sequence[jax.Array], settings: _Settings) -> tuple[jax.Array, ...]:
    inputs, hidden, kernels, shares = moved
    groups = [(inputs, hidden, shares), (kernels,)]
    of = call_for_wanted(f"Recurrent{name}", groups, arguments, **settings._asdict())
    return of[0], of[1], of[3], of[2]


def _call(
    name: str, shapes: Sequence[tuple[int, ...]], arguments: Sequence[jax.Array], settings: _Settings
) -> tuple[jax.Array, ...]:
    results = [jax.ShapeDtypeStruct(shape, arguments[0].dtype) for shape in shapes]
    return call(f"Recurrent{name}", results, arguments, **settings._asdict(), wanted=0)


def _kept(inputs, hidden, kernels, keep, shares, moments, length, settings):  # type: ignore[no-untyped-def]
    moved, fixed = (inputs, hidden, kernels, shares), (keep, moments, length)
    found = outputs, states, _, variances = _forward(moved, fixed, settings)
    return found, (moved, fixed, (outputs, states, variances))


def _pulled_back(settings: _Settings, kept: Any, cotangents: Any) -> Any:
    moved, fixed, results = kept
    inputs, hidden, kernels, shares = _backward(moved, fixed, results, cotangents[0], settings)
    keep, moments, length = fixed
    nothing = np.zeros(length.shape, jax.dtypes.float0)
    return inputs, hidden, kernels, jnp.zeros_like(keep), shares, jnp.zeros_like(moments), nothing


_read.defvjp(_kept, _pulled_back)
