"""Is every number that a run records the one that its name says, by hand and in double precision?"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxdarts.spaces import genotype_from_json, load_space, one_hot
from tests.meaning.by_hand import (
    CLASSES,
    FIRST,
    RECORDER,
    SECOND,
    TESTED,
    TRAIN,
    accuracy,
    gain,
    image,
    loss,
    relaxed,
    scores,
)
from tests.meaning.conftest import Run
from tests.meaning.spying import Spied, alpha_of, weights_of

pytestmark = pytest.mark.usefixtures("x64")
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


def supernet_loss(kernel: Any, alpha: Any, ids: Any, temperature: float = 1.0) -> Any:
    """The objective of a step: normalised by the batch's own statistics."""
    return loss(scores(kernel, None, ids, gain(relaxed(alpha, temperature), CLASSES)), ids)


def test_validation_of_a_search_with_a_padded_batch(run: Run) -> None:
    spied = run("search")
    kernel, mean, var = weights_of(spied)
    found = scores(kernel, (mean, var), SECOND, gain(relaxed(alpha_of(spied)), CLASSES))
    last = spied.result.metrics[-1]
    np.testing.assert_allclose(last["valid_loss"], loss(found, SECOND), **EXACT)
    assert last["valid_accuracy"] == accuracy(found, SECOND)
    ending = json.loads((spied.folder / "diagnostics.json").read_text())["discretisation"]
    discrete = scores(kernel, (mean, var), SECOND, gain(one_hot_weights(spied, spied.result.genotype), CLASSES))
    np.testing.assert_allclose(ending["relaxed"]["loss"], last["valid_loss"], **EXACT)
    np.testing.assert_allclose(ending["one_hot"]["loss"], loss(discrete, SECOND), **EXACT)
    assert ending["one_hot"]["accuracy"] == accuracy(discrete, SECOND)


def one_hot_weights(spied: Spied, genotype: Any) -> dict[str, np.ndarray]:
    space = load_space(json.loads((spied.folder / "config.json").read_text())["space"])
    return {cell: np.asarray(value, np.float64) for cell, value in one_hot(space, genotype).items()}


def test_finalists_of_a_random_search(run: Run) -> None:
    spied = run("search", method="random-ws", selection_samples=8, selection_batches=1, selection_finalists=8)
    kernel, mean, var = weights_of(spied)
    found = json.loads((spied.folder / "diagnostics.json").read_text())["candidates"]
    assert len(found) > 1 and len({candidate["accuracy"] for candidate in found}) > 1
    for candidate in found:
        weights = one_hot_weights(spied, genotype_from_json(candidate["genotype"]))
        expected = accuracy(scores(kernel, (mean, var), SECOND, gain(weights, CLASSES)), SECOND)
        assert candidate["accuracy"] == pytest.approx(expected, abs=1e-15)
    assert found[0]["accuracy"] == max(candidate["accuracy"] for candidate in found)
    assert spied.result.genotype == genotype_from_json(found[0]["genotype"])


@pytest.mark.parametrize("hypergradient", ["first_order", "unrolled"])
def test_one_step_on_whole_parts(run: Run, hypergradient: str) -> None:
    """With a batch that is a whole part, every number of a step has a closed form."""
    whole: dict[str, Any] = {"epochs": 1, "batch_size": 25, "alpha_init_scale": 1.0, "clip_norm": 1e9}
    start = run("search", method=RECORDER, **whole)
    spied = run("search", hypergradient=hypergradient, learning_rate=0.5, **whole)
    (kernel, mean, var), before, after = weights_of(start), alpha_of(start), alpha_of(spied)
    rate, record = spied.result.metrics[0]["learning_rate"], spied.result.metrics[0]

    def outer(alpha: Any) -> Any:
        ahead = kernel
        if hypergradient == "unrolled":
            ahead = kernel - rate * jax.grad(supernet_loss)(jnp.asarray(kernel), alpha, FIRST)
        return supernet_loss(ahead, alpha, SECOND)

    value, gradient = jax.value_and_grad(outer)(jax.tree.map(jnp.asarray, before))
    np.testing.assert_allclose(record["alpha_loss"], value, **EXACT)
    np.testing.assert_allclose(record["hypergradient_norm"], np.linalg.norm(ravel_pytree(gradient)[0]), rtol=1e-9)
    # Adam's first step goes against the gradient's sign, entry by entry.
    for cell, one in gradient.items():
        large = np.abs(one) > 2e-3  # than alpha's L2 of values of about 1
        assert large.any() and (np.sign(before[cell] - after[cell])[large] == np.sign(one)[large]).all()
    # The step on w comes after that on alpha, on the other part; alpha's passes leave the running statistics alone.
    np.testing.assert_allclose(record["train_loss"], supernet_loss(kernel, after, FIRST), **EXACT)
    factor = gain(relaxed(after), CLASSES)
    assert record["train_accuracy"] == accuracy(scores(kernel, None, FIRST, factor), FIRST)
    stepped = kernel - rate * jax.grad(supernet_loss)(jnp.asarray(kernel), after, FIRST)
    np.testing.assert_allclose(weights_of(spied)[0], stepped, **EXACT)
    linear = np.stack([image(i).reshape(-1) / 255 for i in FIRST]) @ kernel
    np.testing.assert_allclose(weights_of(spied)[1], 0.9 * mean + 0.1 * linear.mean(axis=0), **EXACT)
    np.testing.assert_allclose(weights_of(spied)[2], 0.9 * var + 0.1 * linear.var(axis=0), **EXACT)


@pytest.mark.parametrize(("temperature", "batches", "shift"), [(1.0, 1, False), (2.0, 2, True)])
def test_spectrum_of_the_alpha_hessian(run: Run, temperature: float, batches: int, shift: bool) -> None:
    """In training mode, on batches of the second part, in alpha itself whatever divides it, without augmentation."""
    spied = run(
        "search",
        method=RECORDER,
        alpha_init_scale=1.0,
        curvature_batches=batches,
        curvature_weight_decay_shift=shift,
        alpha_l2=0.01,
        temperature_start=temperature,
        spectrum_size=12,
        flip=True,
        crop_padding=2,
    )
    held = sorted(set(spied.seen(train=True)))
    assert len(held) == batches and {i for batch in held for i in batch} <= set(SECOND)
    kernel = weights_of(spied)[0]
    flat, unravel = ravel_pytree({cell: jnp.asarray(value) for cell, value in alpha_of(spied).items()})
    hessian = sum(jax.hessian(lambda a, b=b: supernet_loss(kernel, unravel(a), b, temperature))(flat) for b in held)
    values = np.linalg.eigvalsh(hessian / batches) + (0.01 if shift else 0.0)
    for record in spied.result.metrics:
        np.testing.assert_allclose(record["dominant_eigenvalue"], values[-1], rtol=1e-9)
        np.testing.assert_allclose(record["smallest_eigenvalue"], values[0], rtol=1e-9)
        largest = values[np.argmax(np.abs(values))]
        np.testing.assert_allclose(record["largest_magnitude_eigenvalue"], largest, rtol=1e-9)
    spectrum = json.loads((spied.folder / "diagnostics.json").read_text())["eigenvalues"]["values"]
    np.testing.assert_allclose(np.sort(spectrum), values, rtol=1e-9, atol=1e-12)


def test_evaluation_with_padded_batches(run: Run) -> None:
    spied = run("evaluate", valid_portion=0.3)
    kernel, mean, var = weights_of(spied)
    last = spied.result.metrics[-1]
    for part, ids in (("valid", range(35, TRAIN)), ("test", TESTED)):
        found = scores(kernel, (mean, var), ids)
        np.testing.assert_allclose(last[f"{part}_loss"], loss(found, ids), **EXACT)
        assert last[f"{part}_accuracy"] == accuracy(found, ids)
    assert spied.result.test_error == 1 - accuracy(scores(kernel, (mean, var), TESTED), TESTED)


def test_training_loss_of_an_evaluation(run: Run) -> None:
    """With a learning rate that moves nothing and one batch of all images."""
    spied = run("evaluate", batch_size=TRAIN, learning_rate=1e-200, auxiliary_weight=0.4)
    kernel, head = weights_of(spied)[0], np.asarray(spied.result.state.params["head"])
    inputs = np.stack([image(i).reshape(-1) / 255 for i in range(TRAIN)])
    found = scores(kernel, None, range(TRAIN))
    for record in spied.result.metrics:
        np.testing.assert_allclose(record["train_loss"], loss(found, range(TRAIN)), **EXACT)
        assert record["train_accuracy"] == accuracy(found, range(TRAIN))
        np.testing.assert_allclose(record["auxiliary_loss"], loss(inputs @ head, range(TRAIN)), **EXACT)

    def objective(kernel: Any, head: Any) -> Any:
        return loss(scores(kernel, None, range(TRAIN)), range(TRAIN)) + 0.4 * loss(inputs @ head, range(TRAIN))

    gradient = jax.grad(objective, argnums=(0, 1))(jnp.asarray(kernel), jnp.asarray(head))
    np.testing.assert_allclose(record["gradient_norm"], np.linalg.norm(ravel_pytree(gradient)[0]), rtol=1e-9)
