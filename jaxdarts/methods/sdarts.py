"""SmoothDARTS (Chen and Hsieh 2020): w learns under mixing weights that are moved away from alpha's, and so stays flat.

RS moves them at random, ADV to where the loss is larger. Only the step on w sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.checks import Check, at_least
from jaxdarts.methods.base import Ingredients, Method, MethodEntry, Problem, SearchState, View
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.relaxations import Alpha
from jaxdarts.methods.sampling import Draw, drawn_as
from jaxdarts.networks.functional import Context
from jaxdarts.networks.supernet import Weights
from jaxdarts.settings import Group
from jaxdarts.spaces import CellSpace

RADIUS = "perturbation"  # the scheduled value
MixingWeights = dict[str, jax.Array]  # float[edges, operations] for each cell type


@dataclass(frozen=True)
class Perturbation(Group):
    """SmoothDARTS."""

    perturbation_start: float = 0.03
    """Largest change of a mixing weight in the first epoch."""
    perturbation_end: float = 0.3
    """Where that goes linearly; it would be reached after the last epoch."""
    checks: ClassVar = [
        Check(name, lambda value: 0 <= value <= 1, "between 0 and 1")
        for name in ("perturbation_start", "perturbation_end")
    ]


@dataclass(frozen=True)
class Attack(Group):
    """The attack of SDARTS-ADV."""

    attack_steps: int = 7
    """Steps of gradient ascent in the mixing weights, at every step on w."""
    checks: ClassVar = at_least(1, "attack_steps")


def project(space: CellSpace, weights: Mapping[str, jax.Array]) -> MixingWeights:
    """The nearest thing to mixing weights: entries between 0 and 1, divided by their sum.

    An edge with no positive entry gets 1 at its largest one, the first of equals. Entries that pad a list are 0.
    """

    def one(cell: str) -> jax.Array:
        mask = jnp.asarray(space.mask(cell))
        clipped = jnp.where(mask, jnp.clip(weights[cell], 0, 1), 0)
        largest = jnp.where(mask, weights[cell], -jnp.inf).argmax(axis=-1)
        sums = clipped.sum(axis=-1, keepdims=True)
        only = jax.nn.one_hot(largest, clipped.shape[-1], dtype=clipped.dtype)
        return jnp.where(sums > 0, clipped / jnp.where(sums > 0, sums, 1), only)

    return {cell: one(cell) for cell in space.cell_types}


def uniform(space: CellSpace) -> Draw:
    """Independent numbers between -1 and 1 for every entry of alpha."""

    def draw(key: jax.Array) -> dict[str, jax.Array]:
        keys = jax.random.split(key, len(space.cell_types))
        shapes = [space.alpha_shape(cell) for cell in space.cell_types]
        numbers = [jax.random.uniform(own, shape, minval=-1) for own, shape in zip(keys, shapes, strict=True)]
        return dict(zip(space.cell_types, numbers, strict=True))

    return draw


def moved(
    space: CellSpace, weights: Mapping[str, jax.Array], noise: Mapping[str, jax.Array], radius: jax.Array
) -> MixingWeights:
    """The weights plus `radius` times numbers between -1 and 1, projected."""
    return project(space, {cell: weights[cell] + radius * noise[cell] for cell in space.cell_types})


class Attacked(NamedTuple):
    """What an attack has found, and how it came there."""

    weights: MixingWeights  # those of the last step, or the ones at the beginning where these are worse for w
    iterates: MixingWeights  # after each step, with a leading axis
    gradients: MixingWeights  # of the loss where each step begins
    losses: jax.Array  # float[steps + 2]: at the given weights, at the start, and after each step


def attack(
    space: CellSpace,
    loss: Callable[[MixingWeights], jax.Array],
    weights: Mapping[str, jax.Array],
    noise: Mapping[str, jax.Array],
    radius: jax.Array,
    steps: int,
) -> Attacked:
    """Projected gradient ascent by signs from a random start, in the ball of this radius (the paper's eq. 7).

    Each step has length `2 radius / steps`. The ball, in the largest difference of an entry, comes before the
    projection, so that what is returned may lie outside of it.

    Args:
      space: whose mixing weights.
      loss: of mixing weights.
      weights: in the middle of the ball.
      noise: between -1 and 1: the start, in units of the radius.
      radius: scalar.
      steps: at least 1.

    Cost: `steps` gradients and two evaluations of the loss.
    """
    middle = {cell: weights[cell] for cell in space.cell_types}
    start = moved(space, middle, noise, radius)

    def ascend(point: MixingWeights, _: None) -> Any:
        value, gradient = jax.value_and_grad(loss)(point)
        ahead = {cell: point[cell] + 2 * radius / steps * jnp.sign(gradient[cell]) for cell in point}
        inside = {cell: middle[cell] + jnp.clip(ahead[cell] - middle[cell], -radius, radius) for cell in point}
        new = project(space, inside)
        return new, (new, gradient, value)

    before = loss(middle)
    last, (iterates, gradients, values) = jax.lax.scan(ascend, start, None, length=steps)
    after = loss(last)
    kept = {cell: jnp.where(before > after, middle[cell], last[cell]) for cell in last}
    return Attacked(kept, iterates, gradients, jnp.concatenate([before[None], values, after[None]]))


def measured_loss(problem: Problem, state: SearchState, view: View, edges: Any) -> Callable[[MixingWeights], jax.Array]:
    """The inner objective as a function of the mixing weights, in evaluation mode: by the running statistics."""
    context = Context(False, jax.random.key(0) if problem.network.needs_key else None, state.values)

    def loss(weights: MixingWeights) -> jax.Array:
        mixed = Weights(weights, edges)
        outputs, _, _ = problem.network.apply(state.params, state.stats, mixed, view.batch, view.memory, context)
        return problem.task.inner_loss(outputs, view.batch)[0]

    return loss


def _build(
    ingredients: Ingredients,
    move: Callable[[Problem, SearchState, View, Weights, MixingWeights], MixingWeights],
    draw: Draw | None,
    options: Mapping[str, Any],
) -> Method:
    settings, space = ingredients.settings, ingredients.problem.space
    assert space is not None
    numbers = draw or uniform(space)

    @jax.jit
    def seen(problem_state: tuple[SearchState, Alpha, View]) -> Alpha:
        state, alpha, view = problem_state
        # The step's own keys are 0 and 1 of these.
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 2)
        weights = method.problem.mean_weights(alpha, state.values)
        found = move(method.problem, state, view, weights, drawn_as(numbers, alpha, key))
        # The alpha whose softmax they are, so that the step on w is the program that others have.
        scale = state.values.get("temperature", 1)
        return {**alpha, **{cell: scale * jnp.log(found[cell]) for cell in space.cell_types}}

    def perturb(problem: Problem, state: SearchState, alpha: Alpha, view: View) -> Alpha:
        return seen((state, alpha, view))

    start, end = settings.perturbation_start, settings.perturbation_end
    method = gradient_method(
        ingredients,
        perturb=perturb,
        values=(RADIUS,),
        schedules={RADIUS: lambda epoch: start + (end - start) * epoch / settings.epochs},
        **options,
    )
    return method


def build_sdarts_rs(ingredients: Ingredients, draw: Draw | None = None, **options: Any) -> Method:
    """DARTS whose step on w has mixing weights with uniform noise. `draw`: between -1 and 1; None: from the key."""

    def move(problem: Problem, state: SearchState, view: View, weights: Weights, noise: MixingWeights) -> MixingWeights:
        assert problem.space is not None
        return moved(problem.space, weights.operations, noise, state.values[RADIUS])

    return _build(ingredients, move, draw, options)


def build_sdarts_adv(ingredients: Ingredients, draw: Draw | None = None, **options: Any) -> Method:
    """DARTS whose step on w has the mixing weights near alpha's under which w is worst. `draw`: as of RS.

    Cost: `attack_steps` gradients and two forward passes more than DARTS, in evaluation mode.
    """

    # Differs from SmoothDARTS' code, in which the attack sees running statistics that the step on alpha has moved.
    def move(problem: Problem, state: SearchState, view: View, weights: Weights, noise: MixingWeights) -> MixingWeights:
        assert problem.space is not None
        loss, steps = measured_loss(problem, state, view, weights.edges), ingredients.settings.attack_steps
        return attack(problem.space, loss, weights.operations, noise, state.values[RADIUS], steps).weights

    return _build(ingredients, move, draw, options)


_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "": {"hypergradient": "first_order"},
    "paper/nasbench201": {"epochs": 100},
}
_DRAWS = {RADIUS: "Largest perturbation of a mixing weight"}
SDARTS_RS = MethodEntry(
    build_sdarts_rs,
    "the strongest operations of alpha, for which w learned under mixing weights with random noise",
    settings=(Perturbation,),
    defaults=_DEFAULTS,
    draws=_DRAWS,
    takes_single_level=False,
)
SDARTS_ADV = MethodEntry(
    build_sdarts_adv,
    "the strongest operations of alpha, for which w learned under the mixing weights near them that are worst for it",
    settings=(Perturbation, Attack),
    defaults=_DEFAULTS,
    draws=_DRAWS,
    takes_single_level=False,
)
