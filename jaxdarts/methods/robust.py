"""R-DARTS (Zela et al. 2020, section 5.3): several searches that differ in how strongly w is regularised."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxdarts.methods.darts import darts
from jaxdarts.methods.search import SearchMethod, SearchProblem


class Regularisation(NamedTuple):
    """What differs between the searches of an R-DARTS, beside their seeds."""

    field: str  # of the configuration, and what a member's state carries: l2 or drop_path
    strengths: tuple[float, ...]  # one a member
    with_cutout: bool = False  # members whose strength is not 0 also mask a square of every training image


REGULARISATIONS: dict[str, Regularisation] = {
    "r-darts-l2": Regularisation("l2", (3e-4, 9e-4, 27e-4, 81e-4)),
    "r-darts-dp": Regularisation("drop_path", (0.0, 0.2, 0.4, 0.6), with_cutout=True),
}
"""By method. The strengths are those of the paper's experiments (sections 5.1 and 5.2)."""
# Differs from the paper, which names no strengths for section 5.3 and raises cutout's probability with drop path's:
# cutout is on for all images or for none, as RobustDARTS' code has it.


def r_darts(problem: SearchProblem, **options: Any) -> SearchMethod:
    """A member of an R-DARTS: `darts`, whose L2 (in `opt_state`) and drop path are values of its state.

    The members run side by side (`jaxdarts.runs.population.steps`), and the best of the genotypes that they find, by a
    short training from scratch, is the result (`jaxdarts.runs.population.selection`).

    Args:
      problem: search space and supernet.
      options: of `darts`.
    """
    return darts(problem, **options)
