"""Do weights survive the way to PyTorch's names and back, and are wrong tensors named?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.interop import from_torch, network_of, to_torch
from jaxdarts.networks import MACROS, DiscreteNetwork, Supernet
from jaxdarts.spaces import SPACES, Architecture, CellSpace, Genotype, SearchSpace, discretise
from tests.images import IMAGE_SPACES

GOLDEN = Path(__file__).parent / "golden"
SPACES_TO_TRY = {
    **IMAGE_SPACES,
    "two nodes, last one out": SearchSpace.uniform("x", ("max_pool_3x3", "dil_conv_5x5"), num_nodes=2, concat=(3,)),
    "all": SearchSpace.uniform("all", ("conv_7x1_1x7", "sep_conv_7x7", "noise", "none", "avg_pool_3x3"), num_nodes=1),
    "plain": SearchSpace.uniform("plain", ("nor_conv_1x1", "nor_conv_3x3"), num_nodes=1),
    "ragged": SearchSpace("ragged", 1, (("skip_connect",), ("none", "sep_conv_3x3")), (("dil_conv_3x3",),) * 2, (2,)),
}


def random_variables(network: Supernet | DiscreteNetwork, image_channels: int = 3) -> Any:
    """Variables of the right shapes, every number different."""
    images = jnp.zeros((1, 8, 8, image_channels))
    arguments = (
        [{cell: jnp.zeros(network.space.alpha_shape(cell)) for cell in network.space.cell_types}]
        if isinstance(network, Supernet)
        else []
    )
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, *arguments, key=jax.random.key(1)))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.random(leaf.shape).astype(np.float32), shapes)


def assert_same(found: Any, expected: Any) -> None:
    assert str(jax.tree.structure(found)) == str(jax.tree.structure(dict(expected)))
    jax.tree.map(np.testing.assert_array_equal, found, dict(expected))


def some_genotype(space: CellSpace) -> Architecture:
    random = np.random.default_rng(1)
    return discretise(space, {cell: random.random(space.alpha_shape(cell)) for cell in space.cell_types})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in sorted(SPACES_TO_TRY)),
        *(("s3", {"partial_channels": parts, "auxiliary_skip": skip}) for parts in (1, 2) for skip in (False, True)),
    ],
)
def test_search_network_round_trip(name: str, options: dict[str, Any]) -> None:
    space = SPACES_TO_TRY[name]
    network = Supernet(space, num_classes=7, channels=2, num_cells=4, **options)
    variables = random_variables(network, image_channels=1)
    state = to_torch(network, variables)
    assert network_of(space, state) == network
    assert sum(x.size for n, x in state.items() if not n.endswith("num_batches_tracked")) == sum(
        leaf.size for leaf in jax.tree.leaves(variables)
    )
    assert_same(from_torch(space, state), variables)


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize("name", sorted(SPACES_TO_TRY))
def test_discrete_network_round_trip(name: str, auxiliary: bool) -> None:
    genotype = some_genotype(SPACES_TO_TRY[name])
    auxiliary = auxiliary and MACROS[genotype.macro].auxiliary
    network = DiscreteNetwork(genotype, num_classes=7, channels=2, num_cells=3, auxiliary=auxiliary)
    variables = random_variables(network)
    state = to_torch(network, variables)
    assert network_of(genotype, state) == network
    assert_same(from_torch(genotype, state), variables)


@pytest.fixture(scope="module")
def s1() -> dict[str, np.ndarray]:
    """The reference's own names and shapes."""
    with np.load(GOLDEN / "search_s1.npz") as file:
        return {n.removeprefix("params/"): file[n] for n in file.files if n.startswith("params/")}


@pytest.fixture(scope="module")
def evaluated() -> tuple[Genotype, dict[str, np.ndarray]]:
    with np.load(GOLDEN / "evaluate_darts_v2.npz") as file:
        state = {n.removeprefix("state/"): file[n] for n in file.files if n.startswith("state/")}
        return Genotype.from_json(json.loads(str(file["meta"]))["genotype"]), state


def test_reference_search_state(s1: dict[str, np.ndarray]) -> None:
    space = SPACES["s1"]
    variables = from_torch(space, s1)
    network = network_of(space, s1)
    assert (network.channels, network.num_cells, network.num_classes) == (4, 3, 10)
    back = to_torch(network, variables)
    for name, array in s1.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
        assert back[name].dtype == array.dtype
    # Without running statistics these start at PyTorch's initial values.
    for name, array in back.items():
        if name not in s1:
            np.testing.assert_array_equal(array, float(name.endswith("running_var")), err_msg=name)


def test_reference_evaluation_state(evaluated: tuple[Genotype, dict[str, np.ndarray]]) -> None:
    genotype, state = evaluated
    back = to_torch(network_of(genotype, state), from_torch(genotype, state))
    assert set(back) == set(state)
    for name, array in state.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_prefix_of_parallel_training_is_dropped(s1: dict[str, np.ndarray]) -> None:
    prefixed = {f"module.{name}": array for name, array in s1.items()}
    assert_same(from_torch(SPACES["s1"], prefixed), from_torch(SPACES["s1"], s1))


CONV = "cells.0._ops.3._ops.1.op.2.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(CONV), f"1 tensors are missing, the first is '{CONV}'"),
        (lambda s: s.pop("classifier.weight"), "no tensor 'classifier.weight'"),
        (lambda s: s.pop("classifier.bias"), "missing, the first is 'classifier.bias'"),
        (lambda s: s.pop("stem.0.weight"), "no tensor 'stem.0.weight'"),
        (lambda s: s.update(extra=np.ones(1)), "1 tensors have no place, the first is 'extra'"),
        (lambda s: s.update({"cells.0._ops.0._ops.0.op.1.weight": np.ones(1)}), "no place.*cells.0._ops.0._ops.0"),
        (lambda s: s.update({"cells.x.weight": np.ones(1)}), "cells.x.weight"),
        (lambda s: s.update({CONV: s[CONV][:, :2]}), CONV),
        (lambda s: s.update({CONV: s[CONV][0]}), CONV),
        (lambda s: s.update({"stem.1.weight": np.ones(5)}), "stem.1.weight"),
        (lambda s: s.update({"stem.0.weight": s["stem.0.weight"][0]}), "stem.0.weight"),
        (lambda s: s.update({"stem.0.weight": s["stem.0.weight"][:11]}), "stem.0.weight"),
        (lambda s: s.update({"classifier.weight": np.ones((10, 3))}), "classifier.weight"),
        (lambda s: s.update({"classifier.bias": np.ones(3)}), "classifier.bias"),
        (lambda s: s.update({"cells.0.preprocess0.op.1.weight": np.ones((4, 11, 1, 1))}), "cells.0.preprocess0.op.1"),
        (lambda s: s.clear(), "stem.0.weight"),
    ],
)
def test_wrong_tensors_are_named(s1: dict[str, np.ndarray], change: Callable[[Any], Any], message: str) -> None:
    state = dict(s1)
    change(state)
    with pytest.raises(InputError, match=message) as caught:
        from_torch(SPACES["s1"], state)
    assert "\n" not in str(caught.value)


def test_state_of_another_space(s1: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="state_dict: .*cells.0._ops.0"):
        from_torch(SPACES["s2"], s1)


def test_running_statistics_are_all_or_none(evaluated: tuple[Genotype, dict[str, np.ndarray]]) -> None:
    genotype, state = evaluated
    partial = {name: array for name, array in state.items() if name != "stem.1.running_mean"}
    with pytest.raises(InputError, match="missing, the first is 'stem.1.running_mean'"):
        from_torch(genotype, partial)
    none = {name: array for name, array in state.items() if "running" not in name}
    started, given = from_torch(genotype, none), from_torch(genotype, state)
    assert str(jax.tree.structure(started)) == str(jax.tree.structure(given))


SMALL = SearchSpace.uniform("small", ("skip_connect", "sep_conv_3x3"), num_nodes=1)


@pytest.fixture(scope="module")
def small() -> tuple[Any, dict[str, np.ndarray]]:
    network = Supernet(SMALL, num_classes=3, channels=2, num_cells=3)
    variables = random_variables(network)
    return variables, to_torch(network, variables)


@pytest.mark.parametrize(
    "prefix", ["module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("names", [(), ("state_dict",), ("model",), ("model_state_dict",), ("state_dict", "network")])
def test_what_saving_and_wrapping_put_around(small: Any, prefix: str, names: tuple[str, ...]) -> None:
    variables, given = small
    given = {prefix + name: value for name, value in given.items()}
    for name in names:
        given = {"epoch": 3, name: given, "optimizer": {"state": {}}}
    assert network_of(SMALL, given).channels == 2
    assert_same(from_torch(SMALL, given), variables)


def test_checkpoints_that_are_named_instead(small: Any) -> None:
    given = small[1]
    for wrong, message in (
        ({"weights": given, "epoch": 1}, "no tensors, but objects named 'weights'; give the one of the weights"),
        ({f"net.{name}": value for name, value in given.items()}, "'net.stem.0.weight' is there: drop what stands"),
        ({"a": np.ones(1)}, "the first is 'a'"),
        ({}, "the first is None"),
        ({"module.stem.0.weight": 0, **given}, "'stem.0.weight' and another tensor both come to the name"),
    ):
        with pytest.raises(InputError, match=message):
            from_torch(SMALL, wrong)


SPARSE = Genotype.from_text(  # an edge leads away from state 3, to which none leads
    "Genotype([('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 0), ('dil_conv_3x3', 4, 3), ('skip_connect', 4, 1)], "
    "range(2, 5), [('skip_connect', 2, 1), ('sep_conv_3x3', 3, 2), ('avg_pool_3x3', 4, 0)], range(2, 5))"
)


def test_names_of_a_genotype_that_lacks_edges() -> None:
    """Those of FairDARTS; what its code holds and never computes is passed over, anything else is named."""
    network = DiscreteNetwork(SPARSE, num_classes=7, channels=2, num_cells=3, auxiliary=True)
    variables = random_variables(network)
    state = to_torch(network, variables)
    edges = {name.split(".")[3] + name.split(".")[4] + name.split(".")[5] for name in state if ".0._ops." in name}
    assert edges == {"200", "201"}
    assert {"cells.1._ops.2.1.0.conv_1.weight", "cells.2._ops.3.2.0.op.7.bias"} <= set(state)
    assert network_of(SPARSE, state) == network
    assert_same(from_torch(SPARSE, state), variables)
    unused = {"cells.0._ops.4.3.0.op.1.weight": np.ones((2, 1, 3, 3))}
    assert_same(from_torch(SPARSE, state | unused), variables)
    for name in ("cells.1._ops.4.3.0.op.1.weight", "cells.0._ops.4.9.0.op.1.weight", "cells.7._ops.4.3.0.op.1.weight"):
        with pytest.raises(InputError, match="no place|missing"):
            from_torch(SPARSE, state | {name: np.ones(1)})


def test_fair_darts_names_of_a_genotype_with_two_edges_a_node() -> None:
    genotype = Genotype((("sep_conv_3x3", 1), ("sep_conv_3x3", 0)), (2,), (("skip_connect", 0), ("none", 1)), (2,))
    network = DiscreteNetwork(genotype, num_classes=7, channels=2, num_cells=3, auxiliary=False)
    variables = random_variables(network)
    sources = {"0": {"0": 1, "1": 0}, "1": {"0": 0}, "2": {"0": 0}}  # of the operations with weights, by cell
    renamed = {}
    for name, value in to_torch(network, variables).items():
        parts = name.split(".")
        if "_ops" in parts:
            parts[3:4] = ["2", str(sources[parts[1]][parts[3]]), "0"]
        renamed[".".join(parts)] = value
    assert any("_ops.2.1.0.op" in name for name in renamed) and any("_ops.2.0.0.conv" in name for name in renamed)
    assert_same(from_torch(genotype, renamed), variables)
