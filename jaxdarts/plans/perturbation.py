"""DARTS+PT as a run: a search, or one that has ended, and then the projection of its supernet, edge by edge."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.json_files import read_json
from jaxdarts.keys import run_keys
from jaxdarts.methods import METHODS
from jaxdarts.methods.base import Ingredients, Method, MethodEntry, Schedule, SearchState, strongest
from jaxdarts.methods.perturbation import (
    BASES,
    PROJECTION,
    Rule,
    decided_name,
    decisions,
    derivation,
    kept_name,
    num_decisions,
    projected,
    undecided,
)
from jaxdarts.methods.random_search import sample_weights
from jaxdarts.methods.verdict import go_on, nowhere
from jaxdarts.networks import OPERATIONS
from jaxdarts.networks.supernet import Weights
from jaxdarts.plans.base import Built, Ended, Outcome, Plan, Stage
from jaxdarts.plans.judge import Measurer, StateJudge
from jaxdarts.plans.members import member_settings
from jaxdarts.plans.search import DIAGNOSTICS_FILE, Found, Shared, built_of, conclude, share
from jaxdarts.plans.stages import Shared as Together
from jaxdarts.plans.stages import search_stage
from jaxdarts.recorded import find_again, name_the_same
from jaxdarts.spaces import Architecture, CellSpace, discretise, load_space, one_hot, space_from_json
from jaxdarts.spaces.files import GENOTYPE_FILE
from jaxdarts.tasks.base import steps_until

SUPERNET = "supernet"  # the stage that searches
Restore = Callable[[Path, int, Any], list[SearchState]]
"""(folder of a run, step, states like those) -> the states of a checkpoint"""
# What may differ from the run whose supernet is taken.
_OWN: tuple[str, ...] = ("method", "preset", "from_run", "seed", "data_dir", "download", "checkpoint_every_minutes")
_OWN += ("checkpoints_to_keep", "tensorboard", "devices", "benchmark", "step_compilation", "population", "data_seed")


class Origin(NamedTuple):
    """The search whose supernet is projected."""

    path: Path
    settings: Any
    entry: MethodEntry
    space: CellSpace
    member: int = 0  # which of how many searches of one run
    members: int = 1
    data_digest: str | None = None  # of the data that it saw, where that was recorded


def perturbation_plan(settings: Any, space: CellSpace | None, restore: Restore) -> Plan:
    """The search, if there is none to take, and the projection; `space`: as of `search_plan`."""
    kind = type(settings)
    if settings.from_run is not None:
        origin = find_origin(settings)
        names = [PROJECTION]
    else:
        base = BASES[settings.method]
        own = kind(**kind.used(settings.flat(), {"method": base}))
        searched = space or load_space(settings.space, OPERATIONS)
        names = [SUPERNET, PROJECTION]
    shared = Together(names)

    def plan(ended: Sequence[Ended]) -> Stage | None:
        if len(ended) == len(names):
            return None
        if names[len(ended)] == SUPERNET:
            return search_stage(shared, SUPERNET, own, searched, entry=METHODS[base])
        found = origin if settings.from_run is not None else Origin(ended[0].path, own, METHODS[base], searched)
        return _projection(settings, shared, found, restore)

    return plan


def completed(settings: Any) -> Any:
    """Settings whose search is taken from an ended run, with that run's in the place of what was not given.

    Raises:
      InputError: there is no such run, it has not ended, or a setting that was given is another there.
    """
    if getattr(settings, "from_run", None) is None:
        return settings
    recorded = _recorded(Path(settings.from_run))
    kind = type(settings)
    before = _settings_of(kind, recorded).flat()
    for name, value in settings.given.items():
        same = name_the_same(name, value, recorded.get(name, before.get(name)), recorded.get("started_in"))
        if name in before and name not in _OWN and not same:
            raise InputError(
                f"{name} {value!r} is not that of the run in {settings.from_run!r}, {before[name]!r}; leave it out"
            )
    left_out = {name: value for name, value in before.items() if name not in ("method", "preset", "population", "seed")}
    if left_out.get("data_seed") is None:
        left_out["data_seed"] = before["seed"]  # so that each part of the data stays what it was
    given = {name: value for name, value in settings.given.items() if name != "population"}
    return kind(**kind.used(left_out, given))


def find_origin(settings: Any) -> Origin:
    """The ended search that settings name.

    Raises:
      InputError: as `completed`; or nothing was trained in it.
    """
    path = Path(settings.from_run)
    recorded = _recorded(path)
    kind = type(settings)
    base = _settings_of(kind, recorded)
    entry = METHODS[base.method].stage(recorded.get("stage"))
    space = space_from_json(recorded["search_space"])
    members = member_settings(base)
    member = 0
    if "members" in recorded:
        member = read_json(path / DIAGNOSTICS_FILE, "from")["member"]
    own = members[member]
    entry = entry if len(members) == 1 else METHODS[own.method]
    return Origin(path, own, entry, space, member, len(members), recorded.get("data_digest"))


def _settings_of(kind: Any, recorded: Mapping[str, Any]) -> Any:
    """With relative paths as they lead there from the present folder."""
    return kind.from_recorded(find_again(recorded, recorded.get("started_in")))


def _recorded(path: Path) -> Mapping[str, Any]:
    """The config.json of an ended search."""
    where = f"from: {str(path)!r}"
    if not (path / "config.json").is_file():
        raise InputError(f"{where} is not the folder of a run; name that of a search that has ended")
    recorded = read_json(path / "config.json", "from")
    if recorded.get("command", "search") != "search" or recorded.get("method") not in METHODS:
        raise InputError(f"{where} is not a search; name the folder of one")
    if recorded.get("stage") == PROJECTION or recorded.get("stages") == [PROJECTION]:
        raise InputError(f"{where} is a projection itself; name the search that it began with")
    if "stages" in recorded and "stage" not in recorded:
        last = [name for name in recorded["stages"] if name != PROJECTION][-1:]
        raise InputError(f"{where} is a search in stages; name the supernet's, {str(path.joinpath(*last))!r}")
    if (path / ".." / "config.json").is_file() and not (path / "checkpoints").is_dir():
        raise InputError(f"{where} holds no checkpoints; name the folder of the whole run")
    if not (path / GENOTYPE_FILE).is_file():
        raise InputError(f"{where} has not ended; python -m jaxdarts.search --resume --run-dir {path} ends it")
    return recorded


def _projection(settings: Any, together: Together, origin: Origin, restore: Restore) -> Stage:
    """The stage that decides."""
    kind, base = type(settings), origin.settings
    changes: dict[str, Any] = {"curvature_every": 0, "spectrum_size": 0, "population": None}
    entry = origin.entry
    if not entry.learns_alpha:
        # Alpha is learned between the decisions, from the start: the supernet's operations have had equal rights.
        entry, changes = METHODS["darts"], {**changes, "method": "darts", "hypergradient": "first_order"}
    if hasattr(base, "early_stopping"):
        changes["early_stopping"] = "none"
    own = kind(**kind.used(base.flat(), changes))
    space, seed = origin.space, settings.seed
    epochs = settings.projection_interval * (num_decisions(space) - 1) + 1
    may_be_none = settings.projection_none

    def build_method(ingredients: Ingredients) -> Method:
        method = entry.build(ingredients._replace(around=functools.partial(projected, space)))
        last = {name: _constant(schedule(own.epochs - 1)) for name, schedule in method.schedules.items()}
        rate = {"weights/learning_rate": _constant(settings.projection_rate * own.learning_rate)}
        return method._replace(
            schedules={**last, **rate},
            derive=derivation(may_be_none, space),
            decide=go_on,
            returnable=nowhere,
            choose=None,
        )

    def build(members: Sequence[Any], common: Any, space: CellSpace, *, entry: MethodEntry, data: Any = None) -> Built:
        del members, common
        shared = share([own], own, space, entry=entry, data=data)
        now = shared.task.facts.get("data_digest")
        if None not in (now, origin.data_digest) and now != origin.data_digest:
            raise InputError(f"from: the data of {own.dataset!r} have changed since the run in {str(origin.path)!r}")
        keys = run_keys(seed)
        built = built_of(shared, [own], own)
        (experiment,) = built.experiments

        # Here, so that a missing checkpoint is told before the run's folder is made.
        ended = _end_of(origin, data=shared.data, restore=restore)

        def start() -> SearchState:
            fresh = experiment.start()
            alpha = ended.alpha if origin.entry.learns_alpha else fresh.alpha
            values = {**fresh.values, **undecided(space, shared.problem.network.dtype)}
            return dataclasses.replace(fresh, params=ended.params, stats=ended.stats, alpha=alpha, values=values)

        schedules = shared.method.schedules
        turn = _turn(settings, shared, keys.selection)
        changed = dataclasses.replace(experiment, keys=keys, start=start, schedules=schedules, turn=turn)
        return built._replace(
            experiments=(changed,),
            conclude=lambda outcome: _conclude(settings, shared, outcome, start),
            banner=lambda state: _banner(settings, origin, built, epochs, state),
        )

    stage = search_stage(
        together, PROJECTION, own, space, entry=entry._replace(build=build_method), build=build, epochs=epochs
    )
    assert stage.settings is not None
    own_settings = {name: value for name, value in settings.flat().items() if name.startswith("projection_")}
    return stage._replace(settings={**stage.settings, "epochs": epochs, "seed": seed, **own_settings})


def _banner(settings: Any, origin: Origin, built: Built, epochs: int, state: Any) -> tuple[str, dict[str, str]]:
    assert built.banner is not None
    title, facts = built.banner(state)
    decided = f"by {settings.projection_criterion}, every {settings.projection_interval} epochs"
    own = {"supernet": f"that of {origin.path}", "decisions": f"{num_decisions(origin.space)} a cell, {decided}"}
    steps = built.experiments[0].task.train
    assert steps is not None
    return title, {**facts, **own, "run": f"{epochs} epochs of {steps.steps} steps, seed {settings.seed}"}


def _constant(value: float) -> Schedule:
    return lambda epoch: value


def _end_of(origin: Origin, data: Any, restore: Restore) -> SearchState:
    """The state with which a search has ended."""
    shared = share([origin.settings], origin.settings, origin.space, entry=origin.entry, data=data)
    if "params" not in shared.method.learns:
        raise InputError(f"from: {str(origin.path)!r} has no supernet: method {origin.settings.method!r} trains none")
    (experiment,) = built_of(shared, [origin.settings], origin.settings).experiments
    assert shared.task.train is not None
    step = steps_until(shared.task.train, read_json(origin.path / DIAGNOSTICS_FILE, "from")["epoch"] + 1)
    one = jax.eval_shape(experiment.start)
    return restore(origin.path, step, [one] * origin.members)[origin.member]


def _turn(settings: Any, shared: Shared, key: jax.Array) -> Callable[[SearchState, int], Any]:
    """Decides where an epoch is due to, for one type of cell after the other."""
    space, task, problem = shared.space, shared.task, shared.problem
    assert task.valid is not None
    valid, interval = task.valid, settings.projection_interval
    order_key, chance = jax.random.split(key)
    every = decisions(space, order_key)
    measurer = Measurer(problem, shared.mesh, train=True)
    mean_weights = jax.jit(problem.mean_weights)
    rule = Rule(space, settings.projection_criterion, task.objective, task.metrics, settings.projection_none)

    def turn(state: SearchState, epoch: int) -> tuple[SearchState, Mapping[str, Any]]:
        number, rest = divmod(epoch, interval)
        if rest:
            return state, {}
        told = []
        for which, decision in enumerate(every[number]):
            weights: Weights = mean_weights(state.alpha, state.values)
            names = (decided_name(decision.cell), kept_name(decision.cell))
            present = {name: np.array(state.values[name]) for name in names}
            now = state

            def score(masked: Weights, now: SearchState = now) -> Mapping[str, float]:
                return measurer(valid, now, masked, settings.projection_batches)

            own_key = jax.random.fold_in(jax.random.fold_in(chance, number), which)
            outcome = rule.decide(decision, weights, present, score, own_key)
            values = {**state.values}
            for name, value in outcome.decided.items():
                values[name] = jnp.asarray(value, state.values[name].dtype)
            state = dataclasses.replace(state, values=values)
            told.append(outcome.told)
        return state, {PROJECTION: told}

    return turn


def _conclude(settings: Any, shared: Shared, outcome: Outcome, start: Callable[[], SearchState]) -> Found:
    """As of any search; beside it, what other selections make of the same supernet, without training (table 2)."""
    assert shared.task.valid is not None
    space, first = shared.space, start()
    judge = StateJudge(shared.measurer, shared.task.valid, first)
    mean = shared.problem.mean_weights(first.alpha, first.values)
    drawn = sample_weights(space, jax.random.fold_in(outcome.experiment.keys.selection, 1))

    def selections(genotype: Architecture) -> Mapping[str, Any]:
        every = {
            "random": discretise(space, drawn),
            "alpha": strongest(space, mean),
            settings.projection_criterion: genotype,
        }
        told = {name: {"genotype": one.to_json(), **judge(_weights(space, one, mean))} for name, one in every.items()}
        return {"selections": told}

    return conclude(shared, outcome, selections)


def _weights(space: CellSpace, genotype: Architecture, mean: Weights) -> Weights:
    return Weights({cell: jnp.asarray(value) for cell, value in one_hot(space, genotype).items()}, mean.edges)
