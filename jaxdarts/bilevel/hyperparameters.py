"""How a value such as the learning rate is read and changed inside an optimiser's state, without recompiling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.values import number, whole


def get_hyperparameters(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """The injected hyperparameters in an optimiser's state, by name; empty if `optax.inject_hyperparams` was not used.

    Where two transformations of a chain hold the same name, the first one's value.
    """
    found: dict[str, jax.Array] = {}
    for node in _injected(opt_state):
        found = {**node.hyperparams, **found}
    return found


def set_hyperparameters(opt_state: optax.OptState, **values: jax.typing.ArrayLike) -> optax.OptState:
    """A state with other hyperparameters, such as `set_hyperparameters(state, learning_rate=0.01, l2=9e-4)`.

    Shapes and dtypes stay what they were, so a compiled step takes the new state without recompiling; a scalar given
    to a state with a population axis goes to every member. Pure: may be traced.

    Raises:
      InputError: no transformation holds the name, the name follows a schedule, the shape does not fit, or a
        learning rate, L2, weight decay or weight of beta decay is negative or not finite.
    """
    held = get_hyperparameters(opt_state)
    for name, value in values.items():
        if name not in held:
            raise unknown_choice("hyperparameter", name, held)
        if name in ("learning_rate", "l2", "weight_decay", "beta_weight"):
            check_not_negative(name, value)
        for node in _injected(opt_state):
            if name in node.hyperparams_states:
                raise InputError(f"{name} follows a schedule and cannot be set; build the optimiser with a number")

    def replace(node: Any) -> Any:
        if not _is_injected(node):
            return node
        changed = {name: _like(name, values[name], old) for name, old in node.hyperparams.items() if name in values}
        inner_state = jax.tree.map(replace, node.inner_state, is_leaf=_is_injected)
        return node._replace(hyperparams={**node.hyperparams, **changed}, inner_state=inner_state)

    return jax.tree.map(replace, opt_state, is_leaf=_is_injected)


def check_not_negative(name: str, value: Any) -> None:
    """Raises InputError unless `value` is finite and not negative; traced values and schedules pass unseen."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    if not (np.all(np.isfinite(array)) and np.all(array >= 0)):
        raise InputError(f"{name} must be a finite number that is not negative, got {value}")


def check_count(name: str, value: Any) -> int:
    """The value as an int. Raises InputError unless it is a whole number of at least 1."""
    found = whole(value)
    if found is None:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    if found < 1:
        raise InputError(f"{name} must be at least 1, got {found}")
    return found


def check_between(name: str, value: Any, low: float, high: float, allowed: str, with_low: bool = False) -> None:
    """Raises InputError unless `value` lies between; `allowed` says in words where. Traced values pass unseen."""
    if isinstance(value, jax.core.Tracer):
        return
    found = number(value)
    if found is None or not (low < found < high or (with_low and found == low)):
        raise InputError(f"{name} must {allowed}, got {value}")


def _is_injected(node: Any) -> bool:
    return isinstance(node, optax.InjectStatefulHyperparamsState)


def _injected(opt_state: optax.OptState) -> Iterator[optax.InjectStatefulHyperparamsState]:
    for node in jax.tree.leaves(opt_state, is_leaf=_is_injected):
        if _is_injected(node):
            yield node
            yield from _injected(node.inner_state)


def _like(name: str, value: jax.typing.ArrayLike, old: jax.Array) -> jax.Array:
    try:
        return jnp.broadcast_to(jnp.asarray(value, old.dtype), jnp.shape(old))
    except ValueError:
        message = f"{name} of shape {jnp.shape(value)} does not fit the state's {jnp.shape(old)}"
        raise InputError(message) from None
