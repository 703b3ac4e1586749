"""How do parameters rest for a while, such as alpha in a warm-up, while the rest of a run goes on as it is?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.problem import Params


def resting(optimiser: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """An optimiser that does nothing, and remembers nothing, while the traced hyperparameter "moves" is 0.

    "moves" is in the state (`set_hyperparameters`), 1 at the start. Hyperparameters inside `optimiser` still change.

    Cost: that of `optimiser`, also at rest: one program serves both.
    """

    def build(moves: jax.Array) -> optax.GradientTransformation:
        def update(updates: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
            new_updates, new_state = optimiser.update(updates, state, params)
            choose = lambda new, old: jnp.where(moves > 0, new, old)  # noqa: E731
            still = jax.tree.map(lambda new: choose(new, jnp.zeros_like(new)), new_updates)
            return still, jax.tree.map(choose, new_state, state)

        return optax.GradientTransformation(optimiser.init, update)

    return optax.inject_hyperparams(build)(moves=1.0)
