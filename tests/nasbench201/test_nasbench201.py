"""Does a search of NAS-Bench-201 look its cells up, and do baselines and conversion work on tables made by us?"""

from __future__ import annotations

import bz2
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from jaxdarts import benchmark as command
from jaxdarts.errors import InputError
from jaxdarts.evaluate import run_evaluation
from jaxdarts.nasbench201 import official_files as nasbench201_files
from jaxdarts.nasbench201.baselines import BASELINES, run_baselines
from jaxdarts.reports.sweep_record import read_result
from jaxdarts.search import run_search
from jaxdarts.spaces import Benchmark, DenseGenotype
from jaxdarts.spaces.nasbench201 import NUM_CELLS, cells
from tests.runs.comparing import without_times
from tests.runs.tiny import tiny_config, tiny_evaluation


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More convolutions are better, a little more so on one edge than on the next."""
    weights = np.linspace(1, 2, 6)
    scores = np.array(
        [sum(w for w, name in zip(weights, cell.cell, strict=True) if "conv" in name) for cell in cells()]
    )
    path = tmp_path_factory.mktemp("table") / "table.npz"
    Benchmark({"cifar10_test_200": 10 * scores, "cifar10_valid_12": 9 * scores}).save(path)
    return path


def test_every_epochs_cell_is_looked_up(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, space="nasbench201", method="random", cells=1, benchmark=str(table))
    result = run_search(config, tmp_path / "run")
    (record,) = result.metrics
    assert record["benchmark"] == Benchmark.load(table).look_up(result.genotype)
    assert read_result(result.run_dir)["benchmark/cifar10/accuracy"] == record["benchmark"]["cifar10"]["accuracy"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Benchmark accuracy of each epoch" in report and "By the benchmark" in report and "Regret" in report
    monkeypatch.setenv("JAXDARTS_NASBENCH201", str(table))
    again = run_search(tiny_config(tmp_path, space="nasbench201", method="random", cells=1), tmp_path / "again")
    assert without_times(again.metrics) == without_times(result.metrics)
    # Another space has nothing to do with the variable, but may not ask for the table.
    assert "benchmark" not in run_search(tiny_config(tmp_path, method="random"), tmp_path / "other").metrics[0]
    with pytest.raises(InputError, match="is about the cells of nasbench201; space 'tiny' has none"):
        run_search(tiny_config(tmp_path, benchmark=str(table)), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_whole_search_and_evaluation(table: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, space="nasbench201", cells=1, benchmark=str(table), curvature_every=0, spectrum_size=0
    )
    result = run_search(config, tmp_path / "run")
    assert isinstance(result.genotype, DenseGenotype)
    assert np.shape(result.metrics[-1]["alpha"]["cell"]) == (6, 5)
    assert json.loads((tmp_path / "run" / "genotype.json").read_text()) == {"architecture": result.genotype.to_text()}
    evaluation = tiny_evaluation(tmp_path, genotype=str(tmp_path / "run"), cells=1, epochs=1)
    trained = run_evaluation(evaluation, tmp_path / "evaluation")
    assert trained.genotype == result.genotype and trained.metrics[0]["auxiliary_loss"] is None


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_query_as_many_cells_as_asked_for(name: str, table: Path) -> None:
    if name == "bayesian":
        pytest.importorskip("optuna")
    read = Benchmark.load(table)
    scores = read.columns["cifar10_test_200"]
    one = BASELINES[name](lambda index: float(scores[index]), 12, np.random.default_rng(0))
    again = BASELINES[name](lambda index: float(scores[index]), 12, np.random.default_rng(0))
    assert one == again and len(one) == 12 and all(0 <= index < NUM_CELLS for index in one)
    curve = run_baselines(read, [name], budget=12, repetitions=3)[name]
    assert (np.diff(curve.mean) >= 0).all() and (curve.low <= curve.mean).all() and (curve.mean <= scores.max()).all()


def test_evolution_beats_random_search_where_neighbours_are_alike(table: Path) -> None:
    curves = run_baselines(Benchmark.load(table), ["random", "evolution"], budget=150, repetitions=10)
    assert curves["evolution"].low[-1] > curves["random"].high[-1]


def test_commands(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command.main(["baselines", str(table), "--budget", "5", "--repetitions", "2", "--out", str(out)]) == 0
    assert len((out / "baselines.csv").read_text().splitlines()) == 1 + 2 * 5 and (out / "baselines.svg").exists()
    for wrong in (
        ["baselines", str(table), "--methods", "grid"],
        ["baselines", str(table), "--budget", "0"],
        ["baselines", str(table), "--data-set", "cifar100"],
        ["baselines", str(tmp_path / "missing.npz")],
        ["convert", str(tmp_path / "missing"), str(out / "table.npz")],
        [],
    ):
        capsys.readouterr()
        assert command.main(wrong) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


class Weights:
    """Stands for what the official files hold beside numbers, which must not be made or run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("was run",)


def official(index: int, accuracy: float) -> dict[str, object]:
    """What the benchmark's files hold of one cell: two seeds, of which only the last epoch counts."""
    sets = {"cifar10-valid": "x-valid", "cifar10": "ori-test", "ImageNet16-120": "x-test"}

    def trial(part: str, value: float) -> dict[str, object]:
        return {
            "epochs": 200,
            "eval_acc1es": {f"{part}@0": 1.0, f"{part}@199": value},
            "net_state_dict": Weights(),
        }

    return {
        "200": {
            "arch_index": index,
            "arch_str": cells()[index].to_text(),
            "dataset_seed": {name: [777, 888] for name in sets},
            "all_results": {
                (name, seed): trial(part, accuracy + (seed == 888))
                for name, part in sets.items()
                for seed in (777, 888)
            },
        }
    }


def test_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Synthetic files in the official layout; the real ones are too large for a test."""
    folder = tmp_path / "NATS-tss"
    folder.mkdir()
    monkeypatch.setattr(nasbench201_files, "_find", lambda folder, index: folder / f"{index % 3:06d}.pickle.pbz2")
    for index in range(3):
        with bz2.open(folder / f"{index:06d}.pickle.pbz2", "wb") as file:
            pickle.dump(official(index, 20.0 + index), file)
    found = dict(nasbench201_files._accuracies(folder / "000001.pickle.pbz2", 1))
    assert found == {"cifar10_valid_200": 21.5, "cifar10_test_200": 21.5, "imagenet16_120_test_200": 21.5}
    assert "was run" not in capsys.readouterr().out
    with pytest.raises(InputError, match="000000.pickle.pbz2' is not understood: is of cell 0 .*, not of 3"):
        nasbench201_files.convert(folder, tmp_path / "table.npz")
    monkeypatch.setattr(nasbench201_files, "NUM_CELLS", 3)
    with pytest.raises(InputError, match=r"has shape \(3,\); expected \(15625,\)"):  # all files were read
        nasbench201_files.convert(folder, tmp_path / "table.npz")
    assert not (tmp_path / "table.npz").exists()


def test_folders_that_cannot_be_converted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks the file 000000.pickle.pbz2"):
        nasbench201_files.convert(tmp_path, tmp_path / "table.npz")
    (tmp_path / "000000.pickle.pbz2").write_bytes(b"text")
    with pytest.raises(InputError, match="000000.pickle.pbz2' is not understood"):
        nasbench201_files.convert(tmp_path, tmp_path / "table.npz")
    with pytest.raises(InputError, match="must be an .npz file"):
        nasbench201_files.convert(tmp_path, tmp_path / "table.csv")
