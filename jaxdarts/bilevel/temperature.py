"""What does a temperature do to alpha itself (TD-DARTS), rather than to the relaxation?"""

from __future__ import annotations

import jax
import numpy as np
import optax

from jaxdarts.bilevel.penalties import as_float
from jaxdarts.bilevel.problem import Alpha
from jaxdarts.errors import InputError


def add_temperature_decay(temperature: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Divides alpha by a temperature at every step, after its update: `alpha = (alpha + update) / temperature`.

    Last in a chain (`alpha_optimiser(last=[...])`). With a constant temperature it is decoupled weight decay at the
    rate `1 - 1 / temperature` a step, so values little above 1 are strong already: 1.001 halves alpha in 693 steps.
    The other reading of a temperature, softmax(alpha / temperature), is `SearchState.temperature`.

    Args:
      temperature: at least 1, since below alpha grows without bound; a number becomes the traced hyperparameter
        "temperature" in the state (`set_hyperparameters`), a schedule counts updates.

    Raises:
      InputError: a number below 1, or not finite.
    """
    if not callable(temperature) and not isinstance(temperature, jax.core.Tracer):
        values = np.asarray(temperature)
        if not (np.isfinite(values).all() and (values >= 1).all()):
            raise InputError(f"temperature must be a finite number of at least 1; got {temperature}")

    def divide(temperature: jax.Array) -> optax.GradientTransformation:
        def update(updates: Alpha, params: Alpha | None) -> Alpha:
            if params is None:
                raise InputError("add_temperature_decay needs the parameters: call update(gradient, state, params)")
            return jax.tree.map(lambda u, a: ((a + u) / temperature - a).astype(u.dtype), updates, params)

        return optax.stateless(update)

    return optax.inject_hyperparams(divide)(temperature=as_float(temperature))
