"""How many parameters and multiply-adds do a genotype's network and a supernet have?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdarts.errors import unknown_choice
from jaxdarts.networks.macro import MACROS, Macro
from jaxdarts.networks.operations import OPERATIONS
from jaxdarts.spaces import Architecture, CellSpace


class LayerCost(NamedTuple):
    """One linear layer and the batch norm or bias that follows it.

    A kernel is applied at `positions` positions of one image, so it takes weights times positions multiply-adds.
    """

    name: str
    weights: int  # of the kernels
    positions: int
    others: int  # parameters that are no kernel's: scale and bias of the batch norm, or the linear layer's bias

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return self.weights * self.positions


class NetworkCost(NamedTuple):
    """The size of a network, in the conventions of `network_cost` and `supernet_cost`."""

    parameters: int
    multiply_adds: int  # of one image; the number of floating-point operations is twice this
    layers: tuple[LayerCost, ...]


def network_cost(
    genotype: Architecture, num_classes: int, channels: int, num_cells: int, image_shape: tuple[int, int, int]
) -> NetworkCost:
    """Parameters and multiply-adds of `DiscreteNetwork`, layer by layer from the genotype; nothing is computed.

    Conventions, those of the papers' tables: the network as it classifies, without the auxiliary head (Liu et al.
    2019 count the same). Multiply-adds are those of convolutions and of the linear layer for one image, a padded
    position counting like any other; batch norms, pools, activations and sums are left out, and no form in which a
    convolution may be computed is looked at.

    Args:
      image_shape: height, width, channels.
    """

    def cell(cell_type: str) -> _Cell:
        return _Cell(genotype.edges(cell_type), len(genotype.concat(cell_type)))

    shape = _Shape(genotype.macro, genotype.num_inputs, affine=True)
    return _total(_layers(cell, shape, num_classes, channels, num_cells, image_shape))


def supernet_cost(
    space: CellSpace, num_classes: int, channels: int, num_cells: int, image_shape: tuple[int, int, int]
) -> NetworkCost:
    """The same of `Supernet`, which computes every candidate of every edge; alpha and the mixing are not counted.

    A gradient takes about three times as many multiply-adds as a classification, an exact second-order step of DARTS
    about 15 times: three gradients, and a Hessian-vector product that is worth two.

    Args:
      image_shape: height, width, channels.
    """

    def cell(cell_type: str) -> _Cell:
        candidates = zip(space.edges, space.operations(cell_type), strict=True)
        return _Cell(tuple((name, source) for (_, source), names in candidates for name in names), len(space.concat))

    shape = _Shape(space.macro, space.num_inputs, affine=False)
    return _total(_layers(cell, shape, num_classes, channels, num_cells, image_shape))


def candidate_costs(
    space: CellSpace, channels: int, num_cells: int, image_shape: tuple[int, int, int]
) -> list[tuple[str, list[list[tuple[LayerCost, ...]]]]]:
    """The layers of every candidate as a genotype's network has them: for each cell its type, by edge and operation.

    Conventions of `network_cost`. Lists of an edge are as long as alpha's rows, those of entries that pad are empty.
    """
    found = []
    for block in _blocks(MACROS[space.macro], num_cells, channels, image_shape[:2]):
        if block.cell_type is None:
            continue
        width = space.alpha_shape(block.cell_type)[1]
        edges = [
            [tuple(_of_cell(block, name, source)) for name in names] + [()] * (width - len(names))
            for (_, source), names in zip(space.edges, space.operations(block.cell_type), strict=True)
        ]
        found.append((block.cell_type, edges))
    return found


class _Block(NamedTuple):
    number: int
    cell_type: str | None  # None: a residual block
    features: int
    reduction: bool
    size: tuple[int, int]  # height and width of its input
    halved: tuple[int, int]

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of its output."""
        return self.halved if self.reduction or self.cell_type is None else self.size


def _blocks(macro: Macro, num_cells: int, channels: int, size: tuple[int, int]) -> Iterator[_Block]:
    for index, (cell_type, features, reduction, _) in enumerate(macro.blocks(num_cells, channels)):
        height, width = size
        block = _Block(index, cell_type, features, reduction, size, (-(-height // 2), -(-width // 2)))
        yield block
        size = block.out


def _of_cell(block: _Block, operation: str, source: int) -> Iterator[LayerCost]:
    """The layers of one operation that reads a state of a cell."""
    stride = 2 if block.reduction and source < 2 else 1
    rows = block.size[0] if stride == 2 or not block.reduction else block.halved[0]
    for number, layer in enumerate(_operation(operation, block.features, stride, rows, block.out), start=1):
        yield layer._replace(name=f"cell_{block.number}/{operation}_from_{source}_{number}")


class _Cell(NamedTuple):
    operations: tuple[tuple[str, int], ...]  # (name, source state)
    concatenated: int  # nodes in its output


class _Shape(NamedTuple):
    macro: str
    num_inputs: int  # of a cell
    affine: bool  # whether the batch norms of cells have parameters


def _total(layers: Iterator[LayerCost]) -> NetworkCost:
    found = tuple(layers)
    parameters = sum(layer.weights + layer.others for layer in found)
    return NetworkCost(parameters, sum(layer.multiply_adds for layer in found), found)


def _layers(
    cell: Callable[[str], _Cell],
    shape: _Shape,
    num_classes: int,
    channels: int,
    num_cells: int,
    image_shape: tuple[int, int, int],
) -> Iterator[LayerCost]:
    height, width, image_channels = image_shape
    macro = MACROS[shape.macro]
    stem = macro.stem_factor * channels
    yield LayerCost("stem", 9 * image_channels * stem, height * width, 2 * stem)
    before_channels = last_channels = stem
    for block in _blocks(macro, num_cells, channels, (height, width)):
        index, cell_type, features = block.number, block.cell_type, block.features
        height, width = block.size if cell_type is not None else block.out
        if cell_type is None:
            for number, inputs in enumerate((last_channels, features), start=1):
                name = f"cell_{index}/conv_{number}"
                yield LayerCost(name, 9 * inputs * features, height * width, 2 * features)
            yield LayerCost(f"cell_{index}/shortcut", last_channels * features, height * width, 0)
            before_channels, last_channels = last_channels, features
            continue
        others = 2 * features if shape.affine else 0
        # The first input is brought to the second one's size by a stride where the cell before was a reduction.
        for number, inputs in enumerate((before_channels, last_channels) if shape.num_inputs == 2 else ()):
            name = f"cell_{index}/preprocess_{number}"
            yield LayerCost(name, inputs * features, height * width, others)
        for operation, source in cell(cell_type).operations:
            for layer in _of_cell(block, operation, source):
                yield layer._replace(others=layer.others if shape.affine else 0)
        height, width = block.out
        before_channels, last_channels = last_channels, features * cell(cell_type).concatenated
    if macro.final_norm:
        yield LayerCost("classifier/norm", 0, height * width, 2 * last_channels)
    yield LayerCost("classifier", last_channels * num_classes, 1, num_classes)


def _operation(name: str, channels: int, stride: int, rows: int, size: tuple[int, int]) -> Iterator[LayerCost]:
    """The layers of an operation, each followed by a batch norm.

    `rows` is the height of the state that it reads, `size` the height and width of its result.
    """
    if name not in OPERATIONS:
        raise unknown_choice("operation", name, OPERATIONS)
    height, width = size
    if name == "conv_7x1_1x7":
        # The 1x7 convolution comes first and strides along the width only: it sees every row of the state.
        yield LayerCost(name, 7 * channels**2, rows * width, 0)
        yield LayerCost(name, 7 * channels**2, height * width, 2 * channels)
        return
    for module in OPERATIONS[name](stride).layers:
        x = jax.ShapeDtypeStruct((1, channels, 4, 4, 1), jnp.float32)
        shapes: Any = jax.eval_shape(module(edges=1).init, jax.random.key(0), x)["params"]
        weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
        yield LayerCost(name, weights, height * width, 2 * channels)
