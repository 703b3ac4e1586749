"""Networks as pure functions: the relaxed supernet and the discrete network of a genotype."""

from jaxdarts.networks.cost import NetworkCost, network_cost, supernet_cost
from jaxdarts.networks.discrete import DiscreteNetwork
from jaxdarts.networks.macro import MACROS
from jaxdarts.networks.operations import OPERATIONS, Operation
from jaxdarts.networks.supernet import Supernet, Weights, init_alpha, softmax_weights

__all__ = [
    "MACROS",
    "OPERATIONS",
    "DiscreteNetwork",
    "NetworkCost",
    "Operation",
    "Supernet",
    "Weights",
    "init_alpha",
    "network_cost",
    "softmax_weights",
    "supernet_cost",
]
