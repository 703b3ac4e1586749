"""Does FairDARTS do what its authors' code does? Used by check_methods.py.

A file without `params/*` is compared in all but the supernet: in its place stands a loss that is linear in the mixing
weights and has the file's gradient. Not compared: `threshold_edge`, which keeps more edges than a genotype here holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from method_setting import Setting, by_cell, hessian_of, passes, step_rows
from relative_errors import Row, array_rows, relative_error

from jaxdarts.bilevel import value_and_gradients
from jaxdarts.interop import from_torch, network_of, to_torch
from jaxdarts.methods.base import Method
from jaxdarts.methods.fair_darts import ZERO_ONE_LOSSES, strong_edges, zero_one_loss
from jaxdarts.networks import Weights
from jaxdarts.spaces import Genotype
from jaxdarts.spaces.genotype import existing


def check_fair_darts(own: Setting) -> Iterator[Row]:
    """The rows of a file's table."""
    case, arrays, space = own.case, own.case.arrays, own.space
    alpha = {cell: jnp.asarray(value) for cell, value in case.group("alpha").items()}
    own.settings.zero_one_weight = weight = float(case.meta["zero_one_weight"])
    own.settings.fair_threshold = case.meta["threshold"]
    has_network = bool(case.group("params"))
    own = own if has_network else _linear(own, alpha)
    method = own.method("fair-darts")
    problem = method.problem
    yield from by_cell("sigmoid", problem.mean_weights(alpha, {}).operations, case)
    slopes = {}
    for form in ZERO_ONE_LOSSES:
        value, slopes[form] = jax.value_and_grad(lambda a, form=form: zero_one_loss(space, a, form))(alpha)
        yield from array_rows(f"zero_one/{form}", {f"zero_one/{form}": value}, arrays)
        yield from by_cell(f"zero_one/{form}_grad", slopes[form], case)
    if has_network:
        others = {name: value for name, value in arrays.items() if not name.startswith("first_order/")}
        yield from passes(own._replace(case=case._replace(arrays=others)), problem, alpha, {})

    def total(params: Any, alpha: Any, view: Any) -> Any:
        value, seen = problem.outer(params, alpha, view)
        return value + weight * zero_one_loss(space, alpha), seen

    (_, _), (_, slope) = value_and_gradients(problem.outer, own.params, alpha, own.view(own.valid))
    yield from by_cell("first_order_cross_entropy", slope, case)
    yield from by_cell("first_order", jax.tree.map(lambda a, b: a + weight * b, slope, slopes["l2"]), case)
    if has_network:
        for half, batch in (("train", own.train), ("valid", own.valid)):
            name = f"{half}_total_loss"
            yield from array_rows(name, {name: total(own.params, alpha, own.view(batch))[0]}, arrays)
        if "eigenvalues" in arrays:
            yield from _curvature(own, total, alpha)
    yield from _step(own, method, alpha, weight, has_network)
    yield from _evaluation(own)
    yield _derivation(own, "genotype", [alpha], [case.meta["genotype"]])
    alphas = [dict(zip(space.cell_types, value, strict=True)) for value in arrays.get("cases", ())]
    if alphas:
        yield _derivation(own, "cases/threshold_sparse", alphas, case.meta["cases"]["threshold_sparse"])
        yield _derivation(own, "cases/darts", alphas, case.meta["cases"]["darts"])


def _linear(own: Setting, alpha: Mapping[str, jax.Array]) -> Setting:
    """The same with a loss in the place of the network's: it is linear in the weights, and has the file's gradient."""
    slopes = own.case.group("first_order_cross_entropy")
    weights = {cell: np.asarray(jax.nn.sigmoid(value)) for cell, value in alpha.items()}
    factors = {cell: slopes[cell] / (weights[cell] * (1 - weights[cell])) for cell in weights}
    params = {"nothing": jnp.zeros(1)}

    def apply(params: Any, stats: Any, weights: Weights, batch: Any, memory: Any, context: Any) -> Any:
        return sum((factors[cell] * weights.operations[cell]).sum() for cell in factors), stats, memory

    def loss(outputs: Any, batch: Any) -> Any:
        return outputs, {"loss": (outputs, jnp.ones((), int))}

    network = own.problem.network._replace(init=lambda key: (params, {}), apply=apply)
    task = own.problem.task._replace(loss=loss, inner_loss=loss)
    return own._replace(problem=dataclasses.replace(own.problem, network=network, task=task), params=params)


def _curvature(own: Setting, total: Any, alpha: Any) -> Iterator[Row]:
    matrix = hessian_of(total, own.params, alpha, own.view(own.valid))
    reference = np.sort(own.case.arrays["eigenvalues"])
    yield Row("eigenvalues", relative_error({"": np.linalg.eigvalsh((matrix + matrix.T) / 2)}, {"": reference}))
    name = "hessian_normal_edges_0_1"
    if name in own.case.arrays:
        size = len(own.case.arrays[name])
        yield from array_rows(name, {name: matrix[:size, :size]}, own.case.arrays)


def _step(own: Setting, method: Method, alpha: Any, weight: float, has_network: bool) -> Iterator[Row]:
    case = own.case
    if has_network:
        yield from step_rows(own, method, alpha, {}, "step")
    if not case.group("step/alpha"):
        return
    new, totals = method.step(own.state(method, alpha, {}), own.train, own.valid)
    if not has_network:
        yield from by_cell("step/alpha", new.alpha, case)
    elif "step/train_total_loss" in case.arrays:
        found = totals["train_loss"][0] + weight * zero_one_loss(own.space, new.alpha)
        yield from array_rows("step/train_total_loss", {"step/train_total_loss": found}, case.arrays)


def _evaluation(own: Setting) -> Iterator[Row]:
    """The network of a genotype that lacks a node, an edge from which is written down."""
    case, state = own.case, own.case.group("evaluation/state")
    if not state:
        return
    genotype = Genotype.from_json(case.meta["evaluation_genotype"])
    concatenated = {cell: list(genotype.concat(cell)) for cell in genotype.cell_types}
    yield Row("evaluation/concatenated", 0.0 if concatenated == case.meta["evaluation_concatenated"] else np.inf)
    variables, network = from_torch(genotype, state), network_of(genotype, state)
    back = to_torch(network, variables)
    same = all(np.array_equal(state[name], back[name]) for name in state if name in back)
    yield Row("evaluation/state", 0.0 if same else np.inf)

    def both_modes(variables: Any, images: Any) -> Any:
        (train, _), _ = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return network.apply(variables, images)[0], train

    scores = jax.jit(both_modes)(variables, case.images("valid_x"))
    for mode, found in zip(("eval", "train"), scores, strict=True):
        name = f"evaluation/{mode}_logits"
        yield from array_rows(name, {name: found}, case.arrays)


def _derivation(own: Setting, name: str, alphas: list[Any], expected: list[Any]) -> Row:
    """Whether each alpha gives the reference's entries, and what is made of them where no cell is left empty."""
    space, by_threshold = own.space, name != "cases/darts"
    own.settings.fair_derivation = "threshold" if by_threshold else "darts"
    method = own.method("fair-darts")
    right = len(alphas) == len(expected)
    for alpha, value in zip(alphas, expected, strict=False):
        weights = method.problem.mean_weights(alpha, {})
        genotype = method.derive(space, weights)
        assert isinstance(genotype, Genotype)
        if not by_threshold:
            right = right and all([list(edge) for edge in genotype.edges(c)] == value[c] for c in space.cell_types)
            continue
        edges = strong_edges(space, weights, own.settings.fair_threshold)
        entries = {c: [[name, node + 2, source] for node, (name, source) in edges[c]] for c in space.cell_types}
        right = right and all(entries[cell] == value[cell] for cell in space.cell_types)
        if all(existing(edges[cell]) for cell in space.cell_types):
            whole = {cell: value[cell] for cell in space.cell_types}
            whole |= {f"{cell}_concat": list(space.concat) for cell in space.cell_types}
            right = right and genotype == Genotype.from_json(whole)
    return Row(name, 0.0 if right else np.inf)
