"""Do P-DARTS, DOTS and DARTS+PT do what their authors' code does? Used by check_methods.py.

What is drawn at random in the published code, masks of dropout and the order of decisions, is given by the files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from check_networks import Case
from method_setting import Setting, by_cell, passes, read_setting, rows
from relative_errors import Row, group_rows, relative_error

from jaxdarts.methods.base import Ingredients, Method, Problem, SearchState
from jaxdarts.methods.dots import (
    COMBINATIONS,
    by_combinations,
    combination_weights,
    combinations,
    decided_operations,
    grouped,
    membership,
    topology,
    topology_temperature,
)
from jaxdarts.methods.p_darts import (
    SKIP_DROPOUT,
    dropout_schedule,
    pruned,
    sparing,
    strongest_operations,
)
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.perturbation import Decision, Rule, decided_name, kept_name, projected, undecided
from jaxdarts.methods.relaxations import Alpha, Relaxation, softmax
from jaxdarts.networks import Weights, layers, softmax_weights
from jaxdarts.networks.functional import Context
from jaxdarts.networks.supernet import supernet_plan
from jaxdarts.spaces import Architecture, CellSpace, Genotype, SearchSpace
from jaxdarts.tasks.classification import METRICS, Batch

EDGES = 2  # of a node in the files


# P-DARTS


def check_p_darts(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, meta = own.case, own.case.meta
    if "train_logits" in case.arrays or "dropout_logits" in case.arrays:
        yield from _network_of_p_darts(own)
    if "dropout_p" in case.arrays:
        epochs, resting = meta["epochs"], meta["alphas_frozen_epochs"]
        schedules = [dropout_schedule(start, epochs, resting, jump=True) for start in meta["dropout_initial"]]
        found = np.array([[schedule(epoch) for epoch in range(epochs)] for schedule in schedules])
        yield from rows({"dropout_p": found}, case)
        moves = [np.arange(epochs) >= resting] * len(schedules)
        yield Row("train_alpha", _same(np.array(moves), case.arrays["train_alpha"]))
    if "alpha_stage1/normal" in case.arrays:
        yield from _stages(case)


def _network_of_p_darts(own: Setting) -> Iterator[Row]:
    case, meta = own.case, own.case.meta
    alpha = own.alpha
    own.settings.stage_dropout = "0.5"  # its schedule is not used here
    method = own.method("p-darts")
    still = {SKIP_DROPOUT: 0.0}
    yield from passes(own, method.problem, alpha, still)
    if "alpha_grad_norm" in case.arrays:
        slope = jax.grad(lambda a: method.problem.outer(own.params, a, own.view(own.valid, still))[0])(alpha)
        yield from rows({"alpha_grad_norm": optax.tree.norm(slope)}, case)
    if "eval_logits" in case.arrays:
        weights = method.problem.mean_weights(alpha, {})
        outputs, *_ = method.problem.network.apply(own.params, own.stats, weights, own.valid, (), Context(False))
        yield from rows({"eval_logits": outputs.main}, case)
    if "dropout_logits" not in case.arrays:
        return
    key, masks = jax.random.key(0), _masks(own)
    values = {SKIP_DROPOUT: meta["dropout_p_used"]}

    def given(own_key: jax.Array, drop: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        found = jnp.zeros(shape, dtype)
        for data, mask in masks:
            if mask.shape == shape:
                found = jnp.where((jax.random.key_data(own_key) == data).all(), jnp.asarray(mask, dtype), found)
        return found / (1 - jnp.asarray(drop, dtype))

    with mock.patch.object(layers, "keep_mask", given):
        (value, seen), (_, slope) = own.at(method.problem, alpha, values, key)
    yield from rows({"dropout_logits": seen.totals["logits"], "dropout_loss": value}, case)
    yield from by_cell("dropout_first_order", slope, case)


def _masks(own: Setting) -> list[tuple[np.ndarray, np.ndarray]]:
    """The file's masks, one array for the identities that read one state of a cell: [edges, C, H, W, B], by the key."""
    found = []
    given = own.case.group("dropout_mask")
    for index, block in enumerate(own.module.blocks):
        assert block.cell_type is not None
        edges, columns, plan = supernet_plan(own.space, block.cell_type)
        for source in range(plan.num_nodes + plan.num_inputs):
            stride = 2 if block.reduction and source < plan.num_inputs else 1
            for group in plan.groups(source, stride):
                if not group.operation.drops:
                    continue
                key = jax.random.split(jax.random.fold_in(jax.random.key(0), index))[1]
                data = np.asarray(jax.random.key_data(jax.random.fold_in(key, group.members[0])))
                names = [f"cells.{index}._ops.{edges[m]}._ops.{columns[m]}" for m in group.members]
                found.append((data, np.stack([given[name].transpose(1, 2, 3, 0) for name in names])))
    return found


def _stages(case: Case) -> Iterator[Row]:
    """What is left after every stage, and the genotypes."""
    meta = case.meta
    names = tuple(meta["primitives"])
    whole = SearchSpace.uniform("darts", names, meta["nodes"])
    errors = {f"switches_stage{number}": 0.0 for number in (1, 2, 3)}
    right = {"unrestricted": True, "restricted": True, "skips_at_most_2": True}
    for number in range(len(case.arrays["alpha_stage1/normal"])):
        space = whole
        for stage, count in enumerate(meta["stages_keep"][:-1], start=1):
            alpha = _stage_alpha(case, stage, number)
            counts = {cell: [count] * space.num_edges for cell in space.cell_types}
            space = pruned(space, alpha, counts)
            errors[f"switches_stage{stage}"] += _switches(case, stage, number, space, names)
        alpha = _stage_alpha(case, 3, number)
        last = {}
        for cell in space.cell_types:
            last[cell] = tuple(
                tuple(edge[column] for column in strongest_operations(edge, row, 1, without_none=True))
                for edge, row in zip(space.operations(cell), alpha[cell], strict=True)
            )
        left = dataclasses.replace(space, normal=last["normal"], reduce=last["reduce"])
        errors["switches_stage3"] += _switches(case, 3, number, left, names)
        weights = Weights(softmax_weights(space, jax.tree.map(jnp.asarray, alpha)))
        expected = meta["genotypes"][number]

        def same(most: int | None, value: Any, space: CellSpace = space, weights: Weights = weights) -> bool:
            return sparing(most)(space, weights, None) == Genotype.from_json(value)

        right["unrestricted"] &= same(None, expected["unrestricted"])
        right["skips_at_most_2"] &= same(2, expected["skips_at_most_2"])
        for most, value in expected["restricted"].items():
            right["restricted"] &= same(int(most), value)
    yield from (Row(name, error) for name, error in errors.items())
    yield from (Row(f"genotypes/{name}", 0.0 if is_right else np.inf) for name, is_right in right.items())


def _stage_alpha(case: Case, stage: int, number: int) -> dict[str, np.ndarray]:
    return {cell: value[number] for cell, value in case.group(f"alpha_stage{stage}").items()}


def _switches(case: Case, stage: int, number: int, space: SearchSpace, names: Sequence[str]) -> float:
    """0 if the same operations are left."""
    expected = case.group(f"switches_stage{stage}")
    return sum(
        _same(np.array([[name in edge for name in names] for edge in space.operations(cell)]), expected[cell][number])
        for cell in space.cell_types
    )


def _same(ours: Any, reference: Any) -> float:
    return 0.0 if np.array_equal(ours, reference) else np.inf


# DOTS


def read_dots(case: Case) -> Setting:
    """A file's setting: alphas of both groups side by side, as ours have them."""
    groups = {cell: [f"op_alpha/{cell}_{kind}" for kind in ("non_params", "params")] for cell in ("normal", "reduce")}
    joined = {
        f"alpha/{cell}": np.concatenate([case.arrays[name] for name in names], axis=1) for cell, names in groups.items()
    }
    return read_setting(case._replace(arrays={**case.arrays, **joined}), "dots")


def check_dots(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, space = own.case, own.space
    assert isinstance(space, SearchSpace)
    base = softmax(space, 0.0, jnp.float64)
    relaxation, alpha = grouped(space, base), own.alpha
    yield from by_cell("op_weights", relaxation.mean(alpha, {}).operations, case)
    if "op_train_logits" in case.arrays:
        problem = dataclasses.replace(own.problem, relaxation=relaxation)
        yield from _operation_phase(own, problem, alpha)
    method = own.method("dots")
    found = {"op_genotype": _same_genotype(method, space, alpha, case.meta["op_genotype"])}
    left = decided_operations(space, alpha)
    mask = {cell: np.zeros(value.shape, bool) for cell, value in alpha.items()}
    for cell, row, column in _entries(space, left):
        mask[cell][row, column] = True
    yield Row("mask", sum(_same(mask[cell], case.arrays[f"mask/{cell}"]) for cell in mask))
    beta = case.group("beta")
    variables = _variables(left, case.group("balance"), beta)
    values = {"temperature": jnp.asarray(case.meta["T"], float)}
    whole = _scattered(space, left, topology(left, softmax(left, 0.0, jnp.float64), EDGES, jnp.float64))
    weights = whole.mean(variables, values)
    yield from by_cell("tp_op_weights", weights.operations, case)
    yield from by_cell("edge_weights", weights.edges or {}, case)
    temperature = case.meta["T"]
    pairs = {cell: combination_weights(space, EDGES, jnp.asarray(value) / temperature) for cell, value in beta.items()}
    yield from by_cell("pair_weights", pairs, case)
    ours = np.array([(node, *sources) for node, sources in combinations(space, EDGES)])
    yield Row("pairs", _same(ours, case.arrays["pairs"]))
    if "linear_value/normal" in case.arrays:
        yield from _linear(own, temperature)
    if "tp_logits" in case.arrays:
        yield from _topology_phase(own, dataclasses.replace(own.problem, relaxation=whole), variables, values)
    yield from _temperatures(own)
    topology_right = by_combinations(EDGES)(left, whole.mean(variables, values), variables)
    found["genotype"] = 0.0 if topology_right == Genotype.from_json(case.meta["genotype"]) else np.inf
    for number, expected in enumerate(case.meta.get("cases", ())):
        sides = {
            cell: np.concatenate(
                [case.arrays[f"cases/op_{kind}"][number][index] for kind in ("non_params", "params")], axis=1
            )
            for index, cell in enumerate(space.cell_types)
        }
        one = jax.tree.map(jnp.asarray, sides)
        own_left = decided_operations(space, one)
        arrays = [
            {cell: case.arrays[f"cases/{name}"][number][index] for index, cell in enumerate(space.cell_types)}
            for name in ("balance", "beta")
        ]
        derived = by_combinations(EDGES)(own_left, Weights({}), _variables(own_left, *arrays))
        found[f"cases/{number}/op_genotype"] = _same_genotype(method, space, one, expected["op_genotype"])
        found[f"cases/{number}/genotype"] = 0.0 if derived == Genotype.from_json(expected["genotype"]) else np.inf
    yield from (Row(name, error) for name, error in found.items())


def _same_genotype(method: Method, space: CellSpace, alpha: Alpha, expected: Any) -> float:
    genotype: Architecture = method.derive(space, method.problem.mean_weights(alpha, {}), alpha)
    return 0.0 if genotype == Genotype.from_json(expected) else np.inf


def _entries(space: CellSpace, left: CellSpace) -> Iterator[tuple[str, int, int]]:
    """(cell, edge, column) of every operation that is left, edge by edge."""
    for cell in space.cell_types:
        for row, (names, kept) in enumerate(zip(space.operations(cell), left.operations(cell), strict=True)):
            for name in kept:
                yield cell, row, names.index(name)


def _variables(left: CellSpace, balance: Mapping[str, Any], beta: Mapping[str, Any]) -> Alpha:
    return jax.tree.map(jnp.asarray, {**dict(balance), COMBINATIONS: dict(beta)})


def _scattered(space: CellSpace, left: CellSpace, relaxation: Relaxation) -> Relaxation:
    """The weights of what is left in the network of all operations, which the reference keeps."""
    places = {cell: np.zeros((*left.alpha_shape(cell), space.alpha_shape(cell)[1])) for cell in space.cell_types}
    seen: dict[tuple[str, int], int] = {}
    for cell, row, column in _entries(space, left):
        position = seen.get((cell, row), 0)
        seen[cell, row] = position + 1
        places[cell][row, position, column] = 1

    def mean(alpha: Alpha, values: Any) -> Weights:
        weights = relaxation.mean(alpha, values)
        every = {cell: jnp.einsum("ek,ekj->ej", weights.operations[cell], places[cell]) for cell in space.cell_types}
        return Weights(every, weights.edges)

    return relaxation._replace(mean=mean, sample=lambda alpha, values, key: mean(alpha, values))


def _operation_phase(own: Setting, problem: Problem, alpha: Alpha) -> Iterator[Row]:
    case = own.case
    for half, batch in (("train", own.train), ("valid", own.valid)):
        slope, (value, seen) = _slope(problem, own, alpha, own.view(batch))
        yield from rows({f"op_{half}_logits": seen.totals["logits"], f"op_{half}_loss": value}, case)
        if half == "valid":
            split = {f"{cell}_non_params": slope[cell][:, :4] for cell in slope}
            split |= {f"{cell}_params": slope[cell][:, 4:] for cell in slope}
            yield from by_cell("op_first_order", split, case)


def _slope(problem: Problem, own: Setting, alpha: Alpha, view: Any) -> Any:
    (value, seen), slope = jax.value_and_grad(problem.outer, argnums=1, has_aux=True)(own.params, alpha, view)
    return slope, (value, seen)


def _topology_phase(own: Setting, problem: Problem, alpha: Alpha, values: Mapping[str, Any]) -> Iterator[Row]:
    case = own.case
    (value, seen), (gradient, slope) = own.at(problem, alpha, values)
    yield from rows({"tp_logits": seen.totals["logits"], "tp_loss": value}, case)
    yield from by_cell("tp_grad_beta", slope[COMBINATIONS], case)
    yield from by_cell("tp_grad_balance", {cell: slope[cell] for cell in own.space.cell_types}, case)
    if reference := case.group("tp_grad_w"):
        ours = own.torch(gradient)
        yield from group_rows("tp_grad_w", {name: ours[name] for name in reference}, reference)
        others = [np.abs(v).max() for n, v in ours.items() if n not in reference and "running" not in n and v.ndim]
        yield Row("tp_grad_w, those without a gradient", float(max(others, default=0.0)))


def _linear(own: Setting, temperature: float) -> Iterator[Row]:
    """Edge weights alone, without a network."""
    case, space = own.case, own.space
    table = membership(space, EDGES)
    for cell in space.cell_types:
        coefficients = case.arrays[f"linear_coefficients/{cell}"]

        def value(beta: jax.Array, coefficients: np.ndarray = coefficients) -> jax.Array:
            return (combination_weights(space, EDGES, beta / temperature) @ table) @ coefficients

        found, slope = jax.value_and_grad(value)(jnp.asarray(case.arrays[f"beta/{cell}"]))
        yield from rows({f"linear_value/{cell}": found, f"linear_grad/{cell}": slope}, case)


def _temperatures(own: Setting) -> Iterator[Row]:
    case, meta = own.case, own.case.meta
    if "temperature" not in case.arrays:
        return
    phases = meta["phases"]
    settings = own.settings
    settings.epochs = phases["end"] - phases["tp_pretrain"]
    settings.alpha_warm_up = (phases["tp_search"] - phases["tp_pretrain"]) / settings.epochs
    settings.topology_temperature_start, settings.topology_temperature_end = meta["Tmax"], meta["Tmin"]
    schedule = topology_temperature(settings)
    before = np.ones(phases["tp_pretrain"])
    found = np.concatenate([before, [schedule(epoch) for epoch in range(settings.epochs)]])
    yield from rows({"temperature": found}, case)


# DARTS+PT


def read_darts_pt(case: Case) -> Setting:
    """A file's setting: the first batches of validation, and of training between decisions, in the usual places."""
    arrays = dict(case.arrays)
    for name, given in (("valid", "valid"), ("train", "tune")):
        source = given if f"{given}_x" in arrays else "valid"
        arrays[f"all_{name}_x"], arrays[f"all_{name}_y"] = arrays[f"{source}_x"], arrays[f"{source}_y"]
    for name in ("valid", "train"):
        arrays[f"{name}_x"], arrays[f"{name}_y"] = arrays[f"all_{name}_x"][0], arrays[f"all_{name}_y"][0]
    return read_setting(case._replace(arrays=arrays), "darts-pt")


class _Projected:
    """The file's supernet in the state that decisions have left."""

    def __init__(self, own: Setting) -> None:
        self.own, self.space = own, own.space
        settings = own.settings
        settings.learning_rate = own.case.meta.get("tune_lr", 0.1 * own.settings.learning_rate)
        around = partial(projected, own.space)
        self.method = gradient_method(Ingredients(own.problem, settings, around))
        problem = self.method.problem
        state = self.method.init(jax.random.key(0))
        values = {**state.values, **undecided(own.space, jnp.float64)}
        self.state: SearchState = dataclasses.replace(state, alpha=own.alpha, values=values)
        self.valid = _batches(own, "valid")

        @partial(jax.jit, static_argnums=5)
        def total(params: Any, stats: Any, weights: Weights, values: Any, batch: Batch, train: bool) -> Any:
            totals, _ = problem.measured(
                params, stats, weights, values, batch, jnp.ones(len(batch.labels), bool), train=train
            )
            return totals

        self._total = total

    def weights(self) -> Weights:
        return self.method.problem.mean_weights(self.state.alpha, self.state.values)

    def score(self, weights: Weights, train: bool = True) -> dict[str, float]:
        """Means over all validation batches."""
        state = self.state
        totals = [self._total(state.params, state.stats, weights, state.values, b, train) for b in self.valid]
        return {
            name: float(sum(t[name][0] for t in totals)) / float(sum(t[name][1] for t in totals))
            for name in ("accuracy", "loss")
        }

    def pair(self, weights: Weights, train: bool = True) -> list[float]:
        """As the file has it: accuracy in percent, and loss."""
        found = self.score(weights, train)
        return [100 * found["accuracy"], found["loss"]]

    def take(self, rule: Rule, decision: Decision) -> dict[str, Any]:
        """Takes a decision; returns what is told of it."""
        names = (decided_name(decision.cell), kept_name(decision.cell))
        present = {name: np.array(self.state.values[name]) for name in names}
        outcome = rule.decide(decision, self.weights(), present, self.score, jax.random.key(0))
        values = {**self.state.values, **{n: jnp.asarray(v, float) for n, v in outcome.decided.items()}}
        self.state = dataclasses.replace(self.state, values=values)
        return outcome.told

    def tune(self) -> None:
        """A pass over the file's training batches; alpha's batch is always the first."""
        for batch in _batches(self.own, "train"):
            self.state, _ = self.step(self.state, batch, self.own.valid)

    @property
    def step(self) -> Any:
        return self.method.step


def _batches(own: Setting, name: str) -> list[Batch]:
    arrays = own.case.arrays
    return [
        Batch(jnp.asarray(images.transpose(0, 2, 3, 1)), jnp.asarray(labels))
        for images, labels in zip(arrays[f"all_{name}_x"], arrays[f"all_{name}_y"], strict=True)
    ]


def check_darts_pt(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, meta = own.case, own.case.meta
    net = _Projected(own)
    weights = net.weights()
    yield from by_cell("weights", weights.operations, case)
    for name, train in (("supernet_train_mode", True), ("supernet_eval_mode", False)):
        if name in case.arrays:
            yield from rows({name: np.array(net.pair(weights, train))}, case)
    if case.group("masked"):
        yield from _masked(own, net)
    for run in meta.get("runs", ()):
        yield from _run(own, run)


def _masked(own: Setting, net: _Projected) -> Iterator[Row]:
    case, weights = own.case, net.weights()
    for criterion, name in (("objective", "masked_choice_acc"), ("loss", "masked_choice_loss")):
        errors = 0.0
        for cell in own.space.cell_types:
            means, chosen = [], []
            rule = _rule(own, criterion)
            for edge in range(own.space.num_edges):
                told = rule.decide(
                    Decision(cell, edge), weights, _present(net, cell), net.score, jax.random.key(0)
                ).told
                means.append(np.stack([100 * np.array(told["accuracy"]), told["loss"]], axis=-1))
                chosen.append(own.space.operations(cell)[edge].index(told["chosen"]))
            if criterion == "objective":
                reference = {"": case.arrays[f"masked/{cell}"]}
                yield Row(f"masked/{cell}", relative_error({"": np.array(means)}, reference))
            errors += _same(np.array(chosen), case.arrays[f"{name}/{cell}"])
        yield Row(name, errors)
    if "masked_logits" in case.arrays:
        which = case.meta["masked_logits"]
        matrix = np.array(weights.operations[which["cell"]])
        matrix[which["edge"], which["operation"]] = 0
        yield from rows({"masked_logits_weights": matrix}, case)
        masked = weights._replace(operations={**weights.operations, which["cell"]: jnp.asarray(matrix)})
        given = dataclasses.replace(own.problem, relaxation=_fixed(masked))
        batch = net.valid[which["batch"]]
        seen = given.outer(own.params, {}, own.view(batch))[1]
        yield from rows({"masked_logits": seen.totals["logits"]}, case)


def _fixed(weights: Weights) -> Relaxation:
    return Relaxation(lambda key: {}, lambda alpha, values, key: weights, lambda alpha, values: weights)


def _present(net: _Projected, cell: str) -> dict[str, np.ndarray]:
    return {name: np.array(net.state.values[name]) for name in (decided_name(cell), kept_name(cell))}


def _rule(own: Setting, criterion: str) -> Rule:
    # The published code has `none` among the candidates.
    return Rule(own.space, criterion, "accuracy", METRICS, may_be_none=True)


def _run(own: Setting, run: Mapping[str, Any]) -> Iterator[Row]:
    """A whole projection in the file's order: what every decision saw and took, and how it ended."""
    case, name, net = own.case, run["name"], _Projected(own)
    rule = _rule(own, "loss" if run["criterion"] == "loss" else "objective")
    ours: list[float] = []
    reference: list[float] = []
    right = True
    cells, events = own.space.cell_types, run["events"]
    for number, event in enumerate(events):
        cell = event["cell"]
        if event["kind"] == "op":
            told = net.take(rule, Decision(cell, event["edge"]))
            right &= own.space.operations(cell)[event["edge"]][event["chosen"]] == told["chosen"]
            seen = range(len(event["acc"]))
        else:
            # Its node 0 is the first that has an edge too many.
            node = event["node"] + own.space.num_nodes - len(run["order_nodes"][cell])
            told = net.take(rule, Decision(cell, None, node))
            first = own.space.incoming(node).start
            right &= [first + source for source in told["kept"]] == sorted(event["kept"])
            seen = [edge - first for edge in event["removed_in_test"]]  # several times the same
        ours += [100 * told["accuracy"][i] for i in seen] + [told["loss"][i] for i in seen]
        reference += [*event["acc"], *event["loss"]]
        if name == "tuned" and (number + 1) % len(cells) == 0:
            net.tune()
    error = relative_error({"": np.array(ours)}, {"": np.array(reference)})
    yield Row(f"{name}: scores of {len(events)} decisions", error)
    yield Row(f"{name}: decisions", 0.0 if right else np.inf)
    final = {cell: np.asarray(net.weights().operations[cell]) for cell in cells}
    yield from by_cell(f"final_{name}", final, case)
    if name == "tuned":
        yield from by_cell("tuned_alpha", {cell: net.state.alpha[cell] for cell in cells}, case)
        yield from group_rows("tuned_params", _named(own, net, case), case.group("tuned_params"))


def _named(own: Setting, net: _Projected, case: Case) -> dict[str, np.ndarray]:
    ours = own.torch(net.state.params)
    return {name: ours[name] for name in case.group("tuned_params")}
