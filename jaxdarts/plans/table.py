"""A table: every architecture of a space is trained from scratch, a stage each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from jaxdarts.plans import observers
from jaxdarts.plans.base import Built, Ended, Moment, Observer, Outcome, Plan, Stage
from jaxdarts.plans.evaluate import Training, averaging_told, experiment, prepare, result_of, result_text
from jaxdarts.precision import working_dtype
from jaxdarts.spaces import Architecture, CellSpace
from jaxdarts.tasks import kind_of


def table_plan(settings: Any, space: CellSpace, data: Any, done: Sequence[tuple[Architecture, int]]) -> Plan:
    """One stage for each architecture and seed that is not in `done` yet.

    A stage has no files of its own: a checkpoint for each of many short trainings would cost more than it saves. One
    that was stopped is repeated.
    """
    seeds = range(settings.seed, settings.seed + settings.seeds)
    every = [(genotype.canonical(), seed) for genotype in space.genotypes() for seed in seeds]
    left = [pair for pair in every if pair not in set(done)]
    newest: dict[Architecture, Training] = {}

    def build(genotype: Architecture, seed: int) -> Built:
        # Seeds share the compiled programs, which belong to one architecture: on a CPU as fast as all in one program
        # (docs/performance.md), and simpler.
        if genotype not in newest:
            newest.clear()
            newest[genotype] = prepare(settings, genotype, data)
        training, began = newest[genotype], time.monotonic()
        return Built(
            experiments=(experiment(training, seed, _measured(training)),),
            conclude=lambda outcome: _entry(training, seed, outcome, began),
            banner=None,
            shown=(),
            tell=lambda entry: {
                f"test {training.task.result[0]}": result_text(training.task, entry[f"test_{training.task.result[0]}"]),
                "in": f"{entry['seconds']:.0f} s",
            },
            facts={},
            mesh=data.mesh,
        )

    def plan(ended: Sequence[Ended]) -> Stage | None:
        if len(ended) == len(left):
            return None
        genotype, seed = left[len(ended)]
        number = len(every) - len(left) + len(ended)
        return Stage(
            build=lambda: build(genotype, seed),
            epochs=settings.epochs,
            name=f"{genotype.to_text()}, seed {seed}",
            is_kept=False,
            unit=(number, len(every)),
        )

    return plan


def table_banner(
    settings: Any, space: CellSpace, data: Any, device: str, folder: str, done: int
) -> tuple[str, dict[str, str]]:
    """What is trained, how and where; `done`: trainings that have ended before."""
    task = kind_of(space).training(data, settings, working_dtype(settings.precision))
    planned = space.num_genotypes() * settings.seeds
    facts = {
        "space": f"{space.name}: {space.num_genotypes()} architectures, "
        + ("one training of each" if settings.seeds == 1 else f"{settings.seeds} trainings of each"),
        "data": task.told,
        **{f"note {number}": note for number, note in enumerate(task.notes, start=1)},
        "network": kind_of(space).network_text(space, settings),
        "training": f"{settings.epochs} epochs, batch {settings.batch_size}, seed {settings.seed}"
        + (f" to {settings.seed + settings.seeds - 1}" if settings.seeds > 1 else ""),
        "device": device,
        "folder": folder,
    }
    if done:
        facts["resumed"] = f"after {done} of {planned} trainings"
    return f"tabulate {space.name} on {settings.dataset} (preset {settings.preset})", facts


def _measured(training: Training) -> list[Observer]:
    """The held-out and the test part after the last epoch; the former in every one where the method decides by it."""
    averaging = averaging_told(training)
    if not averaging or training.task.valid is None:
        return [_at_the_end(training)]
    valid = observers.part_measured(training.measure, training.task.valid, "valid", training.task)
    return [valid, *averaging, _at_the_end(training)]


def _at_the_end(training: Training) -> Observer:
    """The held-out and the test part, after the last epoch."""
    task = training.task

    def observe(moment: Moment) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if moment.last:
            for part, stream in (("valid", task.valid), ("test", task.test)):
                if stream is not None:
                    measured = training.measure(stream, moment.state)
                    found |= {f"{part}_{name}": value for name, value in measured.items()}
        return found

    return observe


def _entry(training: Training, seed: int, outcome: Outcome, began: float) -> dict[str, Any]:
    """A row of the table."""
    task, record, name = training.task, outcome.record, training.task.result[0]
    return {
        "genotype": training.genotype.to_json(),
        "seed": seed,
        f"test_{name}": result_of(task, record),
        f"valid_{name}": result_of(task, record, "valid"),
        "train_loss": record["train_loss"],
        "parameters": training.cost.parameters,
        "multiply_adds": training.cost.multiply_adds,
        "seconds": round(time.monotonic() - began, 3),
    }
