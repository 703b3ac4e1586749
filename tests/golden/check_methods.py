"""Do search methods do what their authors' code did? Used by check.py for FILE.npz whose meta names a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from check_fair_darts import check_fair_darts
from check_gdas import check_gdas
from check_idarts import check_idarts
from check_networks import Case
from check_perturbed import check_sdarts_adv, check_sdarts_rs
from check_sampled import check_dsnas, check_snas
from check_staged import check_darts_pt, check_dots, check_p_darts, read_darts_pt, read_dots
from method_setting import Setting, by_cell, genotypes, hessian_of, passes, read_setting, step_rows
from relative_errors import Row, array_rows, relative_error

from jaxdarts.bilevel import Parts
from jaxdarts.errors import InputError
from jaxdarts.methods.base import Problem, strengths
from jaxdarts.methods.relaxations import Alpha


def check_method(case: Case) -> Iterator[Row]:
    """The rows of a case's table. Raises InputError where the method isn't known."""
    name = case.meta["method"]
    if name not in CHECKS:
        raise InputError(f"meta: no comparison with the method {name!r}; choose from {', '.join(CHECKS)}")
    own, check = CHECKS[name]
    read = READERS.get(name, lambda case: read_setting(case, own))
    # One program for a loss and its gradients, wherever they are taken.
    yield from Parts().run(lambda: list(check(read(case))))()


def _eigenvalues(
    own: Setting, problem: Problem, alpha: Alpha, values: Mapping[str, Any], prefix: str = ""
) -> Iterator[Row]:
    """Of the Hessian of the valid loss in all of alpha, in the order of `hessian_order`; and its blocks."""
    arrays = own.case.arrays
    if not {f"{prefix}hessian", f"{prefix}eigenvalues", f"{prefix}hessian_beta"} & set(arrays):
        return
    matrix = hessian_of(problem.outer, own.params, alpha, own.view(own.valid, values))
    found = {"hessian": matrix, "eigenvalues": np.linalg.eigvalsh((matrix + matrix.T) / 2)}
    if f"{prefix}hessian_beta" in arrays:
        size = len(arrays[f"{prefix}hessian_beta"])
        found["hessian_beta"] = matrix[-size:, -size:]
    for name, value in found.items():
        if f"{prefix}{name}" in arrays:
            reference = arrays[f"{prefix}{name}"]
            reference = np.sort(reference) if name == "eigenvalues" else reference
            yield Row(f"{prefix}{name}", relative_error({"": value}, {"": reference}))


def _pc_darts(own: Setting) -> Iterator[Row]:
    case, method = own.case, own.method("pc-darts")
    relaxation, alpha = method.problem.relaxation, _with_beta(case.group("alpha"), case.group("beta"))
    weights = relaxation.mean(alpha, {})
    yield from by_cell("weights", weights.operations, case)
    yield from by_cell("edge_weights", weights.edges or {}, case)
    yield from by_cell("mix", strengths(weights), case)
    yield from passes(own, method.problem, alpha, {})
    yield from _eigenvalues(own, method.problem, alpha, {})
    moves = method.schedules["alpha/moves"]
    yield from step_rows(own, method, alpha, {}, "frozen_step", moves(14))
    yield from step_rows(own, method, alpha, {}, "step", moves(15))
    yield from genotypes(own, "genotype", method, [alpha], [case.meta["genotype"]])
    if "cases/alpha" in case.arrays:
        pairs = [
            (dict(zip(own.space.cell_types, a, strict=True)), dict(zip(own.space.cell_types, b, strict=True)))
            for a, b in zip(case.arrays["cases/alpha"], case.arrays["cases/beta"], strict=True)
        ]
        alphas = [_with_beta(*pair) for pair in pairs]
        yield from genotypes(own, "cases", method, alphas, case.meta["cases"])
        alphas = [_with_beta(a, {cell: 0 * value for cell, value in b.items()}) for a, b in pairs]
        yield from genotypes(own, "cases_beta_zero", method, alphas, case.meta["cases_beta_zero"])


def _with_beta(alpha: Mapping[str, Any], beta: Mapping[str, Any]) -> Alpha:
    return jax.tree.map(jnp.asarray, {**alpha, "edges": dict(beta)})


def _darts_minus(own: Setting) -> Iterator[Row]:
    case, method = own.case, own.method("darts-minus")
    problem, alpha = method.problem, jax.tree.map(jnp.asarray, case.group("alpha"))
    for prefix in ("", "second/", "zero/"):
        if f"{prefix}skip_beta" in case.arrays:
            values = {"auxiliary_skip": case.arrays[f"{prefix}skip_beta"]}
            yield from passes(own, problem, alpha, values, prefix)
            yield from _eigenvalues(own, problem, alpha, values, prefix)
    yield from step_rows(own, method, alpha, {"auxiliary_skip": case.arrays["skip_beta"]}, "step")
    own.settings.auxiliary_skip_schedule = case.meta.get("decay", "constant")
    own.settings.epochs = case.meta.get("epochs", own.settings.epochs)
    schedule = own.method("darts-minus").schedules["auxiliary_skip"]
    for name, epoch in (("skip_beta", "skip_beta_epoch"), ("second/skip_beta", "skip_beta_second_epoch")):
        if epoch in case.meta:
            yield from array_rows(name, {name: schedule(case.meta[epoch])}, case.arrays)
    for name, reference in case.group("schedule").items():
        own.settings.auxiliary_skip_schedule, own.settings.epochs = name, len(reference) - 1
        schedule = own.method("darts-minus").schedules["auxiliary_skip"]
        found = {"": np.array([schedule(epoch) for epoch in range(len(reference))])}
        yield Row(f"schedule/{name}", relative_error(found, {"": reference}))
    alphas = [dict(zip(own.space.cell_types, value, strict=True)) for value in case.arrays.get("cases", ())]
    yield from genotypes(own, "genotype", method, [alpha], [case.meta["genotype"]])
    if alphas:
        yield from genotypes(own, "cases", method, alphas, case.meta["cases"])


CHECKS: dict[str, tuple[str, Callable[[Setting], Iterator[Row]]]] = {
    "GDAS": ("gdas", check_gdas),
    "PC-DARTS": ("pc-darts", _pc_darts),
    "DARTS-": ("darts-minus", _darts_minus),
    "FairDARTS": ("fair-darts", check_fair_darts),
    "SNAS": ("snas", check_snas),
    "DSNAS": ("dsnas", check_dsnas),
    "iDARTS": ("idarts", check_idarts),
    "SDARTS-RS": ("sdarts-rs", check_sdarts_rs),
    "SDARTS-ADV": ("sdarts-adv", check_sdarts_adv),
    "P-DARTS": ("p-darts", check_p_darts),
    "DOTS": ("dots", check_dots),
    "DARTS+PT": ("darts-pt", check_darts_pt),
}
READERS: dict[str, Callable[[Case], Setting]] = {"DOTS": read_dots, "DARTS+PT": read_darts_pt}
"""Of files whose arrays have other names"""
