"""How does an optimiser step on all weights at once, instead of one operation for each of some hundred arrays?

Most of what XLA compiles for an update is a loop for every array, some milliseconds each. Where kernels can join the
arrays to one and divide it again, an update that treats all entries alike is a handful of operations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxdarts.bilevel import Elementwise
from jaxdarts.bilevel.explicit import pull_back
from jaxdarts.bilevel.products import apply_update, updated
from jaxdarts.networks import kernels

_pull_back = inspect.unwrap(pull_back)
_FEW = 8  # arrays, for which joining saves nothing


def _apply_flat(optimiser: optax.GradientTransformation, gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """What `apply_update` returns, to the last bits of a norm of all entries."""
    if not _can_join(optimiser, gradient, params):
        return updated(optimiser, gradient, state, params)
    new_params, new_state = updated(optimiser, _joined(gradient), _joined_in(state, params), _joined(params))
    divided = jax.tree.map(
        lambda old, new: _split(new, old) if _is_like(old, params) else new,
        state,
        new_state,
        is_leaf=lambda node: _is_like(node, params),
    )
    return _split(new_params, params), divided


def _pull_back_flat(
    update: optax.GradientTransformation, gradient: Any, state: Any, params: Any, cotangent: Any
) -> Any:
    """What `pull_back` returns."""
    if not _can_join(update, gradient, params, cotangent):
        return _pull_back(update, gradient, state, params, cotangent)
    found = _pull_back(update, _joined(gradient), _joined_in(state, params), _joined(params), _joined(cotangent))
    return _split(found, gradient)


IN_PLACE: Mapping[Callable[..., Any], Callable[..., Any]] = {apply_update: _apply_flat, pull_back: _pull_back_flat}
"""For `Parts`: pieces of a step -> what computes them. They have no derivative, which nobody takes of a piece."""


def _can_join(optimiser: optax.GradientTransformation, *trees: Any) -> bool:
    leaves = jax.tree.leaves(trees)
    dtype = leaves[0].dtype
    alike = all(leaf.dtype == dtype for leaf in leaves)
    return isinstance(optimiser, Elementwise) and len(leaves) > _FEW * len(trees) and alike and kernels.usable(dtype)


def _is_like(node: Any, params: Any) -> bool:
    structure: Any = jax.tree.structure(params)
    return bool(jax.tree.structure(node) == structure)


def _joined(tree: Any) -> jax.Array:
    return kernels.join(jax.tree.leaves(tree))


def _joined_in(state: Any, params: Any) -> Any:
    """An optimiser's state, whatever has an entry for each of the parameters joined."""
    is_like = lambda node: _is_like(node, params)  # noqa: E731
    return jax.tree.map(lambda node: _joined(node) if is_like(node) else node, state, is_leaf=is_like)


def _split(joined: jax.Array, like: Any) -> Any:
    leaves, structure = jax.tree.flatten(like)
    return jax.tree.unflatten(structure, kernels.split(joined, leaves))
