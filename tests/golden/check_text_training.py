"""Do windows of text, averaged SGD and derived cells agree with a golden case? Used by check.py.

FILE.json holds one of three things, told apart by their names: windows (`tokens`), validation losses and when training
switched to averaged SGD (`losses`), or alpha and its genotypes (`recurrent`). FILE.npz: averaged SGD on a quadratic.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from check_networks import Case
from method_setting import rows
from relative_errors import Row

from jaxdarts.bilevel import weight_optimiser
from jaxdarts.data import batchify
from jaxdarts.data.windows import Lengths, search_length, search_lengths, training_length, training_lengths
from jaxdarts.errors import InputError
from jaxdarts.methods.averaging import AVERAGING, averaged
from jaxdarts.methods.base import Method, Problem, strongest
from jaxdarts.methods.relaxations import as_given, softmax
from jaxdarts.networks.functional import Network
from jaxdarts.networks.recurrent import CELL
from jaxdarts.spaces import RecurrentGenotype, RecurrentSpace
from jaxdarts.tasks.language import bare_task
from jaxdarts.tasks.text_streams import Batch, Epochs, Layouts, followed, measured, trained


class TextFile(NamedTuple):
    """A JSON file that is understood here."""

    title: str
    check: Callable[[Any], Iterator[Row]]
    content: Any

    def rows(self) -> Iterator[Row]:
        """Of its table."""
        return self.check(self.content)


def read_text(path: str | Path) -> TextFile | None:
    """The file; None: it is none of these, or cannot be read."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    if "tokens" in content:
        return TextFile("windows of a text", _check_windows, content)
    cases = content.get("cases")
    if isinstance(cases, list) and cases and all(isinstance(case, dict) for case in cases):
        for name, title, check in (
            ("losses", "switches to averaged SGD", _check_switches),
            ("recurrent", "genotypes of recurrent cells", _check_genotypes),
        ):
            if name in cases[0]:
                return TextFile(title, check, content)
    return None


def is_averaging(case: Case) -> bool:
    """Whether a file holds averaged SGD."""
    return {"A", "b", "p0", "lengths"} <= set(case.arrays)


def check_averaging(case: Case) -> Iterator[Row]:
    """Steps of the library's training, averaged from the first on, each with a learning rate in proportion to length.

    The step size is read off how far the weights moved.
    """
    meta, matrix, vector, start = case.meta, *(case.arrays[name] for name in ("A", "b", "p0"))
    if meta["t0"] != 0 or meta["lambda"] != 0:
        raise InputError(f"meta: t0 {meta['t0']} and lambda {meta['lambda']}; averaging here is that of 0 and 0")
    method = _averaged_on(matrix, vector, start, meta["lr"], meta["weight_decay"], meta["bptt"])
    state = method.init(jax.random.key(0))
    state = dataclasses.replace(state, values={**state.values, AVERAGING: jnp.ones_like(state.values[AVERAGING])})
    step, found = jax.jit(method.step), {"params": [], "average": [], "step_size_used": []}
    for length in case.arrays["lengths"]:
        before = np.asarray(state.params)
        nothing = jnp.int32(0)
        batch = Batch(nothing, nothing, nothing, nothing, jnp.int32(length), jnp.bool_(False))
        state, _ = step(state, batch)
        slope = (matrix + matrix.T) @ before / 2 - vector + meta["weight_decay"] * before
        found["step_size_used"].append((before - np.asarray(state.params)) @ slope / (slope @ slope))
        found["params"].append(np.asarray(state.params))
        found["average"].append(np.asarray(method.as_measured(state).params))
    yield from rows({name: np.array(values) for name, values in found.items()}, case)


def _averaged_on(
    matrix: Any, vector: Any, start: Any, rate: float, decay: float, usual: int, patience: int = 5
) -> Method:
    """The library's averaged training, on p . matrix p / 2 - vector . p."""

    def apply(params: Any, stats: Any, weights: Any, batch: Batch, memory: Any, context: Any) -> Any:
        return params, stats, memory

    def value(params: Any, batch: Batch) -> Any:
        return params @ jnp.asarray(matrix) @ params / 2 - jnp.asarray(vector) @ params, {}

    network = Network(lambda key: (jnp.asarray(start), {}), apply, False, jnp.float64, None)
    task = bare_task(usual)._replace(loss=value, inner_loss=value)
    problem = Problem(None, network, task, as_given())
    return averaged(problem, optimiser=weight_optimiser(rate, 0.0, decay, None), patience=patience)


def _check_switches(content: Mapping[str, Any]) -> Iterator[Row]:
    """Asks after every epoch, as a run does."""
    for number, case in enumerate(content["cases"]):
        method = _averaged_on(np.eye(1), np.zeros(1), np.ones(1), 1.0, 0.0, 1, case["nonmono"])
        history: list[dict[str, float]] = []
        switched = None
        for epoch, value in enumerate(case["losses"], 1):
            history.append({"valid_loss": value, AVERAGING: float(switched is not None)})
            if method.decide(history) is not None:
                switched = epoch
        yield _exact(f"cases/{number}: switch_after_epoch", switched, case["switch_after_epoch"])


def _check_genotypes(content: Mapping[str, Any]) -> Iterator[Row]:
    space = RecurrentSpace.uniform("rnn", content["ops"], content["nodes"])
    relaxation = softmax(space, dtype=jnp.float64)
    for number, case in enumerate(content["cases"]):
        alpha = {CELL: jnp.asarray(case["alpha"])}
        genotype = strongest(space, relaxation.mean(alpha, {}))
        yield _exact(f"cases/{number}: genotype", genotype, RecurrentGenotype.from_json(case))


def _check_windows(content: Mapping[str, Any]) -> Iterator[Row]:
    """Of the token stream 0, 1, 2, ..., so that a window's first token is its first row."""
    size, usual = content["batch_size"], content["bptt"]
    tokens = np.arange(content["tokens"])
    if "batchified" in content:
        yield _exact("batchified", batchify(tokens, size).tolist(), content["batchified"])
    stream = measured(tokens, size, usual, "is measured")
    for name in content:
        if match := re.fullmatch(r"batch_at_(\d+)_len_(\d+)", name):
            start, length = map(int, match.groups())
            batch = stream.plain(stream.data, jnp.array([start, length, length], jnp.int32))
            found = {"x": batch.tokens[:length].tolist(), "y": batch.targets[:length].tolist()}
            yield _exact(name, found, content[name])

    drawn = _Drawn(content["numpy_legacy_seed"], usual)
    for name, lengths in (("evaluation_steps", drawn.training()), ("search_steps", drawn.search())):
        if name in content:
            batches = _batches(trained(tokens, size, Epochs(0, len(tokens) // size, lengths), "trains w"))
            found = [[_start(batch), int(batch.wanted), int(batch.length)] for batch in batches]
            yield _exact(name, found, content[name])

    scan = [position.tolist() for position, _ in stream.positions()]
    every = measured(tokens, size, usual, "is measured", count_all_rows=True)
    for name, found in (
        ("scan_for_scoring", [position[:2] for position in scan]),
        ("scoring_denominator", sum(int(position[2]) for position, _ in every.positions())),
        ("predicted_rows", sum(position[2] for position in scan)),
    ):
        if name in content:
            yield _exact(name, found, content[name])

    if "alpha_batches" in content:
        held = np.arange(content["valid_rows"] * size)
        epochs = Epochs(0, len(tokens) // size, drawn.search())
        of_w = _batches(trained(tokens, size, epochs, "trains w"))
        of_alpha = _batches(followed(measured(held, size, usual, "trains alpha"), held, size, epochs, "trains alpha"))
        found = [[_start(w), _start(a), int(a.length)] for w, a in zip(of_w, of_alpha, strict=True)]
        yield _exact("alpha_batches", found, content["alpha_batches"])


class _Drawn:
    """Lengths from NumPy's legacy generator, as the public code draws them: one step after another."""

    def __init__(self, seed: int, usual: int) -> None:
        self._seed, self._usual = seed, usual

    def training(self) -> Lengths:
        """One uniform and then one normal number a step."""

        def draw(key: jax.Array, count: int) -> np.ndarray:
            random = np.random.RandomState(self._seed)
            numbers = np.array([(random.random_sample(), random.standard_normal()) for _ in range(count)])
            return training_length(numbers[:, 0], numbers[:, 1], self._usual)

        return training_lengths(self._usual)._replace(draw=draw)

    def search(self) -> Lengths:
        """One uniform number a step."""

        def draw(key: jax.Array, count: int) -> np.ndarray:
            return search_length(np.random.RandomState(self._seed).random_sample(count), self._usual)

        return search_lengths(self._usual)._replace(draw=draw)


def _batches(stream: Any) -> list[Batch]:
    cursor, data = stream.start(None, 0), Layouts(*stream.data)
    batch = jax.jit(lambda step: stream.batch(data, cursor, step, None))
    return [batch(jnp.int32(step)) for step in range(stream.steps_in(0))]


def _start(batch: Batch) -> int:
    return int(batch.tokens[0, 0])


def _exact(name: str, ours: Any, reference: Any) -> Row:
    return Row(name, 0.0 if ours == reference else np.inf)
