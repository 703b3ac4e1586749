"""A training from scratch: one stage, whose result is how well a genotype does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxdarts.bilevel import compilable
from jaxdarts.keys import run_keys
from jaxdarts.methods.averaging import AVERAGING, averaged
from jaxdarts.methods.base import Method, Problem, SearchState
from jaxdarts.methods.parts import dropout_schedule, learning_rate, weight_values, weights
from jaxdarts.methods.relaxations import as_given
from jaxdarts.methods.retraining import retraining
from jaxdarts.methods.schedules import ramp
from jaxdarts.networks import NetworkCost
from jaxdarts.plans import observers
from jaxdarts.plans.base import Built, Experiment, Moment, Observer, Outcome, Plan, Record, Stage
from jaxdarts.plans.judge import Measurer
from jaxdarts.plans.search import epochs_text
from jaxdarts.precision import working_dtype
from jaxdarts.sharding import data_mesh
from jaxdarts.spaces import Architecture
from jaxdarts.spaces.files import GENOTYPE_FILE
from jaxdarts.tasks import kind_of
from jaxdarts.tasks.base import Stream, Task, better, with_derived

RESULT_FILE = "result.json"
RESTARTS = 10  # of a text network's training, with other masks each time


class Training(NamedTuple):
    """How one genotype is trained, whatever the seed."""

    settings: Any
    genotype: Architecture
    task: Task
    method: Method
    init: Callable[[jax.Array], SearchState]  # the method's, jitted
    measurer: Measurer
    cost: NetworkCost

    def measure(self, stream: Stream, state: SearchState) -> dict[str, float]:
        """Every metric's mean over a part, with the weights that count."""
        return self.measurer(stream, self.method.as_measured(state))


class Trained(NamedTuple):
    """How well a genotype does when it is trained from scratch."""

    result: Mapping[str, Any]  # as in result.json
    outcome: Outcome


def evaluate_plan(settings: Any, genotype: Architecture) -> Plan:
    """One training."""
    stage = Stage(build=lambda: build_evaluation(settings, genotype), epochs=settings.epochs)
    return lambda ended: None if ended else stage


def build_evaluation(settings: Any, genotype: Architecture, data: Any = None, part_of: str = "") -> Built:
    """A training from scratch; compiles nothing.

    Args:
      settings: of the training.
      genotype: what is trained.
      data: of the task, on the device; None: read what the settings name.
      part_of: whose genotype this is, of a stage of another run, which has told most of what there is to say.

    Raises:
      InputError: the data, a size or the number of devices cannot be used.
    """
    mesh = data_mesh(settings.devices, settings.batch_size) if data is None else data.mesh
    data = kind_of(genotype).training_data(settings, mesh) if data is None else data
    training = prepare(settings, genotype, data)
    return Built(
        experiments=(experiment(training, settings.seed, each_epoch(training)),),
        conclude=lambda outcome: _conclude(training, outcome),
        banner=lambda state: _banner(training, part_of),
        shown=(),
        tell=lambda record: _told(training.task, record),
        facts={
            "architecture": genotype.to_json(),
            "parameters": training.cost.parameters,
            "multiply_adds": training.cost.multiply_adds,
            **training.task.facts,
        },
        mesh=mesh,
    )


def prepare(settings: Any, genotype: Architecture, data: Any) -> Training:
    """The functions of a genotype's training; compiles nothing."""
    kind, dtype = kind_of(genotype), working_dtype(settings.precision)
    task = kind.training(data, settings, dtype)
    network = kind.discrete(genotype, data, settings, dtype)
    problem = Problem(None, network, task, as_given())
    schedules = {"weights/learning_rate": learning_rate(settings), **dropout_schedule(settings)}
    if hasattr(settings, "drop_path"):
        schedules["drop_path"] = ramp(settings.drop_path, settings.epochs)
    patience, own = getattr(settings, "averaging_patience", None), {"values": weight_values(settings)}
    if patience is None:
        method = retraining(problem, optimiser=weights(settings), schedules=schedules, **own)
    else:
        method = averaged(problem, optimiser=weights(settings), schedules=schedules, patience=patience, **own)
    if hasattr(settings, "averaging_patience"):
        method = method._replace(restarts=RESTARTS)
    cost = kind.cost(genotype, data, settings)
    return Training(
        settings, genotype, task, method, compilable(jax.jit(method.init)), Measurer(problem, data.mesh), cost
    )


def experiment(training: Training, seed: int, measured: Sequence[Observer]) -> Experiment:
    """The training with one seed; seeds share the compiled programs."""
    keys, method = run_keys(seed), training.method
    return Experiment(
        method,
        training.task,
        keys,
        lambda: training.init(keys.init),
        method.schedules,
        measured,
        training.settings.flat(),
    )


def each_epoch(training: Training) -> list[Observer]:
    """In the order of a record's fields: the held-out part in every epoch, the test part where settings ask for it."""
    task, settings = training.task, training.settings
    names = [*(f"train_{name}" for name in task.metrics), "auxiliary_loss"]
    names += [f"{part}_{name}" for part in ("valid", "test") for name in task.metrics]
    has_head = bool(getattr(training.method.problem.network.module, "auxiliary", False))

    def known(moment: Moment) -> Mapping[str, Any]:
        means = with_derived(task.metrics, moment.record, "train_")
        found = {name: means.get(name) for name in [*names, "gradient_norm"]}
        return found if has_head else {**found, "auxiliary_loss": None}

    def test(moment: Moment) -> Mapping[str, Any]:
        best = best_epoch([*moment.history, moment.record], task) == moment.epoch
        if not (best or (moment.epoch + 1) % settings.test_every == 0 or moment.last) or task.test is None:
            return {}
        return {f"test_{name}": v for name, v in training.measure(task.test, moment.state).items()}

    valid = [observers.part_measured(training.measure, task.valid, "valid", task)] if task.valid is not None else []
    told = observers.values_told(training.method.schedules, ("learning_rate", "drop_path"))
    return [known, *valid, test, told, *averaging_told(training)]


def averaging_told(training: Training) -> list[Observer]:
    """Whether weights are averaged, where that may come."""
    may = getattr(training.settings, "averaging_patience", None) is not None
    return [observers.value_told(AVERAGING)] if may else []


def best_epoch(records: Sequence[Record], task: Task) -> int | None:
    """The epoch with the best objective on the held-out part, the first of equals; None if nothing was held out."""
    name, best = f"valid_{task.objective}", None
    for record in records:
        value = record.get(name)
        if value is not None and (best is None or better(task.metrics[task.objective], value, best[name])):
            best = record
    return None if best is None else int(best["epoch"])


def result_of(task: Task, record: Record, part: str = "test") -> float | None:
    """What papers report, from an epoch's record; None where it was not measured."""
    if record.get(f"{part}_{task.objective}") is None:
        return None
    return task.result[1]({name: record[f"{part}_{name}"] for name in task.metrics})


def result_text(task: Task, value: float) -> str:
    """What papers report, for people."""
    return f"{value:.2%}" if task.metrics[task.objective].percent else f"{value:.2f}"


def _conclude(training: Training, outcome: Outcome) -> Trained:
    """Writes the genotype, and the result, which says that the training has ended."""
    task, records = training.task, outcome.records
    best, name = best_epoch(records, task), task.result[0]
    result = {
        f"test_{name}": result_of(task, records[-1]),
        "best_epoch": best,
        f"best_test_{name}": None if best is None else result_of(task, records[best]),
        "parameters": training.cost.parameters,
        "multiply_adds": training.cost.multiply_adds,
    }
    outcome.write_json(GENOTYPE_FILE, training.genotype.to_json())
    outcome.write_json(RESULT_FILE, result)
    return Trained(result, outcome)


def network_text(training: Training) -> str:
    """How large the network is, for a banner."""
    settings, cost = training.settings, training.cost
    has_head = bool(getattr(training.method.problem.network.module, "auxiliary", False))
    head = f", auxiliary head {settings.auxiliary_weight:g}" if has_head else ""
    kind = kind_of(training.genotype)
    return (
        f"{kind.network_text(training.genotype, settings)}, {cost.parameters:,} parameters, "
        f"{cost.multiply_adds:,} multiply-adds {kind.unit}{head}"
    )


def _banner(training: Training, part_of: str) -> tuple[str, dict[str, str]]:
    settings, task = training.settings, training.task
    assert task.train is not None
    if part_of:
        title = f"retrain the genotype of {part_of}: {epochs_text(settings.epochs, task.train)}"
        return title, {"network": network_text(training)}
    facts = {
        "genotype": settings.genotype,
        "data": task.told,
        **{f"note {number}": note for number, note in enumerate(task.notes, start=1)},
        "network": network_text(training),
        "run": f"{epochs_text(settings.epochs, task.train)}, batch {settings.batch_size}, seed {settings.seed}",
    }
    return f"evaluate {settings.genotype} on {settings.dataset} (preset {settings.preset})", facts


def _told(task: Task, record: Record) -> dict[str, str]:
    """The training's means, and what papers report of the other parts."""
    facts = {f"train {name}": f"{record[f'train_{name}']:.3f}" for name in task.metrics}
    for part in ("valid", "test"):
        value = result_of(task, record, part)
        if value is not None:
            facts[f"{part} {task.result[0]}"] = result_text(task, value)
    return facts
