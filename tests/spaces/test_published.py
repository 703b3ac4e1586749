"""Are the published genotypes whole, and in the spaces in which they were found?"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxdarts.errors import InputError
from jaxdarts.networks import OPERATIONS, DiscreteNetwork
from jaxdarts.spaces import DARTS, GENOTYPES, RNN, S1, Genotype, find_genotype, genotype_from_json
from jaxdarts.spaces.files import genotype_from_text
from tests.images import IMAGE_GENOTYPES


@pytest.mark.parametrize("name", sorted(GENOTYPES))
def test_every_genotype_is_written_and_read(name: str) -> None:
    genotype = find_genotype(name, OPERATIONS)
    assert genotype_from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
    assert genotype_from_text(genotype.to_text()) == genotype


@pytest.mark.parametrize("name", sorted(IMAGE_GENOTYPES))
def test_every_genotype_of_images_is_built(name: str) -> None:
    genotype = find_genotype(name, OPERATIONS)
    network, images = DiscreteNetwork(genotype, 3, 2, 3), jnp.zeros((4, 16, 16, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    train = partial(network.apply, train=True, drop_path=0.2, key=jax.random.key(1), mutable=["batch_stats"])
    (scores, auxiliary), _ = jax.eval_shape(train, variables, images)
    assert scores.shape == auxiliary.shape == (4, 3)


@pytest.mark.parametrize("name", sorted(GENOTYPES))
def test_found_in_the_space_that_the_paper_names(name: str) -> None:
    if name in ("DARTS_V1_RNN", "DARTS_V2_RNN"):
        RNN.check_genotype(GENOTYPES[name])
    elif name == "ENAS":  # a larger recurrent one
        with pytest.raises(InputError, match="it has 11 nodes a cell, the space 8"):
            RNN.check_genotype(GENOTYPES[name])
    elif name.startswith("DARTS"):
        DARTS.check_genotype(GENOTYPES[name])
    elif "_S1_" in name:
        S1.check_genotype(GENOTYPES[name])
    else:  # older spaces, with five nodes
        with pytest.raises(InputError, match="it has 5 nodes a cell, the space 4"):
            DARTS.check_genotype(GENOTYPES[name])


def test_cells_of_different_widths() -> None:
    """NASNet-A concatenates five states in its normal cell and three in its reduction cell."""
    assert GENOTYPES["NASNet-A"].normal_concat == (2, 3, 4, 5, 6)
    assert GENOTYPES["NASNet-A"].reduce_concat == (4, 5, 6)
    assert GENOTYPES["AmoebaNet-A"].reduce_concat == (3, 4, 6)
    assert {"sep_conv_7x7", "conv_7x1_1x7"} <= set(GENOTYPES["AmoebaNet-A"].operations)


def test_darts_without_regularisation_found_skip_connections() -> None:
    for seed in (1, 2, 3):
        assert GENOTYPES[f"RobustDARTS_S1_L2_3e-4_{seed}"].count("skip_connect")["normal"] >= 7
        assert GENOTYPES[f"RobustDARTS_S1_L2_81e-4_{seed}"].count("skip_connect")["normal"] <= 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("DARTS_V3", "unknown genotype 'DARTS_V3'; choose from AmoebaNet-A, .*path/to/run .did you mean 'DARTS_V2'"),
        ("cells.json", "genotype: cannot read 'cells.json': No such file"),
        ("runs/s1", "genotype: cannot read 'runs/s1': No such file"),
        ("empty", "genotype: the folder 'empty' holds no genotype.json"),
        ("other.json", "unknown operation in genotype 'other.json': 'sep_conv_9x9'; choose from"),
        ("input.json", "genotype 'input.json': reduce_concat holds the cell's input 1"),
        ("broken.txt", "genotype: cannot read 'Genotype.normal="),
    ],
)
def test_what_is_no_genotype_is_named(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "other.json": Genotype((("sep_conv_9x9", 0), ("skip_connect", 1)), (2,), (("skip_connect", 0),) * 2, (2,)),
        "input.json": Genotype((("skip_connect", 0),) * 2, (1, 2), (("skip_connect", 0),) * 2, (1, 2)),
    }
    for name, genotype in files.items():
        Path(name).write_text(json.dumps(genotype.to_json()))
    Path("broken.txt").write_text("Genotype(normal=[")
    Path("empty").mkdir()
    with pytest.raises(InputError, match=f"^{message}") as caught:
        find_genotype(source, OPERATIONS)
    assert "\n" not in str(caught.value)


def test_from_a_runs_folder_and_from_text(tmp_path: Path) -> None:
    (tmp_path / "genotype.json").write_text(json.dumps(GENOTYPES["DARTS_V1"].to_json()))
    (tmp_path / "arch.txt").write_text(GENOTYPES["DARTS_V1"].to_text())
    for source in (tmp_path, tmp_path / "genotype.json", tmp_path / "arch.txt"):
        assert find_genotype(str(source), OPERATIONS) == GENOTYPES["DARTS_V1"]
