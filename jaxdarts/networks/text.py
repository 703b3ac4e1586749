"""How is a recurrent module a network as a run sees it, and how large is it?"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxdarts.networks.cost import LayerCost, NetworkCost
from jaxdarts.networks.functional import Context, Network, narrow_to
from jaxdarts.networks.recurrent import CELL, Masks, TextNetwork, TextOutputs, TextSupernet, draw_masks
from jaxdarts.networks.supernet import Weights


def text_network(
    module: TextSupernet | TextNetwork, width: int, dtype: Any = jnp.float32, compute_dtype: Any = None
) -> Network:
    """A recurrent network of text.

    Batches have `tokens` int32[T, B], `length` (time steps that count) and `fresh` (whether the text begins here: the
    hidden state is 0 then). Outputs are `TextOutputs`, the memory is the hidden state float[B, H].

    Args:
      module: the network. In training it drops what its dropouts say, multiplied by the value "dropout"; without that
        value nothing is dropped.
      width: examples side by side in training.
      dtype: of weights and statistics.
      compute_dtype: of what goes through the network in training; None: dtype.
    """
    is_relaxed = isinstance(module, TextSupernet)

    def memory(examples: int) -> jax.Array:
        return jnp.zeros((examples, module.hidden), dtype)

    def mixed(weights: Weights | None) -> dict[str, Any]:
        return {"weights": weights} if is_relaxed else {}

    def init(key: jax.Array) -> tuple[Any, Any]:
        nothing = None
        if isinstance(module, TextSupernet):
            nothing = Weights({CELL: jnp.zeros(module.space.alpha_shape(CELL), dtype)})
        variables = module.init(key, jnp.zeros((1, 1), jnp.int32), memory(1), **mixed(nothing))
        params, stats = jax.tree.map(
            lambda leaf: leaf.astype(dtype), (variables["params"], variables.get("batch_stats", {}))
        )
        return params, stats

    def masks(batch: Any, context: Context, dtype: Any) -> Masks | None:
        scale = context.values.get("dropout")
        if not context.train or scale is None or context.key is None:
            return None
        return draw_masks(
            context.key, module.dropouts, module.words, batch.tokens.shape[1], module.hidden, scale, dtype
        )

    def apply(
        params: Any, stats: Any, weights: Weights, batch: Any, memory: jax.Array, context: Context
    ) -> tuple[TextOutputs, Any, jax.Array]:
        narrow = partial(narrow_to, dtype=compute_dtype if context.train else None)
        own, used = jax.tree.leaves(params)[0].dtype, narrow(params)
        hidden = narrow(jnp.where(batch.fresh, jnp.zeros_like(memory), memory))
        options: dict[str, Any] = {"train": context.train} if is_relaxed else {}
        result: Any = module.apply(
            {"params": used, "batch_stats": stats},
            batch.tokens,
            hidden,
            **mixed(narrow(weights)),
            **options,
            length=batch.length,
            masks=masks(batch, context, hidden.dtype),
            mutable=["batch_stats"] if context.train and is_relaxed else False,
        )
        (outputs, hidden), stats = (
            (result[0], result[1]["batch_stats"]) if context.train and is_relaxed else (result, stats)
        )
        outputs, hidden = jax.tree.map(lambda leaf: leaf.astype(own), (outputs, hidden))
        # Where it is cut: no gradient goes back into the text read before.
        return outputs, stats, jax.lax.stop_gradient(hidden)

    return Network(init, apply, False, dtype, module, (), memory, width)


def text_cost(num_nodes: int, words: int, hidden: int) -> NetworkCost:
    """Parameters, and multiply-adds of one token, of a genotype's network; the search network has as many parameters.

    The matrix that embeds and decodes is counted once. Multiply-adds are those of products.
    """
    layers = (
        LayerCost("decoder", words * hidden, 1, words),
        LayerCost("first", 4 * hidden**2, 1, 0),
        *(LayerCost(f"node_{node}", 2 * hidden**2, 1, 0) for node in range(num_nodes)),
    )
    return NetworkCost(
        sum(layer.weights + layer.others for layer in layers), sum(layer.multiply_adds for layer in layers), layers
    )
