"""Does what acts on whole edges of the supernet do what the papers' codes compute, and leave others' programs alone?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdarts.networks import Supernet, Weights
from jaxdarts.spaces import SearchSpace

KEY = jax.random.key(0)
RAGGED = SearchSpace(
    "ragged",
    1,
    (("skip_connect",), ("none", "max_pool_3x3", "avg_pool_3x3")),
    (("skip_connect", "max_pool_3x3"), ("max_pool_3x3",)),
    (2,),
)


def uniform(space: SearchSpace, seed: int = 0) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {cell: jnp.asarray(random.random(space.alpha_shape(cell)), jnp.float32) for cell in space.cell_types}


def test_weights_of_edges() -> None:
    """They multiply all operations of an edge; left out, the program is the same as before they existed."""
    network, x = Supernet(RAGGED, 3, 2, 3), jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)
    operations = uniform(RAGGED)
    edges = {cell: jnp.asarray([0.25, 3.0]) for cell in RAGGED.cell_types}
    variables = jax.jit(network.init)(KEY, x, operations)

    def scores(variables: Any, weights: Any) -> Any:
        return network.apply(variables, x, weights, train=True, mutable=["batch_stats"])[0]

    programs = [str(jax.make_jaxpr(scores)(variables, weights)) for weights in (operations, Weights(operations))]
    assert programs[0] == programs[1]
    found, expected, plain = (
        jax.jit(scores)(variables, weights)
        for weights in (
            Weights(operations, edges),
            {cell: operations[cell] * jnp.asarray([[0.25], [3.0]]) for cell in operations},
            operations,
        )
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - plain).max() > 1e-2
