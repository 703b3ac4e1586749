"""Does GDAS do what its authors' code does? Used by check_methods.py.

Not compared: `conv_bias/*`, biases that batch norm cancels; and `nasnet_cases`, whose derivation in the spaces of DARTS
may take two operations of one edge, which no genotype here can hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from method_setting import Setting, genotypes, passes
from relative_errors import Row, array_rows, group_rows

from jaxdarts.bilevel import set_hyperparameters, value_and_gradients, weight_optimiser
from jaxdarts.methods.base import Ingredients, Method, relaxation_and_network_keys
from jaxdarts.methods.darts import step_keys
from jaxdarts.methods.gdas import GRADIENTS, build_gdas, gumbel, straight_through
from jaxdarts.methods.relaxations import Alpha
from jaxdarts.methods.sampling import Draw, soft_sample
from jaxdarts.networks import Weights
from jaxdarts.networks.functional import Context
from jaxdarts.tasks.classification import Batch, loss


def check_gdas(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, arrays, space = own.case, own.case.arrays, own.space
    alpha = {"cell": jnp.asarray(arrays["alpha"])}
    root, tau = jax.random.key(0), arrays["tau"]
    # The noise of a pass is known by its key: those of the steps' passes, and of two more.
    noises = [*arrays.get("step/noise", ()), arrays["noise"], arrays["valid_noise"]]
    keys = [key for step in range(len(noises) // 2) for key in step_keys(root, jnp.int32(step))]
    draw = _table([relaxation_and_network_keys(key)[0] for key in keys], noises)
    method = build_gdas(Ingredients(own.problem, own.settings), draw, weight_optimiser=_scaled_sgd(own.settings))
    values = {"gdas_temperature": tau}
    for prefix, noise in (("", "noise"), ("valid_", "valid_noise")):
        soft = soft_sample(space, alpha, {"cell": arrays[noise]}, tau)
        weights, samples = straight_through(soft)
        made = {"soft_weights": soft["cell"], "index": samples["cell"].argmax(-1), "hard_weights": weights["cell"]}
        found = {f"{prefix}{name}": value for name, value in made.items()}
        for name in found:
            yield from array_rows(name, found, arrays)
    yield from passes(own, method.problem, alpha, values, keys=(keys[-2], keys[-1]))
    slope = _weights_gradient(own)
    yield from _gradients(own, draw, alpha, tau, keys[-1], slope, "")
    if "cold/tau" in arrays:
        soft = soft_sample(space, alpha, {"cell": arrays["valid_noise"]}, arrays["cold/tau"])
        yield from array_rows("cold/soft_weights", {"cold/soft_weights": soft["cell"]}, arrays)
        yield from _gradients(own, draw, alpha, arrays["cold/tau"], keys[-1], slope, "cold/")
    if "step/noise" in arrays:
        yield from _steps(own, method, alpha, values, root)
    if "tau_schedule" in arrays:
        own.settings.epochs = len(arrays["tau_schedule"])
        schedule = own.method("gdas").schedules["gdas_temperature"]
        found = {"tau_schedule": np.array([schedule(epoch) for epoch in range(own.settings.epochs)])}
        yield from array_rows("tau_schedule", found, arrays)
    yield from genotypes(own, "arch_str", method, [alpha], [case.meta["arch_str"]])
    if "cases" in arrays:
        alphas = [{"cell": value} for value in arrays["cases"]]
        yield from genotypes(own, "cases", method, alphas, case.meta["cases"])


def _table(keys: list[jax.Array], noises: list[np.ndarray]) -> Draw:
    known, table = jnp.stack([jax.random.key_data(key) for key in keys]), jnp.asarray(np.stack(noises))

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        return {"cell": table[(known == jax.random.key_data(key)).all(axis=-1).argmax()]}

    return draw


def _gradients(
    own: Setting, draw: Draw, alpha: Alpha, tau: Any, key: jax.Array, slope: Callable[[Weights], Weights], prefix: str
) -> Iterator[Row]:
    """The gradient in the weights and in alpha that each form of the sample gives, on the valid batch."""
    arrays, own_key = own.case.arrays, relaxation_and_network_keys(key)[0]
    hard, samples = straight_through(soft_sample(own.space, alpha, draw(own_key), tau))
    slopes = slope(Weights(samples, None, {"cell": jnp.zeros(own.space.num_edges)}))
    for form, ending in (("published", ""), ("dense", "_dense"), ("selected", "_selected")):
        relaxation = gumbel(own.space, own.problem.relaxation, form, draw)
        given = lambda a, r=relaxation: r.sample(a, {"gdas_temperature": jnp.asarray(tau)}, own_key)  # noqa: E731
        pulled = slopes if form == "published" else slopes._replace(constants=None)
        found = {f"{prefix}first_order{ending}": jax.vjp(given, alpha)[1](pulled)[0]["cell"]}
        bare = jax.vjp(lambda w, f=form: GRADIENTS[f](w, samples), hard)[1](pulled)[0]["cell"]
        found[f"{prefix}weight_grad{ending}"] = bare
        for name in found:
            if prefix or name != "first_order":  # that is compared where the method takes it itself
                yield from array_rows(name, found, arrays)


def _weights_gradient(own: Setting) -> Callable[[Weights], Weights]:
    """Of the valid loss in everything that the network is given."""

    def value(weights: Weights, params: Any, batch: Batch) -> jax.Array:
        outputs, _, _ = own.problem.network.apply(params, own.stats, weights, batch, (), Context(True))
        return loss(outputs, batch)[0]

    slope = jax.jit(jax.grad(value))
    return lambda weights: slope(weights, own.params, own.valid)


def _scaled_sgd(settings: SimpleNamespace) -> optax.GradientTransformation:
    """The optimiser of w, which is told by what to multiply the gradient in the place of clipping it."""
    plain = (settings.learning_rate, settings.momentum, settings.l2, None)

    def build(scale: Any) -> optax.GradientTransformation:
        return optax.chain(optax.scale(scale), weight_optimiser(*plain, nesterov=settings.nesterov))

    return optax.inject_hyperparams(build)(scale=1.0)


def _steps(own: Setting, method: Method, alpha: Alpha, values: Mapping[str, Any], root: jax.Array) -> Iterator[Row]:
    """Every pass. The reference's norm, by which w's gradient is clipped, also counts alpha's: the method is told."""
    arrays, problem = own.case.arrays, method.problem
    state = dataclasses.replace(own.state(method, alpha, values), key=root)
    losses, norms, alphas, params = [], [], [], []
    left = jax.tree.map(jnp.zeros_like, alpha)  # alpha's gradient of the pass before, which the reference leaves there
    for step in range(len(arrays["step/noise"]) // 2):
        train_key, valid_key = step_keys(root, jnp.int32(step))
        train, valid = own.view(own.train, values, train_key), own.view(own.valid, values, valid_key)
        _, (gradient, slope) = value_and_gradients(problem.outer, state.params, state.alpha, train)
        norm = optax.tree.norm((gradient, jax.tree.map(jnp.add, slope, left)))
        scale = jnp.minimum(own.settings.clip_norm / (norm + 1e-6), 1)
        before = dataclasses.replace(state, opt_state=set_hyperparameters(state.opt_state, scale=scale))
        state, totals = method.step(before, own.train, own.valid)
        _, (_, left) = value_and_gradients(problem.outer, state.params, before.alpha, valid)
        losses.append((totals["train_loss"][0], totals["alpha_loss"][0]))
        norms.append(norm)
        alphas.append(state.alpha["cell"])
        params.append(own.torch(state.params))
    means = np.mean(np.asarray(losses), axis=0)
    found = {"step/alpha": np.stack(alphas), "step/clip_norm": np.stack(norms)}
    found |= {"step/mean_train_loss": means[0], "step/mean_valid_loss": means[1]}
    for name in found:
        yield from array_rows(name, found, arrays)
    stacked = {name: np.stack([one[name] for one in params]) for name in params[0]}
    yield from group_rows("step/params", stacked, own.case.group("step/params"))
