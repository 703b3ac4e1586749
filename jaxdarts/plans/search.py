"""A search: one stage, whose result is a genotype and what is known about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxdarts.bilevel import Parts, compilable, set_hyperparameters
from jaxdarts.errors import InputError
from jaxdarts.keys import run_keys
from jaxdarts.methods import METHODS, flat_updates
from jaxdarts.methods.base import Candidate, Ingredients, Method, MethodEntry, Problem, SearchState
from jaxdarts.methods.parts import alpha_schedules, describe_parts, network_options, stopping_rule, weight_schedules
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks import OPERATIONS
from jaxdarts.networks.supernet import Weights
from jaxdarts.plans import observers
from jaxdarts.plans.base import Built, Experiment, Moment, Observer, Outcome, Plan, Record, Stage
from jaxdarts.plans.judge import Measurer, StateJudge
from jaxdarts.precision import is_whole, working_dtype
from jaxdarts.sharding import data_mesh, examples_in_memory
from jaxdarts.spaces import Architecture, CellSpace, load_space, one_hot, space_to_json
from jaxdarts.spaces.files import GENOTYPE_FILE
from jaxdarts.tasks import kind_of
from jaxdarts.tasks.base import Stream, Task, with_derived

DIAGNOSTICS_FILE = "diagnostics.json"
PROBABILITIES = ("drop_path", "cutout")  # in which searches side by side may differ
_TOLD = ("learning_rate", "drop_path", "beta_weight", "temperature")  # schedules that every record has


class Found(NamedTuple):
    """What a search has found."""

    genotype: Architecture
    diagnostics: Mapping[str, Any]  # as in diagnostics.json
    outcome: Outcome


class Shared(NamedTuple):
    """What the searches of a stage share: data, network and programs."""

    settings: Any
    entry: MethodEntry
    space: CellSpace
    task: Task
    data: Any  # the task's own, from which tasks like it are made
    problem: Problem  # the method's
    method: Method
    measurer: Measurer
    product: observers.HessianProduct
    mesh: Mesh | None


def search_plan(settings: Any, space: CellSpace | None = None) -> Plan:
    """One search; `space` in the place of what the settings name, as a continued run has recorded it."""
    stage = Stage(build=lambda: build_search([settings], settings, space), epochs=settings.epochs)
    return lambda ended: None if ended else stage


def build_search(
    members: Sequence[Any],
    common: Any,
    space: CellSpace | None = None,
    together: int = 1,
    entry: MethodEntry | None = None,
    data: Any = None,
) -> Built:
    """One search, or several side by side that differ in seeds, L2, drop path and the like. Compiles nothing.

    Args:
      members: the settings of each.
      common: the settings of all: `members[0]` of a search alone.
      space: in the place of what the settings name.
      together: searches computed at a time, for memory.
      entry: how is searched; None: by the method that the settings name.
      data: of the task, on the device; None: read what the settings name.

    Raises:
      InputError: the space, the data, a size or the number of devices cannot be used.
    """
    return built_of(share(members, common, space, together, entry, data), members, common, together)


def built_of(shared: Shared, members: Sequence[Any], common: Any, together: int = 1) -> Built:
    """The stage of searches that share this; arguments as of `build_search`."""
    settings, method = shared.settings, shared.method
    jitted_init = compilable(jax.jit(method.init))
    return Built(
        experiments=tuple(_experiment(shared, own, jitted_init) for own in members),
        conclude=lambda outcome: conclude(shared, outcome),
        banner=lambda state: _banner(shared, common, members, state),
        shown=shown(shared.task),
        tell=partial(told, shared.space),
        facts={"search_space": space_to_json(shared.space), **shared.task.facts},
        data=shared.data,
        watched="hypergradient",
        rates="learning_rate or alpha_learning_rate",
        mesh=shared.mesh,
        whole=is_whole(settings.step_compilation),
        together=together > 1,
    )


def share(
    members: Sequence[Any],
    common: Any,
    space: CellSpace | None = None,
    together: int = 1,
    entry: MethodEntry | None = None,
    data: Any = None,
) -> Shared:
    """What searches with these settings share; what differs between them are values in their states and cursors."""
    settings = common
    if len(members) > 1:
        # A program that holds drop path or cutout serves members without: their probability is 0.
        greatest = {name: max(getattr(one, name) for one in members) for name in PROBABILITIES if hasattr(common, name)}
        settings = common.replace(**greatest)
    entry = METHODS[settings.method] if entry is None else entry
    mesh = data_mesh(settings.devices, settings.batch_size) if data is None else data.mesh
    space = space or load_space(settings.space, OPERATIONS)
    dtype = working_dtype(settings.precision)
    kind = kind_of(space)
    data = kind.search_data(settings, mesh) if data is None else data
    task = kind.search(data, settings, dtype)
    examples = examples_in_memory(settings.devices, together * settings.batch_size)
    network = kind.relaxed(space, data, settings, dtype, examples, network_options(entry, settings))
    scale = settings.alpha_init_scale if entry.learns_alpha else 0.0
    problem = Problem(space, network, task, softmax(space, scale, dtype))
    method = entry.build(Ingredients(problem, settings))
    problem, parts = method.problem, Parts(flat_updates.IN_PLACE)
    # Steps and curvature have their mixed product in common.
    method = method._replace(step=parts.run(method.step))
    assert task.valid is not None
    if settings.curvature_batches > task.valid.num_held:
        what = "the part that trains alpha"
        raise InputError(
            f"curvature_batches must be at most {task.valid.num_held}: the {task.valid.size} examples in {what} (data "
            f"set {settings.dataset!r}) are so many batches of {settings.batch_size}; got {settings.curvature_batches}"
        )
    product = observers.hessian_product(problem, task.valid, settings.curvature_batches)
    measurer = Measurer(problem, mesh)
    return Shared(settings, entry, space, task, data, problem, method, measurer, parts.run(product), mesh)


def _experiment(shared: Shared, settings: Any, jitted_init: Callable[..., SearchState]) -> Experiment:
    keys, method = run_keys(settings.seed), shared.method
    own = weight_schedules(settings) | (alpha_schedules(settings) if shared.entry.learns_alpha else {})
    # The method's own before the common ones; of these members differ in some.
    schedules = {**own, **method.schedules, **{name: own[name] for name in PROBABILITIES if name in own}}

    def start() -> SearchState:
        state = jitted_init(keys.init)
        return dataclasses.replace(state, opt_state=set_hyperparameters(state.opt_state, l2=settings.l2))

    task = shared.task
    if shared.settings is not settings:
        dtype = working_dtype(settings.precision)
        task = kind_of(shared.space).member(task, shared.data, shared.settings, settings, dtype)
    return Experiment(method, task, keys, start, schedules, _observers(shared, settings, schedules), settings.flat())


def _observers(shared: Shared, settings: Any, schedules: Mapping[str, Any]) -> list[Observer]:
    """In the order of a record's fields."""
    method, task, keys = shared.method, shared.task, run_keys(settings.seed)
    assert task.valid is not None
    unknown: dict[str, None] = dict.fromkeys(f"train_{name}" for name in task.metrics)
    unknown |= dict.fromkeys(("alpha_loss", "hypergradient_norm"))
    unknown |= dict.fromkeys(f"valid_{name}" for name in task.metrics)

    def known(moment: Moment) -> Mapping[str, Any]:
        means = with_derived(task.metrics, moment.record, "train_")
        return {name: means.get(name) for name in unknown}

    found: list[Observer] = [
        known,
        observers.values_told(schedules, (*_TOLD, *shared.entry.draws)),
        observers.genotype_told(method),
    ]
    if "params" in method.learns:
        found.append(observers.part_measured(shared.measurer, task.valid, "valid", task))
    found.append(observers.alpha_told(method))
    found.append(observers.curvature_told(shared.product, curvature_settings(settings, method), keys))
    every = getattr(settings, "select_every", 0)
    found.append(observers.choice_told(method, shared.measurer, task.valid, keys, every))
    for extra in SPACE_OBSERVERS:
        observer = extra(settings, shared.space)
        if observer is not None:
            found.append(observer)
    return found


SPACE_OBSERVERS: list[Callable[[Any, CellSpace], Observer | None]] = [observers.benchmark_told]
"""(settings, space) -> what is also told of an epoch in some spaces; None: nothing."""


def curvature_settings(settings: Any, method: Method) -> observers.CurvatureSettings:
    """How often and how well the curvature is measured; never where no alpha is learned."""
    every = settings.curvature_every if "alpha" in method.learns else 0
    shift = settings.alpha_l2 if every and settings.curvature_weight_decay_shift else 0.0
    return observers.CurvatureSettings(every, settings.curvature_products, shift, stopping_rule(settings))


def shown(task: Task) -> tuple[tuple[str, int], ...]:
    """What is shown of an epoch."""
    return (("train_loss", 3), *((f"valid_{name}", 3) for name in task.metrics), ("dominant_eigenvalue", 4))


def epochs_text(epochs: int, stream: Stream) -> str:
    """How many epochs there are, and how long they are."""
    return f"{epochs} epochs of {'about ' if stream.steps_in is not None else ''}{stream.steps} steps"


def told(space: CellSpace, record: Record) -> dict[str, str]:
    """The genotype's look-up in a benchmark, if there is one, and its skip connections, where it may have some."""
    facts = {}
    for name, value in (record.get("benchmark") or {}).items():
        if isinstance(value, Mapping):
            facts[name] = f"{next(iter(value.values())):.2%}"
    if "skip_connect" in space.operation_names:
        facts["skips"] = str(next(iter(record["skip_connections"].values())))
    return facts


def _banner(shared: Shared, common: Any, members: Sequence[Any], state: SearchState) -> tuple[str, dict[str, str]]:
    settings, method, module = common, shared.method, shared.problem.network.module
    num_weights = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert shared.task.train is not None
    facts = {
        "space": f"{shared.space.name}: {len(shared.space.operation_names)} operations, "
        f"{shared.space.num_edges} edges a cell",
        "data": shared.task.told,
        **{f"note {number}": note for number, note in enumerate(shared.task.notes, start=1)},
        "network": f"{kind_of(shared.space).network_text(shared.space, settings)}, {num_weights:,} weights"
        + (f", {module.remat} cells rematerialised" if getattr(module, "remat", 0) else ""),
        "method": settings.method + (f", hypergradient {settings.hypergradient}" if "alpha" in method.learns else ""),
        **({n.lower(): t for n, t in describe_parts(settings).items()} if "alpha" in method.learns else {}),
        "run": f"{epochs_text(settings.epochs, shared.task.train)}, batch {settings.batch_size}, seed {settings.seed}",
    }
    what = "search" if len(members) == 1 else f"{len(members)} searches in"
    title = f"{what} {shared.space.name} on {settings.dataset} (preset {settings.preset})"
    return title, facts


def conclude(
    shared: Shared, outcome: Outcome, more: Callable[[Architecture], Mapping[str, Any]] = lambda genotype: {}
) -> Found:
    """Chooses the genotype of an ended search, and writes it and what is known about it.

    genotype.json is written last: it says that the search has ended. `more`: of the genotype, what else belongs into
    diagnostics.json.
    """
    from jaxdarts.spaces import genotype_from_json

    genotype = genotype_from_json(outcome.record["genotype"])
    candidates = None
    if shared.method.choose is not None:
        candidates = _choose(shared, outcome)
        genotype = candidates[0].genotype
    found = diagnose(shared, outcome, genotype)
    if candidates is not None:
        objective = shared.task.objective
        found["candidates"] = [{"genotype": c.genotype.to_json(), objective: c.score} for c in candidates]
    found |= more(genotype)
    outcome.write_json(DIAGNOSTICS_FILE, found)
    outcome.write_json(GENOTYPE_FILE, genotype.to_json())
    return Found(genotype, found, outcome)


def _choose(shared: Shared, outcome: Outcome) -> list[Candidate]:
    assert shared.method.choose is not None and shared.task.valid is not None
    judge = StateJudge(shared.measurer, shared.task.valid, outcome.state)
    key = jax.random.fold_in(outcome.experiment.keys.selection, outcome.step)
    return shared.method.choose(outcome.state, judge, key)


def diagnose(shared: Shared, outcome: Outcome, genotype: Architecture) -> dict[str, Any]:
    """A JSON object about the search's end.

    `operations`: counts of skip connections and of parameter-free operations in each cell, and of all operations.
    `discretisation`: the metrics on the validation part, without retraining, with alpha's mixing weights and with the
    genotype's one-hot weights, and the change of the objective (Zela et al. 2020, figure 5). None where the method
    does not learn alpha.
    `eigenvalues`: of the alpha-Hessian, the largest by magnitude first (Zela et al. 2020, figures 15 and 16), and how
    far each is from converged. None where the method does not learn alpha, or none are wanted.

    Cost: one pass over the validation part, and twice as many Hessian-vector products as eigenvalues.
    """
    settings, method = shared.settings, shared.method
    found: dict[str, Any] = {
        "epoch": outcome.record["epoch"],
        "operations": {
            "skip_connect": genotype.count("skip_connect"),
            "parameter_free": {
                cell: sum(is_parameter_free(operation) for operation, _ in genotype.edges(cell))
                for cell in genotype.cell_types
            },
            "all": {cell: len(genotype.edges(cell)) for cell in genotype.cell_types},
        },
        "discretisation": None,
        "eigenvalues": None,
    }
    if "alpha" in method.learns:
        assert shared.task.valid is not None
        judge = StateJudge(shared.measurer, shared.task.valid, outcome.state)
        # Differs from RobustDARTS, whose one-hot weights can fall on `none`: these are those of the genotype.
        chosen = {cell: jnp.asarray(value) for cell, value in one_hot(shared.space, genotype).items()}
        edges = method.problem.mean_weights(outcome.state.alpha, outcome.state.values).edges
        relaxed, hard = judge(), judge(Weights(chosen, edges))
        objective = shared.task.objective
        change = {f"{objective}_change": hard[objective] - relaxed[objective]}
        found["discretisation"] = {"relaxed": relaxed, "one_hot": hard, **change}
        if settings.spectrum_size:
            curvature = curvature_settings(settings, method)
            shift = settings.alpha_l2 if settings.curvature_weight_decay_shift else 0.0
            found["eigenvalues"] = observers.largest_eigenvalues(
                shared.product,
                shared.space,
                outcome.state,
                outcome.experiment.keys,
                settings.spectrum_size,
                curvature.products,
                shift,
            )
    return found


def is_parameter_free(operation: str) -> bool:
    """Whether an operation has no weights at stride 1: skip connections, poolings, `noise`, `none`."""
    return operation in OPERATIONS and not OPERATIONS[operation](1).layers
