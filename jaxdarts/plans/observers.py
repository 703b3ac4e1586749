"""What is measured at the end of a search's epoch, beside what its steps report?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.bilevel import alpha_product, get_hyperparameters
from jaxdarts.curvature import extreme_eigenvalues_of_operator, top_eigenvalues_of_operator
from jaxdarts.keys import RunKeys
from jaxdarts.methods import StoppingRule, local_average
from jaxdarts.methods.base import RANDOM_VALUES, Method, Problem, Schedule, SearchState, View
from jaxdarts.methods.relaxations import Relaxation
from jaxdarts.nasbench201.benchmark import find_benchmark
from jaxdarts.plans.base import Moment, Observer
from jaxdarts.plans.judge import Measurer, StateJudge
from jaxdarts.spaces import Architecture, CellSpace, genotype_from_json
from jaxdarts.tasks.base import Stream, Task

HessianProduct = Callable[[SearchState, Any], Any]
"""(state, vector) -> the alpha-Hessian of the outer objective times the vector"""
Measure = Callable[[Stream, SearchState], Mapping[str, float]]
"""(part, state) -> every metric's mean; such as a `Measurer`"""


class CurvatureSettings(NamedTuple):
    """How the spectrum of the alpha-Hessian is measured."""

    every: int  # epochs between measurements; 0: none
    products: int  # Hessian-vector products (Lanczos steps) a measurement
    shift: float = 0.0  # added to every eigenvalue
    rule: StoppingRule = StoppingRule()  # by whose reach eigenvalues are smoothed


def genotype_of(method: Method, state: SearchState) -> Architecture:
    """The genotype that a state's mean weights stand for."""
    problem = method.problem
    assert problem.space is not None
    return method.derive(problem.space, problem.mean_weights(state.alpha, state.values), state.alpha)


def values_told(schedules: Mapping[str, Schedule], names: Sequence[str]) -> Observer:
    """The present values of the schedules with these last names, None where there is no such schedule; and of L2."""
    by_name = {name.rpartition("/")[2]: schedule for name, schedule in schedules.items()}

    def observe(moment: Moment) -> Mapping[str, Any]:
        found: dict[str, Any] = {name: by_name[name](moment.epoch) if name in by_name else None for name in names}
        # The shortest text that stands for the number in its precision: 0.0003, not 0.0003000000142492354.
        l2 = float(str(np.asarray(get_hyperparameters(moment.state.opt_state)["l2"])[()]))
        return {**found, "l2": l2}

    return observe


def genotype_told(method: Method) -> Observer:
    """The genotype, and how many skip connections it has."""

    def observe(moment: Moment) -> Mapping[str, Any]:
        genotype = genotype_of(method, moment.state)
        return {"genotype": genotype.to_json(), "skip_connections": genotype.count("skip_connect")}

    return observe


def alpha_told(method: Method) -> Observer:
    """Alpha itself, where it is learned: that of each cell type's operations, and by name what else it holds."""

    def observe(moment: Moment) -> Mapping[str, Any]:
        if "alpha" not in method.learns:
            return {"alpha": None}
        alpha = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64).tolist(), moment.state.alpha)
        others = [name for name, value in alpha.items() if isinstance(value, dict)]
        return {**{f"alpha_{name}": alpha.pop(name) for name in others}, "alpha": alpha}

    return observe


def value_told(name: str) -> Observer:
    """A value of the state that a verdict may have changed."""
    return lambda moment: {name: float(moment.state.values[name])}


def part_measured(measurer: Measure, stream: Stream, name: str, task: Task) -> Observer:
    """Every metric's mean over a part of the data, as `NAME_METRIC`."""

    def observe(moment: Moment) -> Mapping[str, Any]:
        return {f"{name}_{metric}": value for metric, value in measurer(stream, moment.state).items()}

    return observe


def curvature_told(product: HessianProduct, settings: CurvatureSettings, keys: RunKeys) -> Observer:
    """Both ends of the alpha-Hessian's spectrum, and the tracker's average of the dominant one."""
    names = ("dominant_eigenvalue", "smallest_eigenvalue", "largest_magnitude_eigenvalue", "local_average")

    def observe(moment: Moment) -> Mapping[str, Any]:
        if not settings.every or not (moment.epoch % settings.every == 0 or moment.last):
            return dict.fromkeys(names)
        found = extreme_eigenvalues_of_operator(
            lambda vector: product(moment.state, vector),
            moment.state.alpha,
            jax.random.fold_in(keys.curvature, moment.epoch),
            settings.products,
            settings.shift,
            host_loop=True,
        )
        reach = settings.rule.reach
        values = [*(record["dominant_eigenvalue"] for record in moment.history), float(found.largest)]
        measured = [value for value in values if value is not None and math.isfinite(value)]
        return {
            "dominant_eigenvalue": float(found.largest),
            "smallest_eigenvalue": float(found.smallest),
            "largest_magnitude_eigenvalue": float(found.largest_magnitude),
            # The newest average that is known: it is centred some measurements back (Zela et al. 2020).
            "local_average": local_average(measured, reach)[-1 - reach] if len(measured) > reach else None,
        }

    return observe


def choice_told(method: Method, measurer: Measurer, stream: Stream, keys: RunKeys, every: int) -> Observer:
    """What the method would choose now, every so many epochs (0: never)."""

    def observe(moment: Moment) -> Mapping[str, Any]:
        if method.choose is None or not every or (moment.epoch + 1) % every:
            return {}
        key = jax.random.fold_in(keys.selection, moment.step)
        best = method.choose(moment.state, StateJudge(measurer, stream, moment.state), key)[0]
        objective = method.problem.task.objective
        return {"selected": best.genotype.to_json(), f"selected_{objective}": best.score}

    return observe


def benchmark_told(settings: Any, space: CellSpace) -> Observer | None:
    """Looks up the genotype of every epoch, if there is a table."""
    table = find_benchmark(settings, space)
    if table is None:
        return None

    def observe(moment: Moment) -> Mapping[str, Any]:
        return {"benchmark": table.look_up(genotype_from_json(moment.record["genotype"]))}

    return observe


def hessian_product(problem: Problem, stream: Stream, batches: int) -> HessianProduct:
    """Products of the alpha-Hessian of the outer objective, averaged over held validation batches.

    Train-mode batch statistics, no augmentation, the same examples in every epoch, so that the curve shows the search
    and not the choice of batch. Differs from RobustDARTS, which takes the last augmented batch of the epoch.
    What steps drop at random is dropped with probability 0 here, so that their mixed product is the same program.
    Where steps sample their mixing weights it is the Hessian at the mean weights: one through a sample means nothing.

    Args:
      problem: whose outer objective.
      stream: of the part that trains alpha.
      batches: how many of its held batches.
    """
    relaxation = problem.relaxation
    if relaxation.uses_key:
        mean = Relaxation(relaxation.init, lambda alpha, values, key: relaxation.mean(alpha, values), relaxation.mean)
        problem = dataclasses.replace(problem, relaxation=mean)

    @jax.jit
    def view(state: SearchState, data: Any, number: jax.Array) -> View:
        values = {n: jnp.zeros_like(v) if n in RANDOM_VALUES else v for n, v in state.values.items()}
        key = jax.random.key(0) if problem.needs_key(values) else None
        return View(stream.held(data, number), state.stats, state.memory.valid, values, key)

    def average(state: SearchState, vector: Any) -> Any:
        still = jax.tree.map(jnp.zeros_like, state.params)
        total = None
        for number in range(batches):
            inputs = view(state, stream.data, jnp.int32(number))
            one = alpha_product(problem.outer, state.params, state.alpha, inputs, still, vector)
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        return jax.tree.map(lambda leaf: leaf / batches, total)

    return average


def largest_eigenvalues(
    product: HessianProduct, space: CellSpace, state: SearchState, keys: RunKeys, count: int, least: int, shift: float
) -> dict[str, Any]:
    """The alpha-Hessian's eigenvalues, largest by magnitude first, and how far each is from converged.

    Cost: twice as many Hessian-vector products as eigenvalues, or `least`.
    """
    size = sum(int(space.mask(cell).sum()) for cell in space.cell_types)  # entries that pad alpha add only zeros
    length = sum(leaf.size for leaf in jax.tree.leaves(state.alpha))
    size += length - sum(int(np.prod(space.alpha_shape(cell))) for cell in space.cell_types)  # what alpha has besides
    count = min(count, size)
    result = top_eigenvalues_of_operator(
        lambda vector: product(state, vector),
        state.alpha,
        keys.spectrum,
        count,
        min(max(2 * count, least), length),
        "LM",
        shift,
        host_loop=True,
    )
    return {
        "values": np.asarray(result.value, np.float64).tolist(),
        "residuals": np.asarray(result.residual, np.float64).tolist(),
        "of": size,
    }
