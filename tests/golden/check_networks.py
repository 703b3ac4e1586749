"""Do networks and their derivatives agree with a golden case? Used by check.py for FILE.npz."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from relative_errors import Arrays, Row, array_rows, group_rows, relative_error, same_keys

from jaxdarts.bilevel import (
    Bilevel,
    InnerStep,
    beta_decay_penalty,
    finite_difference,
    first_order,
    unrolled,
    virtual_step_optimiser,
)
from jaxdarts.curvature import hessian
from jaxdarts.errors import InputError
from jaxdarts.interop import from_torch, network_of, to_torch
from jaxdarts.networks import Supernet, softmax_weights
from jaxdarts.spaces import (
    CELL_TYPES,
    DARTS,
    SPACES,
    Architecture,
    CellSpace,
    DenseGenotype,
    DenseSpace,
    Genotype,
    SearchSpace,
    count_edges,
    discretise,
)

# That of FairDARTS, with its operations in DARTS' order.
WITHOUT_NONE = SearchSpace.uniform("darts without none", tuple(name for name in DARTS.normal[0] if name != "none"))


class Case(NamedTuple):
    """A file's contents: arrays by name, and its settings."""

    arrays: Arrays
    meta: dict[str, Any]

    def group(self, name: str) -> Arrays:
        """The arrays `name/*` by the rest of their names."""
        return {key.removeprefix(f"{name}/"): value for key, value in self.arrays.items() if key.startswith(f"{name}/")}

    def by_cell(self, name: str) -> Arrays:
        """The arrays `name/*` of each cell type, or the only array `name` of a space with one type."""
        return {"cell": self.arrays[name]} if name in self.arrays else self.group(name)

    def images(self, name: str) -> jax.Array:
        """Images of the file (NCHW) as the networks take them (NHWC)."""
        images = self.arrays[name]
        if images.ndim != 4:
            raise InputError(f"{name} has shape {images.shape}; expected (batch, channels, height, width)")
        return jnp.asarray(images.transpose(0, 2, 3, 1))


def read_case(path: str | Path) -> Case:
    """A golden file. Raises InputError where it can't be read or has no settings."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError("not an .npz file")
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"cannot be read: {reason}") from error
    try:
        meta = json.loads(str(arrays.pop("meta")))
    except KeyError as error:
        raise InputError("holds no meta; expected a JSON object with the settings under that name") from error
    except json.JSONDecodeError as error:
        raise InputError(f"meta is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise InputError("meta is not a JSON object")
    return Case(arrays, meta)


def check_case(case: Case) -> Iterator[Row]:
    """The rows of a case's table. Raises InputError where it isn't understood."""
    if case.group("state") and "x" in case.arrays:
        return _check_discrete(case)
    if case.group("params") and case.by_cell("alpha"):
        return _check_search(case)
    raise InputError(
        "is neither a cell space's search case (params/*, alpha or alpha/*) nor an evaluation case (state/*, x)"
    )


def search_space(case: Case) -> CellSpace:
    """The space that a search case names, with the file's number of nodes and concatenated states."""
    name, spaces = case.meta.get("space"), {**SPACES, "darts without none": WITHOUT_NONE}
    if name not in spaces:
        raise InputError(f"meta: unknown space {name!r}; choose from {', '.join(spaces)}")
    if isinstance(spaces[name], DenseSpace):
        return spaces[name]
    rows, columns = case.group("alpha").get("normal", np.empty((0, 0))).shape
    # RobustDARTS' code calls the full DARTS space "s5"; the paper's S5 has three operations.
    base = DARTS if name == "s5" and columns == len(DARTS.normal[0]) else spaces[name]
    assert isinstance(base, SearchSpace)
    nodes = next((n for n in range(1, rows + 1) if count_edges(n) == rows), None)
    if nodes is None or case.meta.get("nodes", nodes) != nodes:
        raise InputError(f"alpha/normal has {rows} rows, which does not fit {case.meta.get('nodes', 'any')} nodes")
    if "operations" in case.meta:  # of a space that a stage before has narrowed
        edges = {cell: tuple(map(tuple, case.meta["operations"][cell])) for cell in CELL_TYPES}
    elif len(set(base.normal + base.reduce)) == 1:
        edges = {cell: base.operations(cell)[:1] * rows for cell in CELL_TYPES}
    elif nodes <= base.num_nodes:  # the reference reads its table of edges from the start
        edges = {cell: base.operations(cell)[:rows] for cell in CELL_TYPES}
    else:
        raise InputError(f"meta: space {name!r} has {base.num_nodes} nodes, the file {nodes}")
    params = case.group("params")
    if not params:
        return SearchSpace(base.name, nodes, edges["normal"], edges["reduce"], tuple(range(2, 2 + nodes)))
    network = network_of(base, params)
    assert isinstance(network, Supernet)
    last_channels = network.channels * 2 ** len({network.num_cells // 3, 2 * network.num_cells // 3})
    multiplier = params["classifier.weight"].shape[1] // last_channels
    if not 1 <= multiplier <= nodes:
        raise InputError(f"params/classifier.weight: {multiplier} states cannot be concatenated from {nodes} nodes")
    concat = tuple(range(2 + nodes - multiplier, 2 + nodes))
    return SearchSpace(base.name, nodes, edges["normal"], edges["reduce"], concat)


def _check_search(case: Case) -> Iterator[Row]:
    space = search_space(case)
    arrays = case.arrays
    if "noise" in space.operation_names:
        raise InputError("cannot be compared: the operation noise is random")
    variables = from_torch(space, case.group("params"))
    network = network_of(space, case.group("params"))
    alpha = {cell: jnp.asarray(array) for cell, array in case.by_cell("alpha").items()}
    train, valid = ((case.images(f"{half}_x"), jnp.asarray(arrays[f"{half}_y"])) for half in ("train", "valid"))

    @jax.jit
    def loss(params: Any, alpha: Any, batch: Any) -> Any:
        images, labels = batch
        logits, updated = network.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            softmax_weights(space, alpha),
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits, updated["batch_stats"])

    params = jax.tree.map(jnp.asarray, variables["params"])
    arguments = (Bilevel(loss, loss), _inner_step(case, space, params), params, alpha, train, valid)
    # Not compiled as a whole: so the compiled gradients of `loss` serve all of them.
    found: dict[str, Any] = {}
    found["train_loss"], (found["train_logits"], found["after"]) = loss(params, alpha, train)
    found["valid_loss"], (found["valid_logits"], _) = loss(params, alpha, valid)
    if grad_w := case.group("grad_w"):
        # In alpha too, though not needed: it is the program that the hypergradients use.
        (found["grad_w"], _), _ = jax.grad(loss, (0, 1), has_aux=True)(params, alpha, train)
    if case.by_cell("first_order"):
        found["first_order"], _ = first_order()(*arguments)
    if case.by_cell("unrolled_exact") or "unrolled_valid_loss" in arrays:
        found["unrolled_exact"], info = unrolled()(*arguments)
        found["unrolled_valid_loss"] = info.valid_loss
    if case.by_cell("unrolled_fd"):
        found["unrolled_fd"], _ = finite_difference(_radius(case.meta))(*arguments)
    for name in ("train_logits", "train_loss"):
        yield from array_rows(name, found, arrays)
    if grad_w:
        found_grad_w = to_torch(network, {"params": found["grad_w"], "batch_stats": found["after"]})
        yield from group_rows("grad_w", found_grad_w, grad_w)
    after = to_torch(network, {"params": params, "batch_stats": found["after"]})
    yield from group_rows("after", after, case.group("after"))
    for name in ("valid_logits", "valid_loss"):
        yield from array_rows(name, found, arrays)
    for name in ("first_order", "unrolled_exact", "unrolled_fd"):
        if reference := case.by_cell(name):
            yield Row(name, relative_error(same_keys(name, found[name], reference), reference))
    yield from array_rows("unrolled_valid_loss", found, arrays)
    if "hessian" in arrays or "eigenvalues" in arrays:
        dense = jax.jit(lambda params, alpha, batch: hessian(lambda a: loss(params, a, batch)[0], alpha))
        matrix = np.asarray(dense(params, alpha, valid))
        eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        yield from array_rows("hessian", {"hessian": matrix}, arrays)
        if "eigenvalues" in arrays:
            yield Row("eigenvalues", relative_error({"": eigenvalues}, {"": np.sort(arrays["eigenvalues"])}))
    if "beta_loss" in arrays:  # of beta decay by edge (Ye et al. 2022)
        found["beta_loss"], gradient = jax.value_and_grad(beta_decay_penalty)(alpha)
        yield from array_rows("beta_loss", found, arrays)
        reference = case.by_cell("beta_grad")
        yield Row("beta_grad", relative_error(same_keys("beta_grad", gradient, reference), reference))
    if "genotype" in case.meta or "arch_str" in case.meta:
        genotype = discretise(space, {cell: np.asarray(w) for cell, w in softmax_weights(space, alpha).items()})
        yield Row("genotype", 0.0 if genotype == _genotype(case.meta) else np.inf)


def _check_discrete(case: Case) -> Iterator[Row]:
    genotype, state = _genotype(case.meta), case.group("state")
    variables, network = from_torch(genotype, state), network_of(genotype, state)
    images = case.images("x")

    def both_modes(variables: Any, images: Any) -> Any:
        train = network.apply(variables, images, train=True, mutable=["batch_stats"])
        return network.apply(variables, images)[0], *train

    eval_logits, (train_logits, aux_logits), updated = jax.jit(both_modes)(variables, images)
    found = {"eval_logits": eval_logits, "train_logits": train_logits, "train_aux_logits": aux_logits}
    for name in found:
        yield from array_rows(name, found, case.arrays)
    after = to_torch(network, {"params": variables["params"], **updated})
    yield from group_rows("after", after, case.group("after"))


def _inner_step(case: Case, space: CellSpace, params: Any) -> InnerStep:
    meta = case.meta
    missing = [name for name in ("lr", "momentum", "weight_decay") if not isinstance(meta.get(name), int | float)]
    if missing:
        raise InputError(f"meta: {', '.join(missing)} missing or not a number")
    update = virtual_step_optimiser(meta["lr"], meta["momentum"], meta["weight_decay"])
    state = update.init(params)
    if momentum := case.group("momentum"):
        of_weights = {name: array for name, array in momentum.items() if "running_" not in name}
        buffer = from_torch(space, of_weights)["params"]
        state = optax.tree_utils.tree_set(state, trace=jax.tree.map(jnp.asarray, buffer))
    return InnerStep(update, state)


def _radius(meta: Mapping[str, Any]) -> float:
    """The displacement's length, from a text such as "0.01 / ||grad_w L_valid(w')||_2"."""
    text = str(meta.get("fd_epsilon", 0.01))
    try:
        return float(text.split("/")[0])
    except ValueError as error:
        raise InputError(f"meta: fd_epsilon {text!r} does not begin with a number") from error


def _genotype(meta: Mapping[str, Any]) -> Architecture:
    if "arch_str" in meta:
        return DenseGenotype.from_text(meta["arch_str"])
    genotype = meta.get("genotype")
    return Genotype.from_text(genotype) if isinstance(genotype, str) else Genotype.from_json(genotype or {})
