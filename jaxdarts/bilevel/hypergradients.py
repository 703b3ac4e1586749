"""Which hypergradient estimators there are, by name.

| name | inner solution | mixed product |
|---|---|---|
| first_order | the present weights, as if they did not depend on alpha | none |
| finite_difference | one step of the inner optimiser | central difference |
| unrolled | k steps of the inner optimiser | exact |
| neumann | an optimum; inverse Hessian by a truncated series | exact |
| conjugate_gradient | an optimum; inverse Hessian by conjugate gradients | exact |
"""

from __future__ import annotations

from collections.abc import Callable

from jaxdarts.bilevel.explicit import finite_difference, first_order, unrolled
from jaxdarts.bilevel.implicit import conjugate_gradient, neumann
from jaxdarts.bilevel.problem import HypergradientFn

HYPERGRADIENTS: dict[str, Callable[..., HypergradientFn]] = {
    "first_order": first_order,
    "finite_difference": finite_difference,
    "unrolled": unrolled,
    "neumann": neumann,
    "conjugate_gradient": conjugate_gradient,
}
"""Builders. Each can be called without arguments; each result has the signature of `HypergradientFn`."""
