"""The published spaces: DARTS and its recurrent one, S1-S5 of RobustDARTS (Zela et al. 2020), NAS-Bench-201."""

from __future__ import annotations

from jaxdarts.spaces.base import CellSpace
from jaxdarts.spaces.dense import DenseSpace
from jaxdarts.spaces.recurrent import ACTIVATION_NAMES, RecurrentSpace
from jaxdarts.spaces.space import SearchSpace

_SKIP, _MAX, _AVG = "skip_connect", "max_pool_3x3", "avg_pool_3x3"
_SEP3, _SEP5, _DIL3, _DIL5 = "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"

# Liu et al. 2019: the eight operations, in the reference's order.
DARTS = SearchSpace.uniform("darts", ("none", _MAX, _AVG, _SKIP, _SEP3, _SEP5, _DIL3, _DIL5))

# S1 keeps the two strongest operations of each edge after two rounds of pruning (Zela et al. 2020, appendix B).
S1 = SearchSpace(
    name="s1",
    num_nodes=4,
    normal=(
        # node 0
        (_SKIP, _DIL3),
        (_SKIP, _DIL5),
        # node 1
        (_SKIP, _DIL5),
        (_SKIP, _SEP3),
        (_SKIP, _DIL3),
        # node 2
        (_MAX, _SKIP),
        (_SKIP, _SEP3),
        (_SKIP, _SEP3),
        (_SKIP, _DIL3),
        # node 3
        (_SKIP, _SEP3),
        (_MAX, _SKIP),
        (_SKIP, _DIL3),
        (_DIL3, _DIL5),
        (_DIL3, _DIL5),
    ),
    reduce=(
        # node 0
        (_MAX, _AVG),
        (_MAX, _DIL3),
        # node 1
        (_MAX, _AVG),
        (_MAX, _AVG),
        (_SKIP, _DIL5),
        # node 2
        (_MAX, _AVG),
        (_MAX, _SEP3),
        (_SKIP, _DIL3),
        (_SKIP, _DIL5),
        # node 3
        (_MAX, _AVG),
        (_MAX, _AVG),
        (_SKIP, _DIL5),
        (_SKIP, _DIL5),
        (_SKIP, _DIL5),
    ),
    concat=(2, 3, 4, 5),
)
S2 = SearchSpace.uniform("s2", (_SKIP, _SEP3))
S3 = SearchSpace.uniform("s3", ("none", _SKIP, _SEP3))
S4 = SearchSpace.uniform("s4", ("noise", _SEP3))

# The paper's S5 with its 81 architectures. (RobustDARTS' code calls the full DARTS space "s5".)
S5 = SearchSpace.uniform("s5", (_SEP3, _SKIP, _MAX), num_nodes=1)

# Dong and Yang 2020: 5^6 = 15,625 cells, all of which the benchmark has trained.
NASBENCH201 = DenseSpace.uniform("nasbench201", ("none", _SKIP, "nor_conv_1x1", "nor_conv_3x3", _AVG))

# Recurrent cells of eight nodes (Liu et al. 2019, 3.1.2), and with the two activations of Zela et al. 2020, appendix F.
RNN = RecurrentSpace.uniform("rnn", ACTIVATION_NAMES)
RNN_ROBUST = RecurrentSpace.uniform("rnn-robust", ("relu", "identity"))

SPACES: dict[str, CellSpace] = {
    space.name: space for space in (DARTS, S1, S2, S3, S4, S5, NASBENCH201, RNN, RNN_ROBUST)
}
