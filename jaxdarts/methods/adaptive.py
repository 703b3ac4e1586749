"""DARTS-ADA (Zela et al. 2020, algorithm 1): go back and regularise more strongly when the curvature grows."""

from __future__ import annotations

from typing import Any

from jaxdarts.errors import InputError
from jaxdarts.methods.base import Method, Problem
from jaxdarts.methods.darts import darts
from jaxdarts.methods.early_stopping import STOPPING_RULES, StoppingRule, stop_of_history
from jaxdarts.methods.verdict import History, RollBack


def darts_ada(
    problem: Problem,
    *,
    rule: StoppingRule = STOPPING_RULES["paper"],
    factor: float = 10.0,
    max_l2: float = 0.03,
    **options: Any,
) -> Method:
    """DARTS that, where DARTS-ES would stop, goes back to the returned epoch and continues with `factor` times the L2.

    The whole state goes back, and with it what is derived from it: schedules follow the epoch, and the history of
    eigenvalues ends at the epoch returned to. Once L2 is `max_l2` nothing is tested any more.

    Args:
      problem: what is searched.
      rule: when to go back, and where to.
      factor: of L2, greater than 1.
      max_l2: L2 grows no further than this.
      options: of `darts`.

    Differs from RobustDARTS, where after a restart the old tracker goes on with the abandoned eigenvalues, the virtual
    step keeps the old L2, the curves keep the abandoned epochs, and the last restart is told by a rounded logarithm.
    """
    return going_back(darts(problem, **options), rule, factor, max_l2)


def going_back(method: Method, rule: StoppingRule, factor: float = 10.0, max_l2: float = 0.03) -> Method:
    """Any method, taken back and given more L2 when the curvature grows; arguments as for `darts_ada`."""
    if not factor > 1:
        raise InputError(f"factor of darts_ada must be greater than 1; got {factor}")

    def raise_l2(l2: float) -> float | None:
        # Rounded, so that ten times 0.0003 is 0.003 and not 0.0029999999999999996.
        raised = min(float(f"{factor * l2:.9g}"), max_l2)
        return raised if raised > (1 + 1e-6) * l2 else None  # float32 cannot tell them apart

    def decide(history: History) -> RollBack | None:
        raised = raise_l2(history[-1]["l2"])
        returns = None if raised is None else stop_of_history(rule, history)
        return None if raised is None or returns is None else RollBack(returns, {"weights/l2": raised})

    def returnable(history: History) -> tuple[int, ...]:
        # A search that has gone back may soon go back again, to what the first time was too old already.
        if not history:
            return ()
        epoch, l2, times = history[-1]["epoch"], raise_l2(history[-1]["l2"]), 0
        while l2 is not None and times * rule.epochs_back <= epoch:
            times, l2 = times + 1, raise_l2(l2)
        return rule.returnable(epoch, times) if times else ()

    return method._replace(decide=decide, returnable=returnable)
