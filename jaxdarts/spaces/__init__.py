"""Search spaces and genotypes: plain data, no JAX."""

from jaxdarts.spaces.cell import DARTS, S1, S2, S3, S4, S5, SPACES
from jaxdarts.spaces.discretise import discretise, one_hot, one_hot_choices
from jaxdarts.spaces.files import find_genotype, load_genotype, load_space, space_to_json
from jaxdarts.spaces.genotype import Genotype
from jaxdarts.spaces.published import GENOTYPES
from jaxdarts.spaces.space import CELL_TYPES, SearchSpace, count_edges

__all__ = [
    "CELL_TYPES",
    "DARTS",
    "GENOTYPES",
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "SPACES",
    "Genotype",
    "SearchSpace",
    "count_edges",
    "discretise",
    "find_genotype",
    "load_genotype",
    "load_space",
    "one_hot",
    "one_hot_choices",
    "space_to_json",
]
