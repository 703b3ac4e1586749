"""Networks as pure functions: the relaxed supernet and the discrete network of a genotype, of images and of text."""

from jaxdarts.networks.cost import NetworkCost, network_cost, supernet_cost
from jaxdarts.networks.discrete import DiscreteNetwork
from jaxdarts.networks.macro import MACROS
from jaxdarts.networks.operations import OPERATIONS, Operation
from jaxdarts.networks.recurrent import ACTIVATIONS, Dropouts, TextNetwork, TextSupernet
from jaxdarts.networks.supernet import Supernet, Weights, init_alpha, softmax_weights
from jaxdarts.networks.text import text_cost, text_network

__all__ = [
    "ACTIVATIONS",
    "MACROS",
    "OPERATIONS",
    "DiscreteNetwork",
    "Dropouts",
    "NetworkCost",
    "Operation",
    "Supernet",
    "TextNetwork",
    "TextSupernet",
    "Weights",
    "init_alpha",
    "network_cost",
    "softmax_weights",
    "supernet_cost",
    "text_cost",
    "text_network",
]
