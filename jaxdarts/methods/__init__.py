"""Search methods: one paper a file. To add one, write it and enter it in METHODS."""

from jaxdarts.methods.adaptive import darts_ada, going_back
from jaxdarts.methods.base import Candidate, Method, MethodEntry, Problem, SearchState, View
from jaxdarts.methods.beta import beta_darts, candidate_mask
from jaxdarts.methods.darts import darts
from jaxdarts.methods.darts_minus import DARTS_MINUS
from jaxdarts.methods.dots import DOTS
from jaxdarts.methods.dsnas import DSNAS
from jaxdarts.methods.early_stopping import (
    STOPPING_RULES,
    EarlyStop,
    StoppingRule,
    darts_es,
    find_stop,
    local_average,
    make_rule,
    newest_stop,
    stopping,
)
from jaxdarts.methods.fair_darts import FAIR_DARTS
from jaxdarts.methods.gdas import GDAS
from jaxdarts.methods.idarts import IDARTS
from jaxdarts.methods.p_darts import P_DARTS
from jaxdarts.methods.parts import gradient_method
from jaxdarts.methods.pc_darts import PC_DARTS
from jaxdarts.methods.perturbation import DARTS_PT, SDARTS_RS_PT
from jaxdarts.methods.random_search import RANDOM, RANDOM_WS, random_architecture, random_ws, sample_weights
from jaxdarts.methods.retraining import retraining
from jaxdarts.methods.robust import R_DARTS_DP, R_DARTS_L2
from jaxdarts.methods.sdarts import SDARTS_ADV, SDARTS_RS
from jaxdarts.methods.snas import SNAS
from jaxdarts.methods.verdict import Change, History, RollBack, Stop, Verdict

METHODS: dict[str, MethodEntry] = {
    "darts": MethodEntry(gradient_method, "the strongest operations of alpha after the last epoch"),
    "darts-es": MethodEntry(
        gradient_method,
        "the strongest operations of alpha in the epoch before the curvature grew",
        defaults={"": {"early_stopping": "stop"}},
    ),
    "darts-ada": MethodEntry(
        gradient_method,
        "the strongest operations of alpha; where the curvature grew, w was given more L2",
        defaults={"": {"early_stopping": "go-back"}},
    ),
    "beta-darts": MethodEntry(
        gradient_method,
        "the strongest operations of alpha, whose softmax Beta-Decay kept from growing apart",
        defaults={"": {"beta_weight": 50.0}},
    ),
    "gdas": GDAS,
    "pc-darts": PC_DARTS,
    "darts-minus": DARTS_MINUS,
    "fair-darts": FAIR_DARTS,
    "snas": SNAS,
    "dsnas": DSNAS,
    "idarts": IDARTS,
    "sdarts-rs": SDARTS_RS,
    "sdarts-adv": SDARTS_ADV,
    "p-darts": P_DARTS,
    "dots": DOTS,
    "darts-pt": DARTS_PT,
    "sdarts-rs-pt": SDARTS_RS_PT,
    "r-darts-l2": R_DARTS_L2,
    "r-darts-dp": R_DARTS_DP,
    "random-ws": RANDOM_WS,
    "random": RANDOM,
}

__all__ = [
    "METHODS",
    "STOPPING_RULES",
    "Candidate",
    "Change",
    "EarlyStop",
    "History",
    "Method",
    "MethodEntry",
    "Problem",
    "RollBack",
    "SearchState",
    "Stop",
    "StoppingRule",
    "Verdict",
    "View",
    "beta_darts",
    "candidate_mask",
    "darts",
    "darts_ada",
    "darts_es",
    "find_stop",
    "going_back",
    "gradient_method",
    "local_average",
    "make_rule",
    "newest_stop",
    "random_architecture",
    "random_ws",
    "retraining",
    "sample_weights",
    "stopping",
]
