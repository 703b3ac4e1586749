"""Are numbers taken whoever made them, and is nothing else taken for one?"""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts.curvature import dominant_eigenvalue
from jaxdarts.errors import InputError
from jaxdarts.plans.search_settings import SearchConfig
from jaxdarts.plans.training_settings import EvaluateConfig, TabulateConfig
from jaxdarts.spaces import DenseGenotype, DenseSpace, Genotype, SearchSpace, find_genotype
from jaxdarts.spaces.nasbench201 import cells, parse_index
from jaxdarts.values import number, plain, whole

TWOS = [2, np.int64(2), np.uint8(2), np.array(2), jnp.asarray(2)]


@pytest.mark.parametrize("value", TWOS)
def test_whole_numbers(value: Any) -> None:
    assert whole(value) == 2 and type(whole(value)) is int
    assert number(value) == 2.0 and type(number(value)) is float
    assert plain(value) == 2 and type(plain(value)) is int


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), jnp.asarray(0.5)])
def test_other_numbers(value: Any) -> None:
    assert whole(value) is None and number(value) == 0.5 and type(plain(value)) is float


@pytest.mark.parametrize("value", [True, np.True_, "2", None, [2], np.array([2]), 2j])
def test_what_is_no_number(value: Any) -> None:
    assert whole(value) is None and number(value) is None
    assert type(plain(np.True_)) is bool and plain(np.str_("a")) == "a"


def test_traced_values_are_none() -> None:
    jax.eval_shape(lambda x: [pytest.fail("a traced value has no number") for f in (whole, number) if f(x)], 2)


@pytest.mark.parametrize("two", TWOS)
def test_wherever_python_s_are(two: Any) -> None:
    one, pair = two - 1, [("skip_connect", two - 2), ("noise", two - 1)]
    genotype = Genotype(pair, [two], np.array(pair, object), np.arange(2, 3))
    assert genotype == Genotype(pair := (("skip_connect", 0), ("noise", 1)), (2,), pair, (2,))
    assert find_genotype(json.dumps(genotype.to_json())) == genotype
    space = SearchSpace.uniform("t", np.array(["skip_connect", "noise"]), num_nodes=one, concat=[two])
    assert space == SearchSpace.uniform("t", ("skip_connect", "noise"), num_nodes=1)
    json.dumps(space.to_json())
    dense = DenseSpace.uniform("d", np.array(["none", "noise"]), num_nodes=two)
    assert json.dumps(dense.to_json()) == json.dumps(DenseSpace.uniform("d", ("none", "noise"), num_nodes=2).to_json())
    assert json.dumps(DenseGenotype(np.array(["none"])).to_json()) == '{"architecture": "|none~0|"}'
    assert parse_index(two) == cells()[2]
    x = jnp.array([0.3, -0.2])
    found = dominant_eigenvalue(lambda a: jnp.sum(a**4), x, jax.random.key(0), two)
    assert np.isclose(found.value, 12 * 0.3**2, rtol=1e-4)


@pytest.mark.parametrize("config_type", [SearchConfig, EvaluateConfig, TabulateConfig])
def test_configurations(config_type: Any) -> None:
    """They hold Python's own, so that config.json can be written."""
    values: dict[str, Any] = {"genotype": "DARTS_V2"} if config_type is EvaluateConfig else {}
    values |= {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "flip": np.False_, "seed": jnp.asarray(4)}
    plain = {**values, "epochs": 3, "learning_rate": 0.5, "flip": False, "seed": 4}
    given, same = config_type(**values), config_type(**plain)
    assert given == same and json.dumps(given.flat()) == json.dumps(same.flat())
    assert json.dumps(dict(given.given)) and given.replace(epochs=np.int8(5)).epochs == 5


def test_wrong_numbers_are_refused() -> None:
    SearchConfig(epochs=np.int64(3))
    for epochs, said in ((np.float64(1.5), "1.5"), (np.True_, "True"), (np.array([1, 2]), r"array\(\[1, 2\]\)")):
        with pytest.raises(InputError, match=f"epochs must be a whole number; got {said}"):
            SearchConfig(epochs=epochs)
    with pytest.raises(InputError, match="learning_rate must be a finite number; got nan"):
        EvaluateConfig(genotype="DARTS_V2", learning_rate=np.float32("nan"))
    with pytest.raises(InputError, match="num_nodes must be a whole number of at least 1; got 1.5"):
        SearchSpace.uniform("t", ("noise",), num_nodes=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"state 2 cannot read from np.int64\(2\)"):
        Genotype([("noise", np.int64(2)), ("noise", 0)], [2], [("noise", 0), ("noise", 0)], [2])
