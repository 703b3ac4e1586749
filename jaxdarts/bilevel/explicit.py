"""How the outer gradient is taken after explicit inner steps: none, one, or several."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdarts.bilevel.hyperparameters import check_between, check_count
from jaxdarts.bilevel.loops import scan
from jaxdarts.bilevel.parts import part
from jaxdarts.bilevel.problem import Alpha, Batch, Bilevel, HypergradientFn, HypergradientInfo, InnerStep, Params
from jaxdarts.bilevel.products import (
    add_scaled,
    apply_update,
    mixed_product,
    products,
    updated,
    value_and_alpha_gradient,
    value_and_gradients,
)
from jaxdarts.errors import InputError


def first_order() -> HypergradientFn:
    """The outer gradient in alpha with the weights held fixed (Liu et al. 2019, eq. 7 with xi = 0).

    Cost: one gradient. The inner step and the train batch are not looked at.
    """

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        (valid_loss, aux), gradient = value_and_alpha_gradient(problem.valid_loss, params, alpha, valid_batch)
        return gradient, HypergradientInfo(valid_loss, aux)

    return hypergradient


def finite_difference(radius: float = 1e-2) -> HypergradientFn:
    """The outer gradient after one inner step, its mixed product by a central difference (Liu et al. 2019, eq. 7-8).

    As the DARTS and RobustDARTS codes: the difference is taken around the weights *before* the step, which are moved
    by `radius` to both sides. There the direction is v, the outer gradient after the step; here it is v taken
    back through the optimiser's update, which for SGD (with or without momentum and L2) is `-learning_rate * v`,
    the same line.

    Args:
      radius: length of the displacement of the weights, positive.

    Raises:
      InputError: `radius` is not positive.

    Cost: four gradients. Error: of order two in `radius` where the train loss is smooth; ReLU and max pooling are not,
    and with them a smaller radius can be worse (docs/numerics.md). `unrolled()` is exact.
    """
    check_between("radius", radius, 0, inf, "be a positive number")

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        step = _virtual_step(problem, inner, params, alpha, train_batch, valid_batch)
        scale, above, below = _displaced(radius, params, step.direction)
        _, gradient_above = value_and_alpha_gradient(problem.train_loss, above, alpha, train_batch)
        _, gradient_below = value_and_alpha_gradient(problem.train_loss, below, alpha, train_batch)
        mixed = jax.tree.map(jnp.subtract, gradient_above, gradient_below)
        return add_scaled(step.alpha_gradient, 1 / (2 * scale), mixed), step.info

    return hypergradient


def unrolled(steps: int = 1, stacked_batches: bool = False) -> HypergradientFn:
    """The exact outer gradient after `steps` inner steps of the inner optimiser (Liu et al. 2019, eq. 7 for one step).

    The optimiser's own update is differentiated, momentum, L2, clipping and all; the state it starts from is held
    fixed. Several steps are the reverse mode of Franceschi et al. 2017, algorithm 1.

    Args:
      steps: inner steps, at least 1.
      stacked_batches: False: every step uses the one train batch. True: every leaf of the train batch has a leading
        axis of length `steps`, a batch a step.

    Raises:
      InputError: `steps` is not a whole number of at least 1, or not the leading axis of a stacked train batch.

    Cost: `1 + steps` gradients and `steps` mixed products, each about two gradients (of which one gradient is shared
    when `steps` is 1). Memory: that of one product, and `steps` copies of weights, gradient and optimiser
    state, not of activations. An update that has no derivative where it is used (Adam at a gradient of exactly zero)
    gives NaN, as it does under automatic differentiation; Adam's `eps_root` is made for that.
    """
    steps = check_count("steps", steps)

    def hypergradient(
        problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
    ) -> tuple[Alpha, HypergradientInfo]:
        if stacked_batches:
            _check_stacked(train_batch, steps)
        if steps > 1:
            fixed = (problem, inner.update, steps, stacked_batches)
            return _several_steps(*fixed, inner.state, params, alpha, train_batch, valid_batch)
        if stacked_batches:
            train_batch = jax.tree.map(lambda leaf: leaf[0], train_batch)
        step = _virtual_step(problem, inner, params, alpha, train_batch, valid_batch)
        mixed = mixed_product(problem.train_loss, params, alpha, train_batch, step.direction)
        return add_scaled(step.alpha_gradient, 1, mixed), step.info

    return hypergradient


class _VirtualStep(NamedTuple):
    alpha_gradient: Alpha  # of the outer objective at w', w' held fixed
    direction: Params  # the outer gradient in w', taken back through the update to the inner gradient
    info: HypergradientInfo


def _virtual_step(
    problem: Bilevel, inner: InnerStep, params: Params, alpha: Alpha, train_batch: Batch, valid_batch: Batch
) -> _VirtualStep:
    _, (gradient, _) = value_and_gradients(problem.train_loss, params, alpha, train_batch)
    new_params, _ = apply_update(inner.update, gradient, inner.state, params)
    outer, (weight_gradient, alpha_gradient) = value_and_gradients(problem.valid_loss, new_params, alpha, valid_batch)
    direction = pull_back(inner.update, gradient, inner.state, params, weight_gradient)
    return _VirtualStep(alpha_gradient, direction, HypergradientInfo(*outer))


@part(1, drops_results=True)
def pull_back(
    update: optax.GradientTransformation, gradient: Params, state: optax.OptState, params: Params, cotangent: Params
) -> Params:
    """The derivative in `gradient` of the parameters after the update, transposed, times `cotangent`."""
    # The function itself: what computes a piece in its place need not be differentiable.
    _, transposed = jax.vjp(lambda g: updated(update, g, state, params)[0], gradient)
    return transposed(cotangent)[0]


@part(0)
def _displaced(radius: float | jax.Array, params: Params, direction: Params) -> tuple[jax.Array, Params, Params]:
    """The factor that makes `direction` as long as `radius`, and the weights moved by that to both sides."""
    with jax.numpy_dtype_promotion("standard"):
        norm = optax.tree.norm(direction)
    # A zero direction moves nothing and the difference is zero; only the division must not see it.
    scale: jax.Array = radius / jnp.where(norm > 0, norm, 1)
    return scale, add_scaled(params, scale, direction), add_scaled(params, -scale, direction)


@part(4)
def _several_steps(
    problem: Bilevel,
    optimiser: optax.GradientTransformation,
    steps: int,
    stacked_batches: bool,
    optimiser_state: optax.OptState,
    params: Params,
    alpha: Alpha,
    train_batch: Batch,
    valid_batch: Batch,
) -> tuple[Alpha, HypergradientInfo]:
    # Written out instead of jax.grad through the scan: forward over reverse is faster than reverse over reverse and
    # keeps no activations between the steps.
    leaves, structure = jax.tree.flatten(optimiser_state)
    is_smooth = [jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact) for leaf in leaves]

    def update(params: Params, smooth: list[Any], fixed: list[Any], gradient: Params) -> Any:
        from_smooth, from_fixed = iter(smooth), iter(fixed)
        state = jax.tree.unflatten(structure, [next(from_smooth if s else from_fixed) for s in is_smooth])
        params, state = updated(optimiser, gradient, state, params)
        new_smooth, fixed = _split(jax.tree.leaves(state), is_smooth)
        # A state of weights of several precisions may come back wider than `init` made it; a loop carries one type.
        new_smooth = [new.astype(jnp.result_type(old)) for new, old in zip(new_smooth, smooth, strict=True)]
        return (params, new_smooth), fixed

    def forward(carry: Any, batch: Batch) -> Any:
        params, smooth, fixed = carry
        batch = batch if stacked_batches else train_batch
        _, (gradient, _) = value_and_gradients(problem.train_loss, params, alpha, batch)
        (new_params, new_smooth), new_fixed = update(params, smooth, fixed, gradient)
        return (new_params, new_smooth, new_fixed), (params, smooth, fixed, gradient)

    def backward(carry: Any, step: Any) -> Any:
        params_bar, smooth_bar, total = carry
        (params, smooth, fixed, gradient), batch = step
        _, pull_back, _ = jax.vjp(lambda w, s, g: update(w, s, fixed, g), params, smooth, gradient, has_aux=True)
        params_bar, smooth_bar, gradient_bar = pull_back((params_bar, smooth_bar))
        batch = batch if stacked_batches else train_batch
        along = products(problem.train_loss, params, alpha, batch, gradient_bar)
        return (add_scaled(params_bar, 1, along[0]), smooth_bar, add_scaled(total, 1, along[1])), None

    batches = train_batch if stacked_batches else None
    start = (params, *_split(leaves, is_smooth))
    (last_params, last_smooth, _), trajectory = scan(forward, start, batches, steps)
    outer, (weight_gradient, alpha_gradient) = value_and_gradients(problem.valid_loss, last_params, alpha, valid_batch)
    end = (weight_gradient, jax.tree.map(jnp.zeros_like, last_smooth), alpha_gradient)
    (_, _, total), _ = scan(backward, end, (trajectory, batches), steps, reverse=True)
    return total, HypergradientInfo(*outer)


def _split(leaves: list[Any], is_smooth: list[bool]) -> tuple[list[Any], list[Any]]:
    """Counters and keys have no derivative, and a scan carries no float0 for them."""
    marked = list(zip(leaves, is_smooth, strict=True))
    return [leaf for leaf, s in marked if s], [leaf for leaf, s in marked if not s]


def _check_stacked(train_batch: Batch, steps: int) -> None:
    for leaf in jax.tree.leaves(train_batch):
        if jnp.shape(leaf)[:1] != (steps,):
            raise InputError(f"train_batch must have a leading axis of {steps} steps, got shape {jnp.shape(leaf)}")
