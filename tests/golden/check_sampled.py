"""Do SNAS and DSNAS do what their authors' code does? Used by check_methods.py.

Not compared, as no method has them: `per_cell/*`, a sample for every cell; the resource losses without a logarithm and
by policy gradients, and their `log_density/*`; `entropy` with floored probabilities; `normalised/*`, rewards divided by
their running deviation; genotypes of all edges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from method_setting import Setting, by_cell, passes, rows
from relative_errors import Row, array_rows, group_rows

from jaxdarts.bilevel import clip_by_global_norm, value_and_gradients
from jaxdarts.methods.base import Ingredients, Method, Problem, relaxation_and_network_keys
from jaxdarts.methods.darts import step_keys
from jaxdarts.methods.dsnas import build_dsnas, rewarded
from jaxdarts.methods.relaxations import Alpha, as_given
from jaxdarts.methods.sampling import Draw, log_probabilities
from jaxdarts.methods.snas import TEMPERATURE, build_snas, log_costs
from jaxdarts.networks import Weights
from jaxdarts.spaces import Genotype, discretise


def root_key() -> jax.Array:
    """Of a method's state. A function: an array at import would choose the device before check.py can."""
    return jax.random.key(0)


def pass_key() -> jax.Array:
    """Of the file's passes."""
    return jax.random.key(1)


def step_key() -> jax.Array:
    """Of the file's step."""
    return step_keys(root_key(), jnp.int32(0))[0]


def check_snas(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, arrays, alpha = own.case, own.case.arrays, own.alpha
    steps = {cell: -np.log(-np.log(value)) for cell, value in case.group("step/noise").items()}
    draw = _table(case.group("gumbel"), steps)
    method = build_snas(Ingredients(own.problem, own.settings), draw, alpha_optimiser=_sgd(own))
    problem, values = method.problem, {TEMPERATURE: jnp.asarray(arrays["tau"])}
    yield from by_cell("weights", _sampled(problem, alpha, values).operations, case)
    yield from passes(own, problem, alpha, values, keys=(pass_key(), pass_key()))
    if "cold/tau" in arrays:
        cold = {TEMPERATURE: jnp.asarray(arrays["cold/tau"])}
        yield from by_cell("cold/weights", _sampled(problem, alpha, cold).operations, case)
        (value, seen), (_, slope) = own.at(problem, alpha, cold, pass_key())
        yield from rows({"cold/logits": seen.totals["logits"], "cold/loss": value}, case)
        yield from by_cell("cold/grad_alpha", slope, case)
    if "resource/size" in arrays:
        yield from _resources(own, problem, alpha, values)
    if steps:
        yield from _step(own, method, alpha, values)
    if "tau_schedule" in arrays:
        # The reference's length, whatever the run's.
        own.settings.epochs = len(arrays["tau_schedule"])
        schedule = own.method("snas").schedules[TEMPERATURE]
        yield from rows({"tau_schedule": np.array([schedule(e) for e in range(own.settings.epochs)])}, case)
    yield from _genotypes(own)


def check_dsnas(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, alpha, space = own.case, own.alpha, own.space
    sample = case.group("sample")
    draw = _table(_choosing(sample), _choosing(case.group("step/sample")))
    method = build_dsnas(Ingredients(own.problem, own.settings), draw, alpha_optimiser=_sgd(own))
    problem = method.problem
    yield from by_cell("sample", _sampled(problem, alpha, {}).operations, case)
    yield from passes(own, problem, alpha, {}, keys=(pass_key(), pass_key()))

    def log_prob(alpha: Alpha) -> jax.Array:
        return sum((log_probabilities(space, alpha)[cell] * sample[cell]).sum() for cell in sample)

    value, slope = jax.value_and_grad(log_prob)(alpha)
    yield from rows({"log_prob": value}, case)
    yield from by_cell("log_prob_grad", slope, case)
    if case.group("weight_grad_all"):
        given = dataclasses.replace(own.problem, relaxation=as_given())
        _, (_, slopes) = own.at(given, jax.tree.map(jnp.asarray, sample))
        yield from by_cell("weight_grad_all", slopes, case)
        yield from by_cell("edge_reward", {cell: (slopes[cell] * sample[cell]).sum(-1) for cell in sample}, case)
    if case.group("entropy/grad_alpha"):
        with_entropy = rewarded(space, own.problem.relaxation, True, draw)
        _, (_, slope) = own.at(dataclasses.replace(own.problem, relaxation=with_entropy), alpha, {}, pass_key())
        yield from by_cell("entropy/grad_alpha", slope, case)
    if case.group("step/sample"):
        yield from _step(own, method, alpha, {})
    yield from _genotypes(own)


def _sampled(problem: Problem, alpha: Alpha, values: Mapping[str, Any]) -> Weights:
    return problem.relaxation.sample(alpha, values, relaxation_and_network_keys(pass_key())[0])


def _table(passes: Mapping[str, np.ndarray], steps: Mapping[str, np.ndarray]) -> Draw:
    """The numbers of a pass and of a step, by their keys."""
    known = jax.random.key_data(relaxation_and_network_keys(step_key())[0])

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        is_step = (jax.random.key_data(key) == known).all()
        return {cell: jnp.where(is_step, steps.get(cell, value), value) for cell, value in passes.items()}

    return draw


def _choosing(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Numbers in Gumbel's place by which this is the sample."""
    return {cell: 1e6 * value for cell, value in sample.items()}


def _sgd(own: Setting) -> optax.GradientTransformation:
    """Of alpha, as the reference has it in a single process."""
    return optax.chain(
        clip_by_global_norm(own.case.meta["alpha_grad_clip"]), optax.sgd(own.settings.alpha_learning_rate)
    )


def _resources(own: Setting, problem: Problem, alpha: Alpha, values: Mapping[str, Any]) -> Iterator[Row]:
    case, types = own.case, own.case.meta["resource_cell_types"]
    tables = [list(zip(types, case.arrays[f"resource/{name}"], strict=True)) for name in ("size", "flops", "mac")]
    divisors = {"normal": 6, "reduce": 2}  # the reference's, whatever the number of cells
    for name, weigh in (
        ("reparametrization", lambda a: _sampled(problem, a, values)),
        ("discrete", lambda a: problem.mean_weights(a, values)),
    ):

        def total(a: Alpha, weigh: Any = weigh) -> tuple[jax.Array, dict[str, jax.Array]]:
            costs = log_costs(tables, Weights(weigh(a).operations))
            return sum(costs[cell] / divisor for cell, divisor in divisors.items()), costs

        (_, costs), slope = jax.value_and_grad(total, has_aux=True)(alpha)
        yield from rows({f"resource/{name}/log_penalty": np.array([costs["normal"], costs["reduce"]])}, case)
        yield from by_cell(f"resource/{name}/log_grad", slope, case)


def _step(own: Setting, method: Method, alpha: Alpha, values: Mapping[str, Any]) -> Iterator[Row]:
    """One pass, by one gradient of the train batch."""
    case = own.case
    state = dataclasses.replace(own.state(method, alpha, values), key=root_key())
    new, totals = method.step(state, *own.halves)
    view = own.view(own.train, values, step_key())
    _, gradients = value_and_gradients(method.problem.outer, own.params, alpha, view)
    norms = np.array([optax.tree.norm(gradient) for gradient in gradients])
    found = {"step/train_loss": totals["train_loss"][0], "step/clip_norm": norms}
    for name in found:
        yield from array_rows(name, found, case.arrays)
    yield from by_cell("step/alpha", new.alpha, case)
    yield from group_rows("step/params", own.torch(new.params), case.group("step/params"))


def _genotypes(own: Setting) -> Iterator[Row]:
    """The reference's derivation, in which `none` is an operation like others."""

    def derived(alpha: Mapping[str, Any]) -> Genotype:
        weights = own.problem.mean_weights(jax.tree.map(jnp.asarray, dict(alpha)), {})
        found = discretise(own.space, weights.operations, chooses_none=True)
        assert isinstance(found, Genotype)
        return found

    meta, types = own.case.meta, own.space.cell_types
    yield Row("genotype", 0.0 if derived(own.alpha) == Genotype.from_json(meta["genotype"]) else np.inf)
    if "cases" in own.case.arrays:
        alphas = [dict(zip(types, value, strict=True)) for value in own.case.arrays["cases"]]
        same = [derived(a) == Genotype.from_json(b) for a, b in zip(alphas, meta["cases"], strict=True)]
        yield Row("cases", 0.0 if all(same) else np.inf)
