"""iDARTS (Zhang et al. 2021): some steps on w, and then one on alpha by the implicit function theorem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxdarts.checks import at_least
from jaxdarts.methods.base import Ingredients, Method, MethodEntry
from jaxdarts.methods.parts import gradient_method
from jaxdarts.settings import Group


@dataclass(frozen=True)
class IdartsSettings(Group):
    """iDARTS."""

    inner_steps: int = 4
    """T: steps on w for each on alpha."""
    checks: ClassVar = at_least(1, "inner_steps")


def build_idarts(ingredients: Ingredients) -> Method:
    """T steps on w, which are the training of w, and then a step on alpha at the w reached (the paper's algorithm 1).

    The hypergradient is that of `neumann`, whose terms are the paper's K + 1, on the last of the T training batches.
    """
    # Differs from the authors' notebook: its inner steps move copies of w, and so nothing; what moves w there is a
    # displacement that is not taken back. Its mixed product is a difference of the wrong length; here it is exact.
    # Differs from the paper, whose inner objective has no weight decay: the Hessian here has that of the steps on w.
    return gradient_method(ingredients, weights_first=True, alpha_every=ingredients.settings.inner_steps)


IDARTS = MethodEntry(
    build_idarts,
    "the strongest operations of alpha, which learned by implicit hypergradients",
    settings=(IdartsSettings,),
    defaults={
        "": {"hypergradient": "neumann", "neumann_terms": 3},
        # Of the run that the authors' notebook shows.
        "paper/nasbench201": {"epochs": 30, "learning_rate": 0.01, "nesterov": True, "l2": 5e-4},
    },
    takes_single_level=False,
)
