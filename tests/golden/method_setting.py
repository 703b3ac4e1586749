"""What is a method compared on: a file's network as a problem, and the rows that all methods share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
from check_networks import Case, search_space
from relative_errors import Arrays, Row, array_rows, group_rows, relative_error, same_keys

from jaxdarts.bilevel import set_hyperparameters, value_and_gradients
from jaxdarts.errors import InputError
from jaxdarts.interop import from_torch, network_of, to_torch
from jaxdarts.methods import METHODS
from jaxdarts.methods.base import Ingredients, Method, Problem, SearchState, View
from jaxdarts.methods.relaxations import Alpha, softmax
from jaxdarts.networks import Supernet
from jaxdarts.networks.functional import relaxed_network
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.spaces import Architecture, CellSpace, DenseGenotype, Genotype
from jaxdarts.tasks.classification import Batch, bare_task, loss


class Setting(NamedTuple):
    """What a file is compared with."""

    case: Case
    space: CellSpace
    module: Supernet
    problem: Problem  # with DARTS' relaxation
    settings: SimpleNamespace
    params: Any
    stats: Any
    train: Batch
    valid: Batch

    def method(self, name: str) -> Method:
        """As the command builds it."""
        return METHODS[name].build(Ingredients(self.problem, self.settings))

    def view(self, batch: Batch, values: Mapping[str, Any] = {}, key: jax.Array | None = None) -> View:  # noqa: B006
        """What a loss sees."""
        return View(batch, self.stats, (), {name: jnp.asarray(value, float) for name, value in values.items()}, key)

    def torch(self, params: Any) -> Arrays:
        """Weights, or their gradient, by the file's names."""
        return to_torch(self.module, {"params": params, "batch_stats": self.stats})

    @property
    def alpha(self) -> Alpha:
        """The file's."""
        return jax.tree.map(jnp.asarray, self.case.by_cell("alpha"))

    def at(self, problem: Problem, alpha: Alpha, values: Mapping[str, Any] = {}, key: Any = None) -> Any:  # noqa: B006
        """((loss, what is seen), (gradient in w, gradient in alpha)) of the train batch."""
        return value_and_gradients(problem.outer, self.params, alpha, self.view(self.train, values, key))

    @property
    def halves(self) -> tuple[Batch, Batch]:
        """The train batch in two."""
        half = len(self.train.labels) // 2
        return tuple(jax.tree.map(lambda leaf, s=s: leaf[s], self.train) for s in (slice(half), slice(half, None)))  # type: ignore[return-value]

    def state(self, method: Method, alpha: Alpha, values: Mapping[str, Any]) -> SearchState:
        """The file's state, with fresh optimisers."""
        state = method.init(jax.random.key(0))
        return dataclasses.replace(state, alpha=alpha, values={n: jnp.asarray(values[n], float) for n in state.values})


def read_setting(case: Case, name: str) -> Setting:
    space, arrays, meta = search_space(case), case.arrays, case.meta
    ours = list(space.operations(space.cell_types[0])[0])
    for field in ("ops", "primitives"):
        if meta.get(field, ours) != ours and "operations" not in meta:
            raise InputError(f"meta: {field} are {meta[field]}; expected {ours}")
    if given := case.group("params"):
        variables, network = from_torch(space, given), network_of(space, given)
        assert isinstance(network, Supernet)
        module = network.clone(**METHODS[name].network(SearchConfig(method=name)))
    else:
        module = Supernet(space, meta["num_classes"], meta["init_channels"], meta["layers"])
        variables = {"params": {}, "batch_stats": {}}
    batches = [Batch(case.images(f"{half}_x"), jnp.asarray(arrays[f"{half}_y"])) for half in ("train", "valid")]
    stats, params = (jax.tree.map(jnp.asarray, variables[part]) for part in ("batch_stats", "params"))
    relaxed = relaxed_network(module, batches[0].images.shape[1:], jnp.float64)
    relaxed = relaxed._replace(init=lambda key: (params, stats))
    task = bare_task()._replace(loss=_loss_and_logits, inner_loss=_loss_and_logits)
    problem = Problem(space, relaxed, task, softmax(space, dtype=jnp.float64))
    settings = SearchConfig(method=name).flat() | {
        # What no file changes; the method's own settings have their defaults.
        "hypergradient": "first_order",
        "epochs": 50,
        "learning_rate_min": 0.0,
        "learning_rate": meta["lr"],
        "momentum": meta["momentum"],
        "nesterov": meta.get("nesterov", False),
        "l2": meta["weight_decay"],
        "clip_norm": float(meta["grad_clip"]),
        "alpha_learning_rate": meta.get("alpha_lr", 3e-4),
        "alpha_l2": meta.get("alpha_weight_decay", 0.0),
    }
    settings["alpha_b1"], settings["alpha_b2"] = meta.get("alpha_betas", (0.5, 0.999))
    return Setting(case, space, module, problem, SimpleNamespace(**settings), params, stats, *batches)


def _loss_and_logits(outputs: Any, batch: Batch) -> Any:
    value, totals = loss(outputs, batch)
    return value, {**totals, "logits": outputs.main}


def passes(
    own: Setting, problem: Problem, alpha: Alpha, values: Mapping[str, Any], prefix: str = "", keys: Any = (None, None)
) -> Iterator[Row]:
    """Scores, losses and gradients on the train and on the valid batch."""
    arrays = {name.removeprefix(prefix): value for name, value in own.case.arrays.items() if name.startswith(prefix)}
    case = own.case._replace(arrays=arrays)
    for half, batch, key in (("train", own.train, keys[0]), ("valid", own.valid, keys[1])):
        view = own.view(batch, values, key)
        (value, seen), (gradient, slope) = value_and_gradients(problem.outer, own.params, alpha, view)
        found = {f"{half}_logits": seen.totals["logits"], f"{half}_loss": value}
        for name in found:
            yield from _named(prefix, array_rows(name, found, arrays))
        if half == "train":
            yield from _named(prefix, group_rows("grad_w", own.torch(gradient), case.group("grad_w")))
            for name in ("train_grad_alpha", "grad_alpha"):
                yield from _named(prefix, by_cell(name, slope, case))
        else:
            yield from _named(prefix, by_cell("first_order", slope, case))
            yield from _named(prefix, by_cell("first_order_beta", slope.get("edges", {}), case))


def _named(prefix: str, rows: Iterator[Row]) -> Iterator[Row]:
    return (Row(f"{prefix}{row.quantity}", row.error) for row in rows)


def by_cell(name: str, ours: Mapping[str, Any], case: Case) -> Iterator[Row]:
    """The row of what is by cell type, if the file has it."""
    if reference := case.by_cell(name):
        yield Row(name, relative_error(same_keys(name, ours, reference), reference))


def rows(found: Mapping[str, Any], case: Case) -> Iterator[Row]:
    """A row of every array that the file has."""
    for name in found:
        yield from array_rows(name, found, case.arrays)


def step_rows(
    own: Setting, method: Method, alpha: Alpha, values: Mapping[str, Any], name: str, moves: float | None = None
) -> Iterator[Row]:
    """One pass of the method over both batches, in which alpha's step comes first."""
    case = own.case
    if not case.group(name):
        return
    state = own.state(method, alpha, values)
    if moves is not None:
        opt_state = set_hyperparameters(state.alpha_opt_state, moves=moves)
        state = dataclasses.replace(state, alpha_opt_state=opt_state)
    new, totals = method.step(state, own.train, own.valid)
    _, (gradient, _) = value_and_gradients(method.problem.outer, own.params, new.alpha, own.view(own.train, values))
    yield from array_rows(f"{name}/train_loss", {f"{name}/train_loss": totals["train_loss"][0]}, case.arrays)
    yield from array_rows(f"{name}/clip_norm", {f"{name}/clip_norm": optax.tree.norm(gradient)}, case.arrays)
    yield from by_cell(f"{name}/alpha", new.alpha, case)
    yield from by_cell(f"{name}/beta", new.alpha.get("edges", {}), case)
    yield from group_rows(f"{name}/params", own.torch(new.params), case.group(f"{name}/params"))


def hessian_of(outer: Callable[..., Any], params: Any, alpha: Alpha, view: View) -> np.ndarray:
    """Of a loss in all of alpha, cell types in order and then what else it holds."""
    return np.asarray(_hessian(outer, params, alpha, view))


@partial(jax.jit, static_argnums=0)
def _hessian(outer: Callable[..., Any], params: Any, alpha: Alpha, view: View) -> jax.Array:
    names = sorted(alpha, key=lambda name: (name == "edges", name))
    flat, rebuild = jax.flatten_util.ravel_pytree([alpha[name] for name in names])
    slope = jax.grad(lambda vector: outer(params, dict(zip(names, rebuild(vector), strict=True)), view)[0])
    # One column at a time: all of them at once would hold as many networks.
    return jax.lax.map(lambda v: jax.jvp(slope, (flat,), (v,))[1], jnp.eye(len(flat), dtype=flat.dtype))


def genotypes(own: Setting, name: str, method: Method, alphas: list[Alpha], expected: list[Any]) -> Iterator[Row]:
    """Whether each alpha gives the genotype that the reference derived."""
    right = len(alphas) == len(expected)
    for alpha, value in zip(alphas, expected, strict=False):
        genotype = method.derive(own.space, method.problem.mean_weights(alpha, {}), alpha)
        right = right and genotype == _architecture(value)
    yield Row(name, 0.0 if right else np.inf)


def _architecture(value: Any) -> Architecture:
    return DenseGenotype.from_text(value) if isinstance(value, str) else Genotype.from_json(value)
