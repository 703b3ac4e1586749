"""Search methods: one paper a file, each a builder of a SearchMethod. To add one, write it and enter it in METHODS."""

from collections.abc import Callable

from jaxdarts.methods.adaptive import darts_ada
from jaxdarts.methods.beta import beta_darts, candidate_mask
from jaxdarts.methods.darts import darts
from jaxdarts.methods.early_stopping import (
    STOPPING_RULES,
    EarlyStop,
    StoppingRule,
    darts_es,
    find_stop,
    local_average,
    make_rule,
    newest_stop,
)
from jaxdarts.methods.random_search import random_architecture, random_ws, sample_weights
from jaxdarts.methods.retraining import (
    RetrainInfo,
    RetrainMethod,
    RetrainProblem,
    RetrainState,
    retraining,
    retraining_loss,
)
from jaxdarts.methods.robust import REGULARISATIONS, Regularisation, r_darts
from jaxdarts.methods.search import (
    Batch,
    Candidate,
    LossInputs,
    SearchInfo,
    SearchMethod,
    SearchProblem,
    SearchState,
    as_given,
    eval_mode_sums,
    train_mode_loss,
)
from jaxdarts.methods.verdict import History, RollBack, Stop, Verdict

METHODS: dict[str, Callable[..., SearchMethod]] = {
    "darts": darts,
    "darts-es": darts_es,
    "darts-ada": darts_ada,
    "beta-darts": beta_darts,
    "r-darts-l2": r_darts,
    "r-darts-dp": r_darts,
    "random-ws": random_ws,
    "random": random_architecture,
}

__all__ = [
    "METHODS",
    "REGULARISATIONS",
    "STOPPING_RULES",
    "Batch",
    "Candidate",
    "EarlyStop",
    "History",
    "LossInputs",
    "Regularisation",
    "RetrainInfo",
    "RetrainMethod",
    "RetrainProblem",
    "RetrainState",
    "RollBack",
    "SearchInfo",
    "SearchMethod",
    "SearchProblem",
    "SearchState",
    "Stop",
    "StoppingRule",
    "Verdict",
    "as_given",
    "beta_darts",
    "candidate_mask",
    "darts",
    "darts_ada",
    "darts_es",
    "eval_mode_sums",
    "find_stop",
    "local_average",
    "make_rule",
    "newest_stop",
    "r_darts",
    "random_architecture",
    "random_ws",
    "retraining",
    "retraining_loss",
    "sample_weights",
    "train_mode_loss",
]
