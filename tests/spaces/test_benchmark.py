"""Does a table of NAS-Bench-201 say of every cell what is in it, and is what is no table refused?"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.errors import InputError
from jaxdarts.spaces import GENOTYPES, Benchmark
from jaxdarts.spaces.nasbench201 import NUM_CELLS, cells


def table(**changes: np.ndarray) -> Benchmark:
    """Accuracies that follow from the index: every cell differs from its neighbours in the table."""
    grid = np.arange(NUM_CELLS) / NUM_CELLS
    columns = {"cifar10_test_200": 90 * grid, "cifar10_test_12": 50 * grid, "cifar100_test_12": 70 * grid[::-1]}
    return Benchmark({name: np.asarray(values) for name, values in (columns | changes).items()})


def test_look_up() -> None:
    found = table().look_up(cells()[NUM_CELLS - 1])
    assert found["index"] == NUM_CELLS - 1
    assert set(found) == {"index", "cifar10", "cifar100"}
    assert found["cifar10"] == {"accuracy": pytest.approx(0.9 * (NUM_CELLS - 1) / NUM_CELLS), "rank": 1, "regret": 0}
    assert found["cifar100"]["rank"] == NUM_CELLS and found["cifar100"]["accuracy"] == 0
    assert found["cifar100"]["regret"] == pytest.approx(0.7 * (NUM_CELLS - 1) / NUM_CELLS)
    flat = table(cifar10_test_200=np.repeat([10.0, 20.0], [NUM_CELLS - 2, 2]))
    assert [flat.look_up(cells()[index])["cifar10"]["rank"] for index in (-1, -2, 0)] == [1, 1, 3]
    with pytest.raises(InputError, match="does not belong to space 'nasbench201'"):
        flat.look_up(GENOTYPES["DARTS_V2"])


def test_files(tmp_path: Path) -> None:
    written = table()
    written.save(tmp_path / "table.npz")
    names = list(written.columns)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["architecture", *names])
        for index in np.random.default_rng(0).permutation(NUM_CELLS):
            writer.writerow([cells()[index].to_text(), *(repr(float(written.columns[name][index])) for name in names)])
    for path in (tmp_path / "table.npz", tmp_path / "table.csv"):
        read = Benchmark.load(path)
        assert set(read.columns) == set(names)
        for name in names:
            np.testing.assert_allclose(read.columns[name], written.columns[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npz", None, "No such file"),
        ("table.txt", b"", "must be an .npz or a .csv file"),
        ("table.npz", b"text", "cannot read"),
        ("table.npz", {"x": np.zeros(3)}, "no column of accuracies"),
        ("table.npz", {"cifar10_test_200": np.zeros(3)}, r"shape \(3,\); expected \(15625,\)"),
        ("table.npz", {"cifar10_test_200": np.full(NUM_CELLS, np.nan)}, "no accuracy in percent"),
        ("table.npz", {"cifar10_test_200": np.zeros(NUM_CELLS), "arch": np.zeros((NUM_CELLS, 6))}, "official order"),
        ("table.csv", b"cifar10_test_200\n3\n", "no column 'architecture'"),
        ("table.csv", b"architecture,cifar10_test_200\n", "has 0 different cells"),
        ("table.csv", b"architecture,cifar10_test_200\n|none~0|,3\n", "it has 1 nodes a cell"),
    ],
)
def test_what_is_no_table(name: str, content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    with pytest.raises(InputError, match=message) as caught:
        Benchmark.load(path)
    assert str(path) in str(caught.value)
