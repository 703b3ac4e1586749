"""PC-DARTS (Xu et al. 2020): operations get a part of the channels, and edges have weights of their own."""

from __future__ import annotations

from jaxdarts.methods.base import CLASSIFICATION_ONLY, MethodEntry
from jaxdarts.methods.parts import gradient_method

# Cost: in the epochs in which alpha rests its gradient is computed all the same.
PC_DARTS = MethodEntry(
    gradient_method,
    "the strongest operations by alpha's weights of operations times those of edges",
    # `quick` keeps the common learning rates, which fit its small batches.
    defaults={
        "": {
            "hypergradient": "first_order",
            "partial_channels": 4,
            "edge_normalisation": True,
            "alpha_warm_up": 0.3,
        },
        "paper": {
            "batch_size": 256,
            "learning_rate": 0.1,
            "learning_rate_min": 0.0,
            "alpha_learning_rate": 6e-4,
        },
    },
    tasks=CLASSIFICATION_ONLY,
)
