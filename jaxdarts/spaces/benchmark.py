"""How accurate is every cell of NAS-Bench-201 once it is trained? A table that the user has; none comes with this."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdarts.errors import InputError, unknown_choice
from jaxdarts.paths import read_text
from jaxdarts.spaces.architecture import Architecture
from jaxdarts.spaces.cell import NASBENCH201
from jaxdarts.spaces.dense import DenseGenotype
from jaxdarts.spaces.nasbench201 import NUM_CELLS, OPERATIONS, cell_index, cells

DATA_SETS = ("cifar10", "cifar100", "imagenet16_120")
PARTS = ("valid", "test")
EPOCHS = (200, 12)  # of training; the first one that a table has is looked up


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Accuracies of all 15,625 cells of NAS-Bench-201 (Dong and Yang 2020), in percent.

    A table is an npz file that holds float arrays [15625] in the official order, named `DATASET_PART_EPOCHS`
    (`cifar10_test_200`; the data sets are in DATA_SETS, parts `valid` and `test`, epochs 12 and 200), of which at least
    one is there, and optionally `arch` int[15625, 6], indices of `ops` on the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2,
    which must agree with the official order. Or a csv file whose columns have these names, with a column `architecture`
    of official strings, a row for each cell in any order.
    """

    columns: Mapping[str, np.ndarray]  # float64[15625], percent

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if name not in _NAMES:
                raise unknown_choice("column", name, _NAMES)
            if values.shape != (NUM_CELLS,):
                raise InputError(f"column {name!r} has shape {values.shape}; expected ({NUM_CELLS},), all cells")
            if not (np.isfinite(values).all() and (values >= 0).all() and (values <= 100).all()):
                raise InputError(f"column {name!r} holds values that are no accuracy in percent")
        if not self.columns:
            raise InputError(f"there is no column of accuracies; expected some of {', '.join(_NAMES)}")

    @classmethod
    def load(cls, path: str | Path) -> Benchmark:
        """Reads a table. Raises InputError, naming the file, where it isn't one."""
        path = Path(path)
        if path.suffix not in (".npz", ".csv"):
            raise InputError(f"benchmark: {str(path)!r} must be an .npz or a .csv file; see Benchmark for its columns")
        try:
            return cls(_read_npz(path) if path.suffix == ".npz" else _read_csv(path))
        except InputError as error:
            raise InputError(f"benchmark: {str(path)!r}: {error}") from error
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, csv.Error) as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise InputError(f"benchmark: cannot read {str(path)!r}: {reason}") from error

    def save(self, path: str | Path) -> None:
        """Writes the table as an npz file."""
        codes = np.array([[OPERATIONS.index(name) for name in cell.cell] for cell in cells()], np.uint8)
        np.savez_compressed(path, ops=np.array(OPERATIONS), arch=codes, **_as_floats(self.columns))

    def accuracies(self, data_set: str, part: str = "test") -> np.ndarray | None:
        """Percent, float64[15625], after the longest training that the table has; None where it has none."""
        if data_set not in DATA_SETS:
            raise unknown_choice("data set", data_set, DATA_SETS)
        return next(
            (self.columns[name] for epochs in EPOCHS if (name := f"{data_set}_{part}_{epochs}") in self.columns), None
        )

    def look_up(self, genotype: Architecture) -> dict[str, Any]:
        """`index`, and for every data set of the table the test `accuracy`, `rank` and `regret` of a cell.

        The accuracy is a part of one, 1 is the best rank and equal cells share the better one, the regret is what is
        missing to the best cell's accuracy. Raises InputError for a genotype of another space.
        """
        index = cell_index(genotype)
        found: dict[str, Any] = {"index": index}
        for data_set in DATA_SETS:
            values = self.accuracies(data_set)
            if values is not None:
                found[data_set] = {
                    "accuracy": float(values[index]) / 100,
                    "rank": int((values > values[index]).sum()) + 1,
                    "regret": float(values.max() - values[index]) / 100,
                }
        return found


_NAMES = tuple(f"{data_set}_{part}_{epochs}" for data_set in DATA_SETS for part in PARTS for epochs in EPOCHS)


def _as_floats(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: np.asarray(values, np.float32) for name, values in columns.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError("is not an .npz file")
        if "arch" in file.files:
            operations = [str(name) for name in file["ops"]] if "ops" in file.files else list(OPERATIONS)
            official = np.array([[operations.index(name) for name in cell.cell] for cell in cells()])
            if not np.array_equal(file["arch"], official):
                raise InputError("its rows (arch) are not all cells in the official order")
        return {name: file[name].astype(np.float64) for name in file.files if name in _NAMES}


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    reader = csv.DictReader(read_text(path, "benchmark").splitlines())
    names = [name for name in reader.fieldnames or () if name != "architecture"]
    if "architecture" not in (reader.fieldnames or ()):
        raise InputError("has no column 'architecture'")
    rows = {cell_index(DenseGenotype.from_text(row["architecture"])): row for row in reader}
    if len(rows) != NUM_CELLS:
        raise InputError(f"has {len(rows)} different cells of {NASBENCH201.name}; expected all {NUM_CELLS}")
    return {name: np.array([float(rows[index][name]) for index in range(NUM_CELLS)]) for name in names}
