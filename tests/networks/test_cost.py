"""Are parameters and multiply-adds those of the network that is built, of XLA's count and of the papers?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS, DiscreteNetwork, Supernet, network_cost, supernet_cost
from jaxdarts.spaces import GENOTYPES, Architecture, DenseGenotype, Genotype, SearchSpace, load_space
from tests.images import IMAGE_GENOTYPES, IMAGE_SPACES


def one_node(normal: str, reduce: str) -> Genotype:
    return Genotype(((normal, 0), (normal, 1)), (2,), ((reduce, 0), (reduce, 1)), (2,))


def count(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def built(genotype: Architecture, channels: int, num_cells: int, image_shape: tuple[int, int, int]) -> int:
    network = DiscreteNetwork(genotype, 10, channels, num_cells, auxiliary=False)
    return count(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))["params"])


@pytest.mark.parametrize("name", sorted(IMAGE_GENOTYPES))
def test_parameters_are_those_of_the_network_that_is_built(name: str) -> None:
    shape = (11, 9, 2)
    assert network_cost(GENOTYPES[name], 10, 6, 5, shape).parameters == built(GENOTYPES[name], 6, 5, shape)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_operation_is_counted(operation: str) -> None:
    genotype = one_node(operation, operation)
    assert network_cost(genotype, 10, 4, 3, (8, 8, 3)).parameters == built(genotype, 4, 3, (8, 8, 3))


# Parameters as the DARTS code logs them at 36 channels and 20 cells; millions of multiply-adds as in tables that
# compare with DARTS (3.3 million parameters, 528 million multiply-adds for DARTS_V2).
@pytest.mark.parametrize(
    ("name", "parameters", "millions"),
    [("DARTS_V1", 3_169_414, 501), ("DARTS_V2", 3_349_342, 528), ("AmoebaNet-A", 3_145_078, 489)],
)
def test_published_sizes(name: str, parameters: int, millions: int) -> None:
    cost = network_cost(GENOTYPES[name], 10, 36, 20, (32, 32, 3))
    assert cost.parameters == parameters
    assert round(cost.multiply_adds / 1e6) == millions


# As FairDARTS' code notes them beside its genotypes, cut: millions of parameters with the auxiliary head, and of
# multiply-adds.
FAIR = {
    "e": (
        "[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('dil_conv_3x3', 4, 1), ('dil_conv_3x3', 4, 2), "
        "('dil_conv_3x3', 5, 0), ('dil_conv_5x5', 5, 1)]",
        "[('max_pool_3x3', 2, 1), ('max_pool_3x3', 2, 0), ('max_pool_3x3', 3, 1), ('max_pool_3x3', 3, 0), "
        "('sep_conv_5x5', 4, 1), ('max_pool_3x3', 4, 0), ('avg_pool_3x3', 5, 0), ('dil_conv_5x5', 5, 1)]",
        3.12,
        414,
    ),
    "g": (  # an edge leads from state 3 of the normal cell, which does not exist
        "[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('skip_connect', 4, 3), ('sep_conv_5x5', 4, 1), "
        "('dil_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)]",
        "[('avg_pool_3x3', 2, 1), ('skip_connect', 2, 0), ('skip_connect', 3, 2), ('max_pool_3x3', 3, 1), "
        "('sep_conv_5x5', 4, 3), ('max_pool_3x3', 4, 0), ('dil_conv_3x3', 5, 1), ('dil_conv_3x3', 5, 4)]",
        3.37,
        453,
    ),
}


@pytest.mark.parametrize("name", sorted(FAIR))
def test_published_sizes_of_genotypes_with_fewer_edges(name: str) -> None:
    normal, reduce, parameters, millions = FAIR[name]
    genotype = Genotype.from_text(f"Genotype({normal}, range(2, 6), {reduce}, range(2, 6))")
    cost = network_cost(genotype, 10, 36, 20, (32, 32, 3))
    head = 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert (cost.parameters + head) // 10_000 == round(100 * parameters)
    assert cost.multiply_adds // 1_000_000 == millions
    assert network_cost(genotype, 10, 6, 5, (11, 9, 2)).parameters == built(genotype, 6, 5, (11, 9, 2))


def test_nasbench201() -> None:
    """The largest cell has 1.53 million parameters, as the benchmark lists it."""
    cell = DenseGenotype(("nor_conv_3x3",) * 6)
    cost = network_cost(cell, 10, 16, 5, (32, 32, 3))
    assert cost.parameters == built(cell, 16, 5, (32, 32, 3)) == 1_531_546
    odd = DenseGenotype(("nor_conv_1x1", "skip_connect", "none", "avg_pool_3x3", "none", "nor_conv_3x3"))
    assert network_cost(odd, 10, 4, 1, (9, 11, 1)).parameters == built(odd, 4, 1, (9, 11, 1))


def test_closed_form() -> None:
    """Skip connections in 3 cells of 4 channels on 8x8 images: a normal cell and two reductions."""
    c, n = 4, 64
    stem = 9 * 3 * 3 * c
    cell_0 = (3 * c * c) * 2  # both inputs from the stem
    cell_1 = (3 * c * 2 * c) + (c * 2 * c)  # from the stem and from cell 0, doubled
    skip_1 = 2 * (2 * c) ** 2  # two factorised reductions
    # Cell 2 works at the size of cell 1's output; cell 0's is halved by a factorised reduction.
    cell_2 = (c * 4 * c) + (2 * c * 4 * c)
    skip_2 = 2 * (4 * c) ** 2
    expected = n * (stem + cell_0 + cell_1) + n // 4 * (skip_1 + cell_2) + n // 16 * skip_2 + 4 * c * 10
    cost = network_cost(one_node("skip_connect", "skip_connect"), 10, c, 3, (8, 8, 3))
    assert cost.multiply_adds == expected
    weights = stem + cell_0 + cell_1 + skip_1 + cell_2 + skip_2 + 4 * c * 10
    norms = 2 * (3 * c + c * 2 + 2 * c * 2 + 2 * c * 2 + 4 * c * 2 + 4 * c * 2)
    assert cost.parameters == weights + norms + 10


@pytest.mark.parametrize("name", sorted(IMAGE_SPACES))
def test_parameters_are_those_of_the_supernet_that_is_built(name: str) -> None:
    space = load_space(name)
    weights = {cell: jnp.zeros(space.alpha_shape(cell)) for cell in space.cell_types}
    init = Supernet(space, 10, 6, 5).init
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 11, 9, 2)), weights)["params"]
    assert supernet_cost(space, 10, 6, 5, (11, 9, 2)).parameters == count(params)


# As RobustDARTS' logs print them, in millions, at 16 channels and 8 cells.
@pytest.mark.parametrize(("name", "millions"), [("s1", 0.405), ("s3", 0.665)])
def test_published_supernets(name: str, millions: float) -> None:
    assert round(supernet_cost(load_space(name), 10, 16, 8, (32, 32, 3)).parameters / 1e6, 3) == millions


def test_a_supernet_of_single_candidates_takes_what_the_discrete_network_takes() -> None:
    space = SearchSpace.uniform("one", ("sep_conv_3x3",), num_nodes=1)
    (genotype,) = space.genotypes()
    arguments = (10, 4, 3, (8, 8, 3))
    assert supernet_cost(space, *arguments).multiply_adds == network_cost(genotype, *arguments).multiply_adds


def xla_multiply_adds(x: jax.Array, size: tuple[int, int], stride: tuple[int, int], out: int, groups: int = 1) -> float:
    """XLA's own count for a convolution; the input is padded before, as XLA leaves padded positions out."""
    pads = [(0, 0), (0, 0), *((k // 2, k // 2) for k in size)]
    padded = jax.ShapeDtypeStruct(np.pad(np.empty(x.shape), pads).shape, jnp.float32)
    kernel = jax.ShapeDtypeStruct((out, x.shape[1] // groups, *size), jnp.float32)
    convolve = jax.jit(lambda x, k: lax.conv_general_dilated(x, k, stride, "VALID", feature_group_count=groups))
    return convolve.lower(padded, kernel).cost_analysis()["flops"] / 2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operation", ["sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "conv_7x1_1x7"])
def test_convolutions_take_what_xla_counts(operation: str, stride: int) -> None:
    """Two of the operation in the first cell, which is normal, or in the second, which strides."""
    c = 4 * stride
    x = jnp.zeros((1, c, 8, 8))
    halved = jnp.zeros((1, c, 8 // stride, 8 // stride))
    if operation == "conv_7x1_1x7":
        narrow = jnp.zeros((1, c, 8, 8 // stride))
        expected = xla_multiply_adds(x, (1, 7), (1, stride), c) + xla_multiply_adds(narrow, (7, 1), (stride, 1), c)
    else:
        size = (int(operation[-1]),) * 2
        pointwise = xla_multiply_adds(halved, (1, 1), (1, 1), c)
        expected = xla_multiply_adds(x, size, (stride, stride), c, groups=c) + pointwise
        if operation.startswith("sep"):
            expected += xla_multiply_adds(halved, size, (1, 1), c, groups=c) + pointwise
    names = ("none", operation) if stride == 2 else (operation, "none")
    layers = network_cost(one_node(*names), 10, 4, 3, (8, 8, 3)).layers
    cell = f"cell_{stride - 1}/{operation}"
    assert sum(layer.multiply_adds for layer in layers if layer.name.startswith(cell)) == 2 * expected


def test_unknown_operation() -> None:
    with pytest.raises(InputError, match="unknown operation 'sep_conv_9x9'; choose from"):
        network_cost(one_node("sep_conv_9x9", "skip_connect"), 10, 4, 3, (8, 8, 3))
