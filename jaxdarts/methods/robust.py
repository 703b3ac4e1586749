"""R-DARTS (Zela et al. 2020, section 5.3): several searches that differ in how strongly w is regularised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxdarts.errors import InputError
from jaxdarts.methods.base import CLASSIFICATION_ONLY, MethodEntry
from jaxdarts.methods.parts import gradient_method
from jaxdarts.settings import Group


@dataclass(frozen=True)
class Strengths(Group):
    """What differs between the searches of an R-DARTS."""

    strengths: str | None = None
    """Of r-darts-l2 and r-darts-dp: each member's l2, or largest drop_path, with commas between them; None: those of
    the paper, 3e-4,9e-4,27e-4,81e-4 and 0,0.2,0.4,0.6, and of text 1, 3, 9 and 27 times l2."""

    def check(self) -> None:
        """Refuses what is not a list of different numbers."""
        if self.strengths is not None:
            parse_strengths(self.strengths)


class Regularisation(NamedTuple):
    """What differs between the searches of an R-DARTS, beside their seeds."""

    field: str  # the setting that a member's state carries: l2 or drop_path
    strengths: tuple[float, ...]  # one a member
    with_cutout: bool = False  # members whose strength is not 0 also mask a square of every training image

    def members(self, settings: Any) -> Sequence[Mapping[str, Any]]:
        """The settings in which each member differs.

        Raises:
          InputError: `strengths` cannot be read.
        """
        strengths = self.strengths
        if settings.strengths is not None:
            strengths = parse_strengths(settings.strengths)
        elif hasattr(settings, "hidden"):
            # As on Penn Treebank (Zela et al. 2020, appendix F); a tenth of a millionth away from it is rounding.
            strengths = tuple(float(f"{factor * settings.l2:.6g}") for factor in (1, 3, 9, 27))
        changes: list[dict[str, Any]] = [{self.field: strength} for strength in strengths]
        if self.with_cutout:
            changes = [{**change, "cutout": strength > 0} for change, strength in zip(changes, strengths, strict=True)]
        return changes


_L2 = Regularisation("l2", (3e-4, 9e-4, 27e-4, 81e-4))
_DROP_PATH = Regularisation("drop_path", (0.0, 0.2, 0.4, 0.6), with_cutout=True)
_SAYS = "the best by a short training of what several searches found, which differ in how strongly w is regularised"
R_DARTS_L2 = MethodEntry(gradient_method, _SAYS, settings=(Strengths,), members=_L2.members)
R_DARTS_DP = MethodEntry(
    gradient_method,
    _SAYS,
    settings=(Strengths,),
    members=_DROP_PATH.members,
    some={"cutout": True},
    tasks=CLASSIFICATION_ONLY,
)
# The strengths are those of the paper's experiments (sections 5.1 and 5.2).
# Differs from the paper, which names no strengths for section 5.3 and raises cutout's probability with drop path's:
# cutout is on for all images or for none, as RobustDARTS' code has it.


def parse_strengths(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) < 2 or len(set(found)) < len(found) or not all(math.isfinite(value) for value in found):
        raise InputError(f"strengths must be two or more different numbers with commas between them; got {text!r}")
    return found
