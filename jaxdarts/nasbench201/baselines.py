"""How well do searches that only query a table do on NAS-Bench-201, with the same number of queries?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.spaces import Benchmark, DenseGenotype
from jaxdarts.spaces.benchmark import DATA_SETS
from jaxdarts.spaces.nasbench201 import NUM_CELLS, OPERATIONS, cell_index, cells

Objective = Callable[[int], float]  # index of a cell -> what is maximised
Baseline = Callable[[Objective, int, np.random.Generator], list[int]]  # budget -> the cells queried, in order
_CONFIDENCE = 1.96  # of 95 % of a normal distribution, in standard errors


class Curve(NamedTuple):
    """Test accuracy, in percent, of the best cell so far by the objective, after each query: float[budget]."""

    mean: np.ndarray  # over repetitions
    low: np.ndarray  # 95 % confidence band of the mean
    high: np.ndarray
    std: np.ndarray  # of the repetitions


def random_search(objective: Objective, budget: int, random: np.random.Generator) -> list[int]:
    """Different cells, drawn uniformly."""
    return [int(index) for index in random.permutation(NUM_CELLS)[:budget]]


def regularised_evolution(
    objective: Objective, budget: int, random: np.random.Generator, population: int = 10, sample: int = 3
) -> list[int]:
    """Aging evolution (Real et al. 2019): the best of a sample is changed on one edge, and the oldest cell leaves.

    Population and sample as the benchmark's authors use them. A cell that is seen again counts as a query.
    """
    queried = random_search(objective, min(population, budget), random)
    alive = deque(queried, maxlen=population)
    while len(queried) < budget:
        parents = random.choice(len(alive), min(sample, len(alive)), replace=False)
        parent = cells()[max((alive[place] for place in parents), key=objective)]
        edge = int(random.integers(len(parent.cell)))
        others = [name for name in OPERATIONS if name != parent.cell[edge]]
        changed = others[int(random.integers(len(others)))]
        child = cell_index(DenseGenotype((*parent.cell[:edge], changed, *parent.cell[edge + 1 :])))
        queried.append(child)
        alive.append(child)
    return queried


def bayesian(objective: Objective, budget: int, random: np.random.Generator) -> list[int]:
    """Tree-structured Parzen estimators over the six edges (Bergstra et al. 2011), by optuna (extra `baselines`)."""
    try:
        import optuna
    except ImportError as error:
        raise InputError("baselines: 'bayesian' needs optuna; install jaxdarts[baselines] or leave it out") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    queried: list[int] = []

    def value(trial: optuna.Trial) -> float:
        chosen = [trial.suggest_categorical(f"edge_{edge}", OPERATIONS) for edge in range(6)]
        queried.append(cell_index(DenseGenotype(tuple(chosen))))
        return objective(queried[-1])

    sampler = optuna.samplers.TPESampler(seed=int(random.integers(2**31)))
    optuna.create_study(direction="maximize", sampler=sampler).optimize(value, n_trials=budget)
    return queried


BASELINES: dict[str, Baseline] = {
    "random": random_search,
    "evolution": regularised_evolution,
    "bayesian": bayesian,
}


def run_baselines(
    table: Benchmark,
    names: list[str],
    data_set: str = "cifar10",
    budget: int = 100,
    repetitions: int = 50,
    seed: int = 0,
) -> dict[str, Curve]:
    """Runs each baseline `repetitions` times.

    What is maximised is the validation accuracy (the test accuracy in a table that has none), what is told the test
    accuracy; both of the longest training that the table has.

    Raises:
      InputError: an unknown baseline or data set, no column for it, or a number out of range.
    """
    for name in names:
        if name not in BASELINES:
            raise unknown_choice("baseline", name, BASELINES)
    if not 1 <= budget <= NUM_CELLS:
        raise InputError(f"budget must be between 1 and {NUM_CELLS}; got {budget}")
    if repetitions < 2:
        raise InputError(f"repetitions must be at least 2, for a confidence band; got {repetitions}")
    test = table.accuracies(data_set)
    if test is None:
        raise InputError(f"data_set: the table has no test accuracies of {data_set!r}; choose from {_known(table)}")
    valid = table.accuracies(data_set, "valid")
    score = test if valid is None else valid
    curves = {}
    for name in names:
        runs = []
        for repetition in range(repetitions):
            queried = np.array(BASELINES[name](lambda i: float(score[i]), budget, _generator(seed, name, repetition)))
            best = [queried[: count + 1][score[queried[: count + 1]].argmax()] for count in range(budget)]
            runs.append(test[best])
        curves[name] = _curve(np.array(runs))
    return curves


def _generator(seed: int, name: str, repetition: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(BASELINES).index(name), repetition])


def _known(table: Benchmark) -> str:
    return ", ".join(name for name in DATA_SETS if table.accuracies(name) is not None)


def _curve(runs: np.ndarray) -> Curve:
    mean, std = runs.mean(axis=0), runs.std(axis=0, ddof=1)
    half = _CONFIDENCE * std / np.sqrt(len(runs))
    return Curve(mean, mean - half, mean + half, std)
