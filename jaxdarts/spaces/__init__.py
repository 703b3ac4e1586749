"""Search spaces and genotypes: plain data, no JAX."""

from jaxdarts.spaces.architecture import Architecture
from jaxdarts.spaces.base import CellSpace, count_edges
from jaxdarts.spaces.benchmark import Benchmark
from jaxdarts.spaces.cell import DARTS, NASBENCH201, RNN, RNN_ROBUST, S1, S2, S3, S4, S5, SPACES
from jaxdarts.spaces.dense import DenseGenotype, DenseSpace
from jaxdarts.spaces.discretise import discretise, one_hot, one_hot_choices
from jaxdarts.spaces.files import (
    find_genotype,
    genotype_from_json,
    load_genotype,
    load_space,
    space_from_json,
    space_to_json,
)
from jaxdarts.spaces.genotype import Genotype
from jaxdarts.spaces.published import GENOTYPES
from jaxdarts.spaces.recurrent import ACTIVATION_NAMES, RecurrentGenotype, RecurrentSpace
from jaxdarts.spaces.space import CELL_TYPES, SearchSpace

__all__ = [
    "ACTIVATION_NAMES",
    "CELL_TYPES",
    "DARTS",
    "GENOTYPES",
    "NASBENCH201",
    "RNN",
    "RNN_ROBUST",
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "SPACES",
    "Architecture",
    "Benchmark",
    "CellSpace",
    "DenseGenotype",
    "DenseSpace",
    "Genotype",
    "RecurrentGenotype",
    "RecurrentSpace",
    "SearchSpace",
    "count_edges",
    "discretise",
    "find_genotype",
    "genotype_from_json",
    "load_genotype",
    "load_space",
    "one_hot",
    "one_hot_choices",
    "space_from_json",
    "space_to_json",
]
