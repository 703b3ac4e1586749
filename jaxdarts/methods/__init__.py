"""Search methods: one paper a file, each a builder of a SearchMethod. To add one, write it and enter it in METHODS."""

from collections.abc import Callable

from jaxdarts.methods.darts import darts
from jaxdarts.methods.retraining import (
    RetrainInfo,
    RetrainMethod,
    RetrainProblem,
    RetrainState,
    retraining,
    retraining_loss,
)
from jaxdarts.methods.search import (
    Batch,
    LossInputs,
    SearchInfo,
    SearchMethod,
    SearchProblem,
    SearchState,
    eval_mode_sums,
    train_mode_loss,
)

METHODS: dict[str, Callable[..., SearchMethod]] = {"darts": darts}

__all__ = [
    "METHODS",
    "Batch",
    "LossInputs",
    "RetrainInfo",
    "RetrainMethod",
    "RetrainProblem",
    "RetrainState",
    "SearchInfo",
    "SearchMethod",
    "SearchProblem",
    "SearchState",
    "darts",
    "eval_mode_sums",
    "retraining",
    "retraining_loss",
    "train_mode_loss",
]
