"""Do updates of joined arrays give what updates of each give, and are they used where they may be?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdarts.bilevel import (
    Bilevel,
    InnerStep,
    Parts,
    set_hyperparameters,
    unrolled,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.bilevel.explicit import pull_back
from jaxdarts.bilevel.products import apply_update
from jaxdarts.methods.flat_updates import IN_PLACE
from jaxdarts.networks import kernels

built = pytest.mark.skipif(kernels.described() == "none", reason=f"kernels none: {kernels.why_none()}")
SHAPES = [(3, 2), (4,), (), (1, 5, 2), (0,), (7,), (2, 2), (6,), (1,), (3, 1, 2)]


def tree(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    arrays = [jnp.asarray(random.normal(size=shape)) for shape in SHAPES]
    return {"first": arrays[:4], "then": {str(index): array for index, array in enumerate(arrays[4:])}}


def agree(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15), found, expected)


@built
@pytest.mark.parametrize("clip_norm", [None, 0.1, 100.0])
@pytest.mark.parametrize("nesterov", [False, True])
def test_two_steps_and_the_reverse(clip_norm: float | None, nesterov: bool, x64: None) -> None:
    optimiser = weight_optimiser(0.1, clip_norm=clip_norm, nesterov=nesterov)
    params, state = tree(0), optimiser.init(tree(0))
    run = Parts(IN_PLACE).run
    for seed in (1, 2):
        state = set_hyperparameters(state, l2=seed)
        arguments = (optimiser, tree(seed), state, params)
        agree(run(pull_back)(*arguments, tree(5)), pull_back(*arguments, tree(5)))
        found, expected = run(apply_update)(*arguments), apply_update(*arguments)
        agree(found, expected)
        params, state = expected


@built
def test_the_program_joins_and_only_for_optimisers_that_treat_entries_alike() -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree(0))
    for optimiser, joins in ((weight_optimiser(0.1), True), (optax.adam(0.1), False)):
        program = Parts(IN_PLACE).program(apply_update, optimiser)
        text = program.lower(params, optimiser.init(params), params).as_text()
        assert ("jaxdarts_Join" in text) == joins
    few = {"a": jnp.ones(2), "b": jnp.ones(3)}
    program = Parts(IN_PLACE).program(apply_update, weight_optimiser(0.1))
    assert "jaxdarts_Join" not in program.lower(few, weight_optimiser(0.1).init(few), few).as_text()


@built
@pytest.mark.parametrize("steps", [1, 2])
def test_hypergradients_through_updates(steps: int, x64: None) -> None:
    """The virtual step is taken joined; what is differentiated isn't."""

    def loss(w: Any, alpha: jax.Array, batch: Any) -> tuple[jax.Array, None]:
        return sum(jnp.sum((leaf - alpha) ** 4) for leaf in jax.tree.leaves(w)), None

    optimiser, params, alpha = virtual_step_optimiser(0.01), tree(0), jnp.array(0.3)

    def hypergradient() -> Any:
        inner = InnerStep(optimiser, optimiser.init(params))
        return unrolled(steps)(Bilevel(loss, loss), inner, params, alpha, None, None)[0]

    agree(Parts(IN_PLACE).run(hypergradient)(), hypergradient())


@built
def test_several_searches_side_by_side(x64: None) -> None:
    optimiser = weight_optimiser(0.1)
    pairs = [(tree(seed), tree(seed + 1)) for seed in (0, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    step = lambda pair: Parts(IN_PLACE).run(apply_update)(optimiser, pair[1], optimiser.init(pair[0]), pair[0])  # noqa: E731
    found = jax.vmap(step)(stacked)
    agree(found, jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(step, pairs)))
