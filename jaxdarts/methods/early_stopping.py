"""When has the curvature grown so far that a search should stop, and which epoch is returned?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxdarts.errors import InputError
from jaxdarts.methods.base import Method, Problem
from jaxdarts.methods.darts import darts
from jaxdarts.methods.verdict import History, Stop

Eigenvalues = Sequence[float | None]  # one a measurement; None or not finite: it failed


@dataclass(frozen=True)
class StoppingRule:
    """Stop when the local average of the dominant eigenvalue has grown too fast (Zela et al. 2020, section 4.3).

    The average at a measurement is the mean of `window` measurements centred on it, so it is known only `window // 2`
    measurements later. The search stops when the newest average that is known is more than `threshold` times the one
    `lag` measurements before, and returns the epoch of that older one.
    """

    window: int = 5  # odd
    lag: int = 5
    threshold: float = 1 / 0.75
    first_epoch: int = 10  # the earliest epoch that may be returned, counted from 0
    frequency: int = 1  # epochs between measurements
    in_epochs: bool = False  # whether window and lag count epochs instead of measurements

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("lag", 1), ("first_epoch", 0), ("frequency", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} of a stopping rule must be at least {least}; got {getattr(self, name)}")
        if self.window % 2 == 0:
            raise InputError(f"window of a stopping rule must be odd, since it is centred; got {self.window}")
        if not self.threshold > 0:
            raise InputError(f"threshold of a stopping rule must be greater than 0; got {self.threshold}")

    @property
    def reach(self) -> int:
        """Measurements that an average takes in on either side of its centre."""
        return self.window // 2 // (self.frequency if self.in_epochs else 1)

    @property
    def measurements_back(self) -> int:
        """Measurements between the two averages that are compared."""
        return -(-self.lag // self.frequency) if self.in_epochs else self.lag

    @property
    def epochs_back(self) -> int:
        """Epochs from the one that is returned to the one in which that is decided."""
        return self.frequency * (self.reach + self.measurements_back)

    @property
    def first_decision(self) -> int:
        """The earliest epoch in which the rule can fire, counted from 0."""
        return -(-(self.first_epoch + self.epochs_back) // self.frequency) * self.frequency

    def returnable(self, epoch: int, times: int = 1) -> tuple[int, ...]:
        """The epochs that may be returned by decisions after `epoch`, or by so many, each of which goes back."""
        oldest = max(epoch + 1 - times * self.epochs_back, self.first_epoch)
        return tuple(e for e in range(oldest, epoch + 1) if e % self.frequency == 0)


# The paper names no first epoch; its code's is used, since at the start every curvature grows.
STOPPING_RULES: dict[str, StoppingRule] = {
    "paper": StoppingRule(window=5, lag=5, threshold=1 / 0.75, first_epoch=10, frequency=1, in_epochs=True),
    "code": StoppingRule(window=5, lag=4, threshold=1.3, first_epoch=10, frequency=2),
    "quick": StoppingRule(window=3, lag=2, threshold=1.3, first_epoch=2, frequency=1),
}
"""`paper`: Zela et al. 2020, section 4.3; `code`: RobustDARTS, utils.py; `quick`: can fire in a run of ten epochs."""


class EarlyStop(NamedTuple):
    """Where a rule stops a search."""

    decided_at: int  # epoch, counted from 0
    returns: int  # epoch


def find_stop(
    rule: StoppingRule, epochs: Sequence[int], eigenvalues: Eigenvalues, last_epoch: int | None = None
) -> EarlyStop | None:
    """Where the rule first fires in a whole history, if it does.

    Args:
      rule: its frequency should be that of the history.
      epochs: the epochs measured, ascending.
      eigenvalues: the dominant eigenvalue in each.
      last_epoch: of the search. There nothing is left to stop; None: the search goes on after the history.
    """
    for end in range(1, len(epochs) + 1):
        returns = None if epochs[end - 1] == last_epoch else newest_stop(rule, epochs[:end], eigenvalues[:end])
        if returns is not None:
            return EarlyStop(epochs[end - 1], returns)
    return None


def newest_stop(rule: StoppingRule, epochs: Sequence[int], eigenvalues: Eigenvalues) -> int | None:
    """The epoch to return if the rule fires at the history's newest measurement, else None.

    As RobustDARTS, epochs are counted back by the frequency; if just that epoch was not measured, the one before is
    returned. Averages are over measurements that exist. An older average of zero or below has no growth to speak of.
    """
    pairs = [(e, v) for e, v in zip(epochs, eigenvalues, strict=True) if v is not None and math.isfinite(v)]
    newest = len(pairs) - 1 - rule.reach
    older = newest - rule.measurements_back
    if not pairs or older < 0:
        return None
    returns = pairs[-1][0] - rule.epochs_back
    if returns < rule.first_epoch:
        return None
    averages = local_average([value for _, value in pairs], rule.reach)
    before, now = averages[older], averages[newest]
    if before is None or now is None or before <= 0 or not now / before > rule.threshold:
        return None
    return max((e for e, _ in pairs if e <= returns), default=None)


def local_average(values: Eigenvalues, reach: int = 2) -> list[float | None]:
    """Smooths eigenvalues for the early-stopping test (Zela et al. 2020, section 4.3), as RobustDARTS' tracker does.

    Entry i is the mean of measurements i - reach to i + reach, of those that exist: the window (of five) is centred
    and shorter at both ends. Hence, while a search runs, entry i is settled only once measurement i + reach is known,
    and the newest average of n measurements that the reference has is entry n - 1 - reach. None (not measured, or not
    finite) stays None and takes no part. Fewer than reach + 1 measurements have no average yet.
    """
    measured = [(i, float(value)) for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    result: list[float | None] = [None] * len(values)
    if len(measured) > reach:
        for position, (index, _) in enumerate(measured):
            window = [value for _, value in measured[max(0, position - reach) : position + reach + 1]]
            result[index] = sum(window) / len(window)
    return result


def darts_es(problem: Problem, *, rule: StoppingRule = STOPPING_RULES["paper"], **options: Any) -> Method:
    """DARTS-ES (Zela et al. 2020, section 4.3): DARTS that stops when the curvature grows.

    Args:
      problem: what is searched.
      rule: when to stop.
      options: of `darts`.
    """
    return stopping(darts(problem, **options), rule)


def stopping(method: Method, rule: StoppingRule) -> Method:
    """Any method, stopped when the curvature grows; `rule` says when."""

    def decide(history: History) -> Stop | None:
        returns = stop_of_history(rule, history)
        return None if returns is None else Stop(returns)

    def returnable(history: History) -> tuple[int, ...]:
        return rule.returnable(history[-1]["epoch"]) if history else ()

    return method._replace(decide=decide, returnable=returnable)


def stop_of_history(rule: StoppingRule, history: History) -> int | None:
    """As `newest_stop`, from a run's records; None where the newest epoch was not measured.

    None too where the epoch to return was not measured: the one before it may not have been kept, and the next
    measurement decides.
    """
    newest = history[-1]
    if newest["dominant_eigenvalue"] is None:
        return None
    epochs = [record["epoch"] for record in history]
    returns = newest_stop(rule, epochs, [record["dominant_eigenvalue"] for record in history])
    return returns if returns in rule.returnable(newest["epoch"] - 1) else None


def make_rule(name: str, frequency: int, **changes: float | None) -> StoppingRule:
    """The rule `name` of STOPPING_RULES for measurements every `frequency` epochs; None leaves the rule's own value."""
    given: dict[str, Any] = {field: value for field, value in changes.items() if value is not None}
    return dataclasses.replace(STOPPING_RULES[name], frequency=frequency, **given)
