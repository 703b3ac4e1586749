"""How does a value that changes from epoch to epoch get into a state?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp

from jaxdarts.bilevel import set_hyperparameters
from jaxdarts.methods import SearchState


def set_values(state: SearchState, values: Mapping[str, float]) -> SearchState:
    """A state with other scheduled values, by the names of `Method.schedules`; what isn't compiled in is left out."""
    parts: dict[str, dict[str, float]] = {"weights": {}, "alpha": {}}
    own = dict(state.values)
    for name, value in values.items():
        owner, _, rest = name.rpartition("/")
        if owner:
            parts[owner][rest] = value
        elif name in own:
            own[name] = jnp.full_like(own[name], value)
    return dataclasses.replace(
        state,
        values=own,
        opt_state=set_hyperparameters(state.opt_state, **parts["weights"]) if parts["weights"] else state.opt_state,
        alpha_opt_state=set_hyperparameters(state.alpha_opt_state, **parts["alpha"])
        if parts["alpha"]
        else state.alpha_opt_state,
    )
