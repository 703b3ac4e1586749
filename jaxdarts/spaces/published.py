"""Which published cells can be named instead of read from a file?"""

from __future__ import annotations

from jaxdarts.spaces.architecture import Architecture
from jaxdarts.spaces.genotype import Genotype
from jaxdarts.spaces.recurrent import RecurrentGenotype

_SKIP, _MAX, _AVG = "skip_connect", "max_pool_3x3", "avg_pool_3x3"
_SEP3, _SEP5, _SEP7, _STRIP = "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "conv_7x1_1x7"
_DIL3, _DIL5 = "dil_conv_3x3", "dil_conv_5x5"
_ALL = (2, 3, 4, 5)
_TANH, _RELU, _SIGMOID, _IDENTITY = "tanh", "relu", "sigmoid", "identity"

# NASNet-A (Zoph et al. 2018) and AmoebaNet-A (Real et al. 2019) as the DARTS code writes them: five nodes, and states
# that no node reads are concatenated.
NASNET_A = Genotype(
    (
        (_SEP5, 1),
        (_SEP3, 0),
        (_SEP5, 0),
        (_SEP3, 0),
        (_AVG, 1),
        (_SKIP, 0),
        (_AVG, 0),
        (_AVG, 0),
        (_SEP3, 1),
        (_SKIP, 1),
    ),
    (2, 3, 4, 5, 6),
    (
        (_SEP5, 1),
        (_SEP7, 0),
        (_MAX, 1),
        (_SEP7, 0),
        (_AVG, 1),
        (_SEP5, 0),
        (_SKIP, 3),
        (_AVG, 2),
        (_SEP3, 2),
        (_MAX, 1),
    ),
    (4, 5, 6),
)
AMOEBANET_A = Genotype(
    (
        (_AVG, 0),
        (_MAX, 1),
        (_SEP3, 0),
        (_SEP5, 2),
        (_SEP3, 0),
        (_AVG, 3),
        (_SEP3, 1),
        (_SKIP, 1),
        (_SKIP, 0),
        (_AVG, 1),
    ),
    (4, 5, 6),
    (
        (_AVG, 0),
        (_SEP3, 1),
        (_MAX, 0),
        (_SEP7, 2),
        (_SEP7, 0),
        (_AVG, 1),
        (_MAX, 0),
        (_MAX, 1),
        (_STRIP, 0),
        (_SEP3, 5),
    ),
    (3, 4, 6),
)

# Liu et al. 2019: found with first order and second order.
DARTS_V1 = Genotype(
    ((_SEP3, 1), (_SEP3, 0), (_SKIP, 0), (_SEP3, 1), (_SKIP, 0), (_SEP3, 1), (_SEP3, 0), (_SKIP, 2)),
    _ALL,
    ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 0), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_AVG, 0)),
    _ALL,
)
DARTS_V2 = Genotype(
    ((_SEP3, 0), (_SEP3, 1), (_SEP3, 0), (_SEP3, 1), (_SEP3, 1), (_SKIP, 0), (_SKIP, 0), (_DIL3, 2)),
    _ALL,
    ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 1), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_MAX, 1)),
    _ALL,
)

# Recurrent cells, as the DARTS code lists them. Liu et al. 2019, first order and second order; both share their names
# with the cells above there.
DARTS_V1_RNN = RecurrentGenotype(
    ((_RELU, 0), (_RELU, 1), (_TANH, 2), (_RELU, 3), (_RELU, 4), (_IDENTITY, 1), (_RELU, 5), (_RELU, 1)),
    tuple(range(1, 9)),
)
DARTS_V2_RNN = RecurrentGenotype(
    ((_SIGMOID, 0), (_RELU, 1), (_RELU, 1), (_IDENTITY, 1), (_TANH, 2), (_SIGMOID, 5), (_TANH, 3), (_RELU, 5)),
    tuple(range(1, 9)),
)
# Pham et al. 2018, who average only the states that no node reads.
ENAS = RecurrentGenotype(
    (
        (_TANH, 0),
        (_TANH, 1),
        (_RELU, 1),
        (_TANH, 3),
        (_TANH, 3),
        (_RELU, 3),
        (_RELU, 4),
        (_RELU, 7),
        (_RELU, 8),
        (_RELU, 8),
        (_RELU, 8),
    ),
    (2, 5, 6, 9, 10, 11),
)

GENOTYPES: dict[str, Architecture] = {
    "DARTS_V1": DARTS_V1,
    "DARTS_V2": DARTS_V2,
    "NASNet-A": NASNET_A,
    "AmoebaNet-A": AMOEBANET_A,
    "DARTS_V1_RNN": DARTS_V1_RNN,
    "DARTS_V2_RNN": DARTS_V2_RNN,
    "ENAS": ENAS,
    # Zela et al. 2020: S1 on CIFAR-10, three seeds each, from the logs published with the paper. DARTS as it is (L2
    # factor 3e-4), whose normal cells are nearly all skip connections, and with 27 times the L2 factor.
    "RobustDARTS_S1_L2_3e-4_1": Genotype(
        ((_SKIP, 1), (_DIL3, 0), (_SKIP, 2), (_SKIP, 0), (_SKIP, 0), (_SKIP, 2), (_SKIP, 2), (_SKIP, 1)),
        _ALL,
        ((_MAX, 1), (_MAX, 0), (_SKIP, 2), (_MAX, 1), (_SKIP, 2), (_MAX, 0), (_MAX, 0), (_MAX, 1)),
        _ALL,
    ),
    "RobustDARTS_S1_L2_3e-4_2": Genotype(
        ((_SKIP, 1), (_DIL3, 0), (_SKIP, 1), (_SKIP, 2), (_SKIP, 1), (_SKIP, 2), (_SKIP, 2), (_SKIP, 1)),
        _ALL,
        ((_MAX, 1), (_MAX, 0), (_MAX, 0), (_SKIP, 2), (_MAX, 1), (_MAX, 0), (_DIL5, 4), (_MAX, 0)),
        _ALL,
    ),
    "RobustDARTS_S1_L2_3e-4_3": Genotype(
        ((_SKIP, 0), (_SKIP, 1), (_SKIP, 1), (_SKIP, 2), (_SKIP, 2), (_SKIP, 1), (_SKIP, 2), (_DIL3, 4)),
        _ALL,
        ((_MAX, 1), (_MAX, 0), (_SKIP, 2), (_MAX, 0), (_SKIP, 2), (_MAX, 1), (_MAX, 0), (_SKIP, 3)),
        _ALL,
    ),
    "RobustDARTS_S1_L2_81e-4_1": Genotype(
        ((_SKIP, 0), (_SKIP, 1), (_SEP3, 1), (_DIL3, 2), (_SEP3, 2), (_SEP3, 1), (_DIL3, 2), (_MAX, 1)),
        _ALL,
        ((_MAX, 0), (_MAX, 1), (_MAX, 1), (_MAX, 0), (_DIL3, 2), (_DIL5, 3), (_MAX, 1), (_DIL5, 2)),
        _ALL,
    ),
    "RobustDARTS_S1_L2_81e-4_2": Genotype(
        ((_SKIP, 1), (_SKIP, 0), (_SEP3, 1), (_DIL5, 0), (_SEP3, 1), (_MAX, 0), (_MAX, 1), (_DIL3, 4)),
        _ALL,
        ((_MAX, 0), (_MAX, 1), (_MAX, 1), (_MAX, 0), (_DIL5, 3), (_MAX, 1), (_MAX, 1), (_DIL5, 2)),
        _ALL,
    ),
    "RobustDARTS_S1_L2_81e-4_3": Genotype(
        ((_SKIP, 0), (_SKIP, 1), (_SEP3, 1), (_DIL3, 2), (_SEP3, 1), (_DIL3, 3), (_MAX, 1), (_DIL3, 3)),
        _ALL,
        ((_MAX, 0), (_MAX, 1), (_MAX, 0), (_MAX, 1), (_MAX, 0), (_MAX, 1), (_MAX, 1), (_MAX, 0)),
        _ALL,
    ),
}
"""Genotypes by name. A new one is an entry here."""

# What a name means with a recurrent space.
OF_RECURRENT_SPACES = {"DARTS_V1": "DARTS_V1_RNN", "DARTS_V2": "DARTS_V2_RNN"}
