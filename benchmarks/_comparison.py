"""How is a hypergradient compared with the truth, and timed? The measuring part of hypergradient.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import compile_form, interleaved_medians

import jaxdarts as jd
from jaxdarts.bilevel.products import add_scaled, value_and_gradients
from jaxdarts.data import normalise
from jaxdarts.plans.base import Built
from jaxdarts.plans.search import build_search
from jaxdarts.runs.scheduled_values import set_values
from jaxdarts.runs.steps import cursors, make_steps

EXACT = "unrolled(1)"


class Search(NamedTuple):
    """A search that is ready to run."""

    config: jd.SearchConfig
    built: Built

    @property
    def problem(self) -> Any:
        return self.built.experiments[0].method.problem


def make_search(config: jd.SearchConfig) -> Search:
    return Search(config, build_search([config], config))


class Point(NamedTuple):
    """Where derivatives are taken: numpy arrays, as the search has them."""

    params: Any
    alpha: Any
    opt_state: Any
    batch_stats: Any


class Arguments(NamedTuple):
    """All that an estimator is a function of."""

    point: Point
    train: jd.Batch
    valid: jd.Batch

    def astype(self, dtype: str) -> Arguments:
        """The same numbers, all floats in another precision."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf, self)


class LookAhead(NamedTuple):
    """The exact one-step hypergradient is alpha_gradient + mixed."""

    alpha_gradient: Any  # of the outer objective after the step
    direction: Any  # in w, which the mixed term is along
    mixed: Any


def in_precision(dtype: str) -> Any:
    """A context in which jit keeps float64, or has only float32 as usual."""
    return jax.enable_x64(dtype == "float64")


def reach_points(search: Search, train_steps: Sequence[int]) -> dict[int, Point]:
    """The search's state after each number of steps, in a constant learning rate."""
    (experiment,), points = search.built.experiments, {}
    steps, drawn = make_steps(search.built, jax.devices()), None
    state = set_values(experiment.start(), {name: schedule(0) for name, schedule in experiment.schedules.items()})
    for step in range(max(train_steps) + 1):
        if step in train_steps:
            found = Point(state.params, state.alpha, state.opt_state, state.stats)
            points[step] = jax.tree.map(np.array, found)  # copies: the step overwrites its input
        if step == max(train_steps):
            break
        if step % steps.steps_per_epoch == 0:
            drawn = cursors(experiment, step // steps.steps_per_epoch, None)
        state, _ = steps.step(state, steps.data, drawn)
    return points


def draw_batches(search: Search, batch_size: int, draws: int, seed: int) -> list[tuple[jd.Batch, jd.Batch]]:
    """Independent pairs of a train and a valid batch, normalised, in float32."""
    random, images_of = np.random.default_rng(seed), search.built.data

    def draw(data: jd.Batch) -> jd.Batch:
        chosen = random.choice(len(data.labels), batch_size, replace=False)
        images = normalise(data.images[chosen], images_of.dataset.mean, images_of.dataset.std)
        return jd.Batch(np.asarray(images), np.asarray(data.labels[chosen]))

    return [(draw(images_of.train), draw(images_of.valid)) for _ in range(draws)]


class Estimators:
    """Functions of `Arguments` on one search problem; its two jitted functions compile once for all points."""

    def __init__(self, search: Search) -> None:
        self.problem, config = search.problem, search.config
        self.update = jd.virtual_step_optimiser(config.learning_rate, config.momentum, config.l2)
        self.key = jax.random.key(0) if search.problem.network.needs_key else None
        self.gradients, self.mixed_product = jax.jit(self._gradients), jax.jit(self._mixed_product)

    def loss(self, point: Point) -> Callable[..., Any]:
        return partial(jd.train_mode_loss, self.problem, batch_stats=point.batch_stats, key=self.key)

    def hypergradient(self, estimator: Callable[..., Any], arguments: Arguments) -> Any:
        """An estimator of the library on this problem."""
        (point, train, valid), loss = arguments, self.loss(arguments.point)
        inner = jd.InnerStep(self.update, point.opt_state)
        return estimator(jd.Bilevel(loss, loss), inner, point.params, point.alpha, train, valid)[0]

    def look_ahead(self, arguments: Arguments) -> LookAhead:
        """`unrolled()` in its parts, put together from the two jitted functions."""
        point, train, valid = arguments
        gradient, _ = self.gradients(point, point.params, train)

        def step(gradient: Any) -> Any:
            updates, _ = self.update.update(gradient, point.opt_state, point.params)
            return optax.apply_updates(point.params, updates)

        params, pull_back = jax.vjp(step, gradient)
        weight_gradient, alpha_gradient = self.gradients(point, params, valid)
        (direction,) = pull_back(weight_gradient)
        return LookAhead(alpha_gradient, direction, self.mixed_product(point, train, direction))

    def _gradients(self, point: Point, params: Any, batch: jd.Batch) -> tuple[Any, Any]:
        return value_and_gradients(self.loss(point), params, point.alpha, batch)[1]

    def _mixed_product(self, point: Point, batch: jd.Batch, direction: Any) -> Any:
        return jd.bilevel.mixed_product(self.loss(point), point.params, point.alpha, batch, direction)


def as_vector(alpha: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(alpha)])


def relative(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(value.astype(np.float64) - truth) / np.linalg.norm(truth))


def cosine(value: np.ndarray, truth: np.ndarray) -> float:
    value = value.astype(np.float64)
    return float(value @ truth / (np.linalg.norm(value) * np.linalg.norm(truth)))


def shared_part(errors: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float | None:
    """Norm of the errors' mean over all batches, over that of the truths' mean, without bias from there being few."""
    pairs = [(np.dot(errors[i], errors[j]), np.dot(truths[i], truths[j]))
             for i, j in itertools.combinations(range(len(errors)), 2)]  # fmt: skip
    error, truth = np.mean(pairs, axis=0) if pairs else (0, 0)
    return float(np.sqrt(max(error, 0) / truth)) if truth > 0 else None


class Difference(NamedTuple):
    """One estimate in one precision on one draw, as vectors."""

    alpha_gradient: np.ndarray
    mixed: np.ndarray

    @property
    def whole(self) -> np.ndarray:
        return self.alpha_gradient + self.mixed


def sweep(estimators: Estimators, cases: list[Arguments], radii: Sequence[float], dtype: str) -> dict[Any, Any]:
    """{EXACT or radius: [Difference of every case]} in one precision."""
    with in_precision(dtype):
        found: dict[Any, list[Difference]] = {EXACT: [], **{radius: [] for radius in radii}}
        for case in cases:
            arguments = jax.tree.map(jnp.asarray, case.astype(dtype))
            point = arguments.point
            ahead = estimators.look_ahead(arguments)
            alpha_gradient = as_vector(ahead.alpha_gradient)
            found[EXACT].append(Difference(alpha_gradient, as_vector(ahead.mixed)))
            norm = float(optax.tree.norm(ahead.direction))
            for radius in radii:
                scale = jnp.asarray(radius / norm, dtype)
                above, below = (
                    as_vector(estimators.gradients(point, params, arguments.train)[1])
                    for params in (add_scaled(point.params, signed, ahead.direction) for signed in (scale, -scale))
                )
                found[radius].append(Difference(alpha_gradient, (above - below) / (2 * radius / norm)))
    return found


def compare(found: dict[Any, list[Difference]], truth: list[Difference]) -> list[dict[str, Any]]:
    """One row per estimate: errors relative to the truth, medians over the draws, and their range."""
    rows = []
    wholes = [one.whole for one in truth]
    for radius, draws in found.items():
        pairs = list(zip(draws, truth, strict=True))
        errors = [relative(one.whole, true.whole) for one, true in pairs]
        rows.append(
            {
                "radius": None if radius == EXACT else radius,
                "error": float(np.median(errors)),
                "error_range": [min(errors), max(errors)],
                "mixed_error": float(np.median([relative(one.mixed, true.mixed) for one, true in pairs])),
                "cosine": float(np.median([cosine(one.whole, true.whole) for one, true in pairs])),
                "shared_error": shared_part([one.whole - true.whole for one, true in pairs], wholes),
            }
        )
    return rows


def cost_rows(
    estimators: Estimators,
    cases: list[Arguments],
    truth: Sequence[np.ndarray],
    forms: Mapping[str, Callable[..., Any]],
    precisions: Sequence[str],
    repeats: int,
) -> list[dict[str, Any]]:
    """Every form in every precision: time, memory, distance to the truth of each case. One of the forms is EXACT."""
    rows: list[dict[str, Any]] = []
    for dtype in precisions:
        with in_precision(dtype):
            arguments = [jax.tree.map(jnp.asarray, case.astype(dtype)) for case in cases]
            compiled = {
                name: compile_form(partial(estimators.hypergradient, form), arguments[0])
                for name, form in forms.items()
            }
            seconds = interleaved_medians(
                {name: partial(run, arguments[0]) for name, (run, _) in compiled.items()}, repeats
            )
            for name, (run, cost) in compiled.items():
                pairs = list(zip([as_vector(run(one)) for one in arguments], truth, strict=True))
                rows.append(
                    {
                        "estimator": name,
                        "precision": dtype,
                        "seconds": seconds[name],
                        "exact_ratio": seconds[name] / seconds[EXACT],
                        **cost,
                        "distance": float(np.median([relative(*pair) for pair in pairs])),
                        "cosine": float(np.median([cosine(*pair) for pair in pairs])),
                    }
                )
    return rows
