"""What is differentiated through what: bi-level problems, hypergradients, and the optimisers of w and alpha."""

from jaxdarts.bilevel.ahead import Ahead, compilable, run_program
from jaxdarts.bilevel.beta_decay import (
    BETA_DECAY_PENALTIES,
    add_beta_decay,
    beta_decay_factor,
    beta_decay_penalty,
)
from jaxdarts.bilevel.hypergradients import (
    HYPERGRADIENTS,
    conjugate_gradient,
    finite_difference,
    first_order,
    neumann,
    unrolled,
)
from jaxdarts.bilevel.hyperparameters import get_hyperparameters, set_hyperparameters
from jaxdarts.bilevel.parts import Parts, part
from jaxdarts.bilevel.penalties import (
    Elementwise,
    add_penalty,
    alpha_optimiser,
    clip_by_global_norm,
    virtual_step_optimiser,
    weight_optimiser,
)
from jaxdarts.bilevel.problem import Bilevel, HypergradientFn, HypergradientInfo, InnerStep, LossFn
from jaxdarts.bilevel.products import alpha_product, apply_update, mixed_product, value_and_gradients
from jaxdarts.bilevel.published_difference import published_difference
from jaxdarts.bilevel.resting import resting
from jaxdarts.bilevel.temperature import add_temperature_decay

__all__ = [
    "BETA_DECAY_PENALTIES",
    "HYPERGRADIENTS",
    "Ahead",
    "Bilevel",
    "Elementwise",
    "HypergradientFn",
    "HypergradientInfo",
    "InnerStep",
    "LossFn",
    "Parts",
    "add_beta_decay",
    "add_penalty",
    "add_temperature_decay",
    "alpha_optimiser",
    "alpha_product",
    "apply_update",
    "beta_decay_factor",
    "beta_decay_penalty",
    "clip_by_global_norm",
    "compilable",
    "conjugate_gradient",
    "finite_difference",
    "first_order",
    "get_hyperparameters",
    "mixed_product",
    "neumann",
    "part",
    "published_difference",
    "resting",
    "run_program",
    "set_hyperparameters",
    "unrolled",
    "value_and_gradients",
    "virtual_step_optimiser",
    "weight_optimiser",
]
