"""Do recurrent networks and their derivatives agree with a golden case? Used by check.py for FILE.npz of the space rnn.

Three kinds, told apart by their arrays: a genotype's network (no `alpha`), one pass of the search network with given
masks (`x`), and a step on alpha (`train_x`, `valid_x`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from check_networks import Case
from method_setting import rows
from relative_errors import Row, group_rows, relative_error
from text_setting import TextSetting, from_torch, given_masks, read_text_setting, state_before, to_torch, window

from jaxdarts.bilevel import (
    Bilevel,
    InnerStep,
    Parts,
    alpha_optimiser,
    apply_update,
    clip_by_global_norm,
    first_order,
    mixed_product,
    published_difference,
    unrolled,
    value_and_gradients,
    weight_optimiser,
)
from jaxdarts.bilevel.products import add_scaled
from jaxdarts.bilevel.published_difference import clip_coefficient
from jaxdarts.curvature import hessian
from jaxdarts.errors import InputError
from jaxdarts.methods.base import View, strongest
from jaxdarts.networks import Weights
from jaxdarts.networks.functional import Context
from jaxdarts.networks.recurrent import CELL, Masks, TextNetwork, TextOutputs
from jaxdarts.networks.text import text_network
from jaxdarts.spaces import RecurrentGenotype
from jaxdarts.tasks.language import loss, regularised_loss
from jaxdarts.tasks.text_streams import Batch

RADIUS = 1e-2  # of the published difference
LEAST_RADIUS = 1e-3  # below, rounding, which nobody can repeat, is a part of what a difference is wrong by


def check_text(case: Case) -> Iterator[Row]:
    """The rows of a case's table. Raises InputError where it isn't understood."""
    params = from_torch(case.group("params"))
    if "alpha" not in case.arrays:
        found = _rows_of_genotype(case, params)
    else:
        own = read_text_setting(case, params)
        found = _rows_of_pass(own) if "x" in case.arrays else _rows_of_step(own)
    # One program for a loss and its gradients, wherever they are taken.
    yield from Parts().run(lambda: list(found))()


def _rows_of_genotype(case: Case, params: Mapping[str, jax.Array]) -> Iterator[Row]:
    """In evaluation, and in training with the given masks."""
    genotype = RecurrentGenotype.from_json(case.meta.get("genotype", {}))
    if genotype.num_nodes != len(params["nodes"]):
        raise InputError(f"meta: genotype has {genotype.num_nodes} nodes, params {len(params['nodes'])}")
    module = TextNetwork(genotype, *params["embedding"].shape)
    network, batch, start = text_network(module, 1, jnp.float64), window(case), state_before(case, "hidden")
    activation, slowness = (case.meta.get(name, 0.0) for name in ("activation_alpha", "slowness_beta"))
    parts = {"activation_term": (activation, 0.0), "slowness_term": (0.0, slowness)}

    def forward(params: Any, masks: Masks | None) -> tuple[TextOutputs, jax.Array]:
        if masks is None:
            outputs, _, after = network.apply(params, {}, Weights({}), batch, start, Context(False))
            return outputs, after
        # A network draws its masks itself.
        return module.apply({"params": params}, batch.tokens, start, length=batch.length, masks=masks)

    @jax.jit
    def everything(params: Any, masks: Masks | None) -> Any:
        (outputs, after), pull_back = jax.vjp(lambda p: forward(p, masks), params)
        found = _seen(outputs, batch) | {"hidden": after[None]}
        found |= {name: regularised_loss(*part)(outputs, batch)[1]["penalty"][0] for name, part in parts.items()}
        gradients = {}
        for name, of in (("grad", loss), ("total_grad", regularised_loss(activation, slowness))):
            value, slope = jax.value_and_grad(lambda outputs, of=of: of(outputs, batch)[0])(outputs)
            (gradients[name],) = pull_back((slope, jnp.zeros_like(after)))
            found["loss" if name == "grad" else "total_loss"] = value
        found["total_grad_norm"] = optax.tree.norm(gradients["total_grad"])
        return found, gradients

    for kind in ("eval", "train"):
        if not _holds(case, f"{kind}_"):
            continue
        found, gradients = everything(params, given_masks(case) if kind == "train" else None)
        yield from rows({f"{kind}_{name}": value for name, value in found.items()}, case)
        for name, gradient in gradients.items():
            yield from group_rows(f"{kind}_{name}", to_torch(gradient), case.group(f"{kind}_{name}"))


def _rows_of_pass(own: TextSetting) -> Iterator[Row]:
    """In training with the given masks, and in evaluation with the running statistics after it."""
    case, network = own.case, own.problem.network
    batch, start = window(case), state_before(case, "hidden")
    masks = given_masks(case) if case.group("masks") else None

    @jax.jit
    def everything(params: Any, alpha: Any, stats: Any) -> Any:
        def value(params: Any, alpha: Any) -> Any:
            (outputs, after), updated = own.module.apply(
                {"params": params, "batch_stats": stats},
                batch.tokens,
                start,
                own.problem.mean_weights(alpha, {}),
                length=batch.length,
                train=True,
                masks=masks,
                mutable=["batch_stats"],
            )
            return loss(outputs, batch)[0], (outputs, after, updated["batch_stats"])

        return jax.value_and_grad(value, (0, 1), has_aux=True)(params, alpha)

    (_, (outputs, after, stats)), (gradient, slope) = everything(own.params, own.alpha, own.stats)
    yield from rows(_seen(outputs, batch) | {"hidden_next": after[None]}, case)
    yield from group_rows("grad_w", to_torch(gradient), case.group("grad_w"))
    found = {"grad_alpha": slope[CELL], "bn_running_mean": stats["mean"], "bn_running_var": stats["variance"]}
    if "bn_batches" in case.arrays:
        # Every normalisation leaves 0.9 of what the running mean was.
        (_, (_, _, other)), _ = everything(own.params, own.alpha, {**own.stats, "mean": own.stats["mean"] + 1})
        found["bn_batches"] = np.log(np.mean(other["mean"] - stats["mean"])) / np.log(0.9)
    yield from rows(found, case)
    if _holds(case, "eval_"):
        weights = own.problem.mean_weights(own.alpha, {})
        evaluate = jax.jit(lambda params, stats: network.apply(params, stats, weights, batch, start, Context(False)))
        outputs, _, after = evaluate(own.params, stats)
        found = _seen(outputs, batch) | {"hidden_next": after[None]}
        yield from rows({f"eval_{name}": value for name, value in found.items()}, case)
    yield from _genotype_row(own)


def _rows_of_step(own: TextSetting) -> Iterator[Row]:
    """Gradients, hypergradients and curvature, and where the file has a clip, what the published code makes of it."""
    case, meta, params, alpha = own.case, own.case.meta, own.params, own.alpha
    arrays, (inner, outer) = case.arrays, own.problem.losses
    rate, clip = meta["lr"] if "lr" in meta else meta["unrolled_lr"], meta.get("clip")
    halves = ("train", "valid")
    # Where "train_hidden" is the state after the train batch, both begin with the same.
    states = ["hidden" if "hidden" in arrays else f"{half}_hidden" for half in halves]
    train, valid = (
        View(window(case, f"{half}_"), own.stats, state_before(case, name))
        for half, name in zip(halves, states, strict=True)
    )
    update = weight_optimiser(rate, 0.0, meta["weight_decay"], clip)
    arguments = (Bilevel(inner, outer), InnerStep(update, update.init(params)), params, alpha, train, valid)

    (value, seen), (gradient, _) = value_and_gradients(inner, params, alpha, train)
    found = {"train_loss": value, "train_log_prob": seen.totals["log_prob"]}
    if "hidden" in arrays:
        found["train_hidden"] = seen.memory[None]
    yield from rows(found, case)
    yield from group_rows("grad_w", to_torch(gradient), case.group("grad_w"))
    if _holds(case, "valid_loss", "first_order"):
        slope, info = first_order()(*arguments)
        yield from rows({"valid_loss": info.valid_loss, "first_order": slope[CELL]}, case)
    if _holds(case, "unrolled_", "exact_through_clip"):
        exact, info = unrolled()(*arguments)
        found = {name: exact[CELL] for name in ("unrolled_exact", "exact_through_clip")}
        yield from rows({"unrolled_loss": info.valid_loss, **found}, case)
    if clip is not None:
        yield from _rows_of_clipped(own, arguments, rate, clip, gradient)
    if _holds(case, "hessian", "eigenvalues"):
        dense = jax.jit(lambda alpha, view: hessian(lambda a: outer(params, a, view)[0], alpha))
        matrix = np.asarray(dense(alpha, valid))
        yield from rows({"hessian": matrix}, case)
        if "eigenvalues" in arrays:
            eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
            yield Row("eigenvalues", relative_error({"": eigenvalues}, {"": np.sort(arrays["eigenvalues"])}))
    yield from _genotype_row(own)


def _rows_of_clipped(own: TextSetting, arguments: Any, rate: float, clip: float, gradient: Any) -> Iterator[Row]:
    case, meta = own.case, own.case.meta
    (_, outer), (update, opt_state), params, alpha, train, valid = arguments
    virtual, _ = apply_update(update, gradient, opt_state, params)
    coefficient = clip_coefficient(gradient, clip)
    yield from rows({"train_grad_norm": optax.tree.norm(gradient), "clip_coefficient": coefficient}, case)
    yield from group_rows("virtual", to_torch(virtual), case.group("virtual"))
    if "exact_constant_clip" in case.arrays:
        # The library differentiates the coefficient too: here it is a number.
        shorter = optax.scale(float(jnp.minimum(coefficient, 1)))
        update = optax.chain(shorter, weight_optimiser(rate, 0.0, meta["weight_decay"], None))
        found, _ = unrolled()(arguments[0], InnerStep(update, update.init(params)), *arguments[2:])
        yield from rows({"exact_constant_clip": found[CELL]}, case)
    step = alpha_optimiser(meta["arch_lr"], *meta["adam_betas"], l2=meta["arch_weight_decay"])
    # In the public code the embedding doesn't move.
    for kind, unmoved, others in (
        ("reference", ("embedding",), {"hidden": "reference_hidden_next", "alpha": "alpha_after_adam"}),
        ("fixed", (), {"hidden": "hidden_next", "alpha": "fixed_alpha_after_adam"}),
    ):
        if not _holds(case, f"{kind}_", *others.values()):
            continue
        moved = {**virtual, **{name: params[name] for name in unmoved}}
        (value, _), (vector, direct) = value_and_gradients(outer, moved, alpha, valid)
        clipped, _ = clip_by_global_norm(clip).update(vector, optax.EmptyState())
        product = mixed_product(arguments[0].train_loss, params, alpha, train, clipped)
        limit = add_scaled(direct, -rate * coefficient, product)
        difference, info = published_difference(RADIUS, clip, unmoved)(*arguments)
        new_alpha, _ = apply_update(step, difference, step.init(alpha), alpha)
        of_vector = float(clip_coefficient(vector, clip))
        name = f"{kind}_vector_clip_coefficient"
        if case.arrays.get(name, 0.0) <= 1:  # a file may tell it before it is limited
            of_vector = min(of_vector, 1.0)
        yield from rows(
            {
                f"{kind}_unrolled_loss": value,
                f"{kind}_valid_grad_norm": optax.tree.norm(vector),
                name: of_vector,
                f"{kind}_fd_radius": RADIUS / optax.tree.norm(clipped),
                f"{kind}_direct": direct[CELL],
                f"{kind}_implicit_product": product[CELL],
                f"{kind}_limit": limit[CELL],
                f"{kind}_fd": difference[CELL],
                others["hidden"]: info.aux.memory[None],
                others["alpha"]: new_alpha[CELL],
            },
            case,
        )
        if kind == "fixed" and "fd_error_by_radius" in case.arrays:
            table = case.arrays["fd_error_by_radius"]
            table = table[table[:, 0] >= LEAST_RADIUS]
            errors = []
            for radius in table[:, 0]:
                difference, _ = published_difference(float(radius), clip, ())(*arguments)
                errors.append(relative_error(difference, {CELL: np.asarray(limit[CELL])}))
            yield Row("fd_error_by_radius", relative_error({"": np.array(errors)}, {"": table[:, 1]}))


def _holds(case: Case, *names: str) -> bool:
    """Whether the file has an array whose name begins with one of these."""
    return any(name.startswith(names) for name in case.arrays)


def _genotype_row(own: TextSetting) -> Iterator[Row]:
    if "genotype" in own.case.meta:
        expected = RecurrentGenotype.from_json(own.case.meta["genotype"])
        genotype = strongest(own.module.space, own.problem.mean_weights(own.alpha, {}))
        yield Row("genotype", 0.0 if genotype == expected else np.inf)


def _seen(outputs: TextOutputs, batch: Batch) -> dict[str, Any]:
    return {
        "log_prob": jax.nn.log_softmax(outputs.logits),
        "loss": loss(outputs, batch)[0],
        "raw_output": outputs.raw,
        "dropped_output": outputs.dropped,
    }
