"""Does SmoothDARTS do what its authors' code does? Used by check_methods.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from check_networks import Case, check_case
from method_setting import Setting, by_cell, rows
from relative_errors import Row, group_rows

from jaxdarts.interop import to_torch
from jaxdarts.methods.base import Ingredients
from jaxdarts.methods.relaxations import as_given
from jaxdarts.methods.sampling import Draw
from jaxdarts.methods.sdarts import (
    RADIUS,
    Attacked,
    MixingWeights,
    attack,
    build_sdarts_adv,
    build_sdarts_rs,
    measured_loss,
    moved,
    project,
)
from jaxdarts.networks.functional import Context
from jaxdarts.spaces import SearchSpace
from jaxdarts.tasks.classification import loss


def check_sdarts_rs(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, radius = own.case, own.case.meta["epsilon"]
    yield from _common(own)
    noise = case.group("noise")
    perturbed = moved(own.space, _weights(own, own.alpha), _unit(noise, radius), radius)
    yield from by_cell("perturbed", perturbed, case)
    if step_noise := case.group("step/noise"):
        yield from _step(own, build_sdarts_rs, step_noise)


def check_sdarts_adv(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, meta = own.case, own.case.meta
    yield from _common(own)
    found = _attacked(own, own.alpha, case.group("noise"), meta["epsilon"], meta["attack_steps"])
    start = moved(own.space, _weights(own, own.alpha), _unit(case.group("noise"), meta["epsilon"]), meta["epsilon"])
    yield from by_cell("start", start, case)
    yield from by_cell("iterates", found.iterates, case)
    yield from by_cell("attack_grad", found.gradients, case)
    yield from rows({"attack_losses": found.losses}, case)
    yield from by_cell("perturbed", found.weights, case)
    if "undone" in meta:
        undone = meta["undone"]
        alpha = jax.tree.map(jnp.asarray, case.group("undone/alpha"))
        found = _attacked(own, alpha, case.group("undone/noise"), undone["epsilon"], undone["steps"])
        yield from by_cell("undone/last_iterate", {cell: value[-1] for cell, value in found.iterates.items()}, case)
        yield from by_cell("undone/result", found.weights, case)
    if step_noise := case.group("step/noise"):
        yield from _step(own, build_sdarts_adv, step_noise)


def _common(own: Setting) -> Iterator[Row]:
    """The network, the weights, and what it makes of the file's perturbed ones."""
    case = own.case
    yield from check_case(case)
    yield from by_cell("weights", _weights(own, own.alpha), case)
    if "perturbed_loss" in case.arrays:
        yield from _under_perturbed(own)
    yield from _projection(case)


def _under_perturbed(own: Setting) -> Iterator[Row]:
    """In training and in evaluation mode."""
    case = own.case
    given = dataclasses.replace(own.problem, relaxation=as_given())
    perturbed = jax.tree.map(jnp.asarray, case.group("perturbed"))
    (value, seen), (gradient, _) = own.at(given, perturbed)
    yield from rows({"perturbed_logits": seen.totals["logits"], "perturbed_loss": value}, case)
    yield from group_rows("perturbed_grad_w", own.torch(gradient), case.group("perturbed_grad_w"))

    @jax.jit
    def evaluated(weights: MixingWeights) -> Any:
        context, mixed = Context(False), given.mean_weights(weights, {})
        outputs, _, _ = given.network.apply(own.params, own.stats, mixed, own.train, (), context)
        return outputs.main, loss(outputs, own.train)[0]

    logits, value = evaluated(perturbed)
    yield from rows({"perturbed_eval_logits": logits, "perturbed_eval_loss": value}, case)


def _projection(case: Case) -> Iterator[Row]:
    if "clip_input" not in case.arrays:
        return
    given = case.arrays["clip_input"]
    count, operations = given.shape
    names = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3")
    space = SearchSpace.uniform("rows", (*names, "dil_conv_5x5")[:operations], num_nodes=count)
    padded = np.zeros(space.alpha_shape("normal"))
    padded[:count] = given
    found = project(space, {"normal": jnp.asarray(padded), "reduce": jnp.asarray(padded)})
    yield from rows({"clip_output": found["normal"][:count]}, case)


def _weights(own: Setting, alpha: Any) -> MixingWeights:
    return dict(own.problem.mean_weights(alpha, {}).operations)


def _unit(noise: Mapping[str, np.ndarray], radius: float) -> MixingWeights:
    return {cell: jnp.asarray(value / radius) for cell, value in noise.items()}


def _attacked(own: Setting, alpha: Any, noise: Mapping[str, np.ndarray], radius: float, steps: int) -> Attacked:
    @jax.jit
    def run(weights: MixingWeights, noise: MixingWeights) -> Attacked:
        state: Any = dataclasses.replace(_bare_state(own), params=own.params, stats=own.stats)
        found = measured_loss(own.problem, state, own.view(own.train), None)
        return attack(own.space, found, weights, noise, jnp.asarray(radius), steps)

    return run(_weights(own, alpha), _unit(noise, radius))


def _bare_state(own: Setting) -> Any:
    return own.state(own.method("darts"), own.alpha, {})


def _step(own: Setting, build: Any, noise: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """One pass. The reference's step on alpha moves the running statistics, by which the attack then sees the loss."""
    case, radius = own.case, own.case.meta["epsilon"]
    draw: Draw = lambda key: _unit(noise, radius)  # noqa: E731
    method = build(Ingredients(own.problem, own.settings), draw)
    values = {RADIUS: radius}
    _, seen = jax.jit(method.problem.outer)(own.params, own.alpha, own.view(own.valid))
    state = dataclasses.replace(own.state(method, own.alpha, values), stats=seen.stats)
    new, totals = method.step(state, own.train, own.valid)
    yield from by_cell("step/alpha", new.alpha, case)
    yield from rows({"step/train_loss": totals["train_loss"][0]}, case)
    if case.group("step/perturbed"):
        perturbed = moved(own.space, _weights(own, new.alpha), _unit(noise, radius), radius)
        yield from by_cell("step/perturbed", perturbed, case)
        given = dataclasses.replace(own.problem, relaxation=as_given())
        _, (gradient, _) = own.at(given, perturbed)
        yield from rows({"step/grad_norm": optax.tree.norm(gradient)}, case)
    yield from group_rows("step/params", own.torch(new.params), case.group("step/params"))
    running = to_torch(own.module, {"params": new.params, "batch_stats": new.stats})
    yield from group_rows("step/running", running, case.group("step/running"))
