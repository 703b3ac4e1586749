"""What is a golden case of recurrent cells: a file's network as a problem, its text, and the names of its tensors?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from check_networks import Case
from relative_errors import Arrays

from jaxdarts.errors import InputError
from jaxdarts.methods.base import Problem
from jaxdarts.methods.relaxations import softmax
from jaxdarts.networks.recurrent import CELL, Masks, TextOutputs, TextSupernet
from jaxdarts.networks.text import text_network
from jaxdarts.spaces import RNN, RecurrentSpace
from jaxdarts.tasks.language import bare_task, loss
from jaxdarts.tasks.text_streams import Batch

NAMES = {"embedding": "encoder.weight", "bias": "decoder.bias", "first": "rnns.0._W0"}  # ours -> the file's
NODE = "rnns.0._Ws."
MASKS = ("embedding_mask", "input_mask", "x_mask", "h_mask", "output_mask")  # in the order of Masks


class TextSetting(NamedTuple):
    """A file's search problem."""

    case: Case
    module: TextSupernet
    problem: Problem
    params: Any
    alpha: Any
    stats: Any  # at the start


def read_text_setting(case: Case, params: Mapping[str, jax.Array]) -> TextSetting:
    activations = case.meta.get("ops", RNN.operations(CELL)[0])
    space = RecurrentSpace.uniform("rnn", activations, len(params["nodes"]))
    if case.arrays["alpha"].shape != space.alpha_shape(CELL):
        raise InputError(f"alpha has shape {case.arrays['alpha'].shape}; expected {space.alpha_shape(CELL)}")
    words, hidden = params["embedding"].shape
    module = TextSupernet(space, words, hidden)
    task = bare_task()._replace(loss=_loss_and_log_prob, inner_loss=_loss_and_log_prob)
    problem = Problem(space, text_network(module, 1, jnp.float64), task, softmax(space, dtype=jnp.float64))
    stats = {"mean": jnp.zeros(hidden), "variance": jnp.ones(hidden)}
    return TextSetting(case, module, problem, params, {CELL: jnp.asarray(case.arrays["alpha"])}, stats)


def _loss_and_log_prob(outputs: TextOutputs, batch: Batch) -> Any:
    value, totals = loss(outputs, batch)
    return value, {**totals, "log_prob": jax.nn.log_softmax(outputs.logits)}


def window(case: Case, half: str = "") -> Batch:
    """Tokens of the file, of which all time steps count, after others."""
    tokens, targets = (case.arrays[f"{half}{name}"] for name in ("x", "y"))
    if tokens.ndim != 2 or tokens.shape != targets.shape:
        raise InputError(f"{half}x has shape {tokens.shape}; expected (time, batch), as {half}y {targets.shape}")
    length = jnp.int32(len(tokens))
    return Batch(
        jnp.asarray(tokens, jnp.int32), jnp.asarray(targets, jnp.int32), length, length, length, jnp.bool_(False)
    )


def state_before(case: Case, name: str) -> jax.Array:
    return jnp.asarray(case.arrays[name][0])


def given_masks(case: Case) -> Masks:
    return Masks(*(jnp.asarray(case.arrays[f"masks/{name}"]) for name in MASKS))


def from_torch(params: Arrays) -> dict[str, jax.Array]:
    nodes = sum(name.startswith(NODE) for name in params)
    names = [*NAMES.values(), *(f"{NODE}{node}" for node in range(max(nodes, 1)))]
    missing = [name for name in names if name not in params]
    if missing:
        raise InputError(f"params: no tensor {missing[0]!r} of a recurrent network")
    found = {ours: jnp.asarray(params[name]) for ours, name in NAMES.items()}
    found["nodes"] = jnp.stack([jnp.asarray(params[name]) for name in names[len(NAMES) :]])
    words, hidden = found["embedding"].shape
    expected = {"bias": (words,), "first": (2 * hidden, 2 * hidden), "nodes": (nodes, hidden, 2 * hidden)}
    for ours, shape in expected.items():
        if found[ours].shape != shape:
            name = NAMES.get(ours, f"{NODE}0")
            raise InputError(f"params/{name} has shape {params[name].shape}; the embedding is {(words, hidden)}")
    return found


def to_torch(params: Mapping[str, Any]) -> dict[str, Any]:
    nodes = {f"{NODE}{node}": value for node, value in enumerate(params["nodes"])}
    return {**{name: params[ours] for ours, name in NAMES.items()}, **nodes}
