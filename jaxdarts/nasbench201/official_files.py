"""How is a table of NAS-Bench-201 made from the benchmark's official files, without holding all of them at once?"""

from __future__ import annotations

import bz2
import io
import pickle
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdarts.errors import InputError
from jaxdarts.paths import is_folder
from jaxdarts.spaces import Benchmark, DenseGenotype
from jaxdarts.spaces.nasbench201 import NUM_CELLS, cell_index, cells

_EXTENSION = ".pickle.pbz2"
# Column -> (data set of the file, evaluated on). CIFAR-10 is trained twice: on half of the training images to validate,
# on all of them to test.
_SOURCES = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
}
_HYPER_PARAMETERS = ("12", "200")


def convert(source: str | Path, target: str | Path) -> Benchmark:
    """Writes the table (`Benchmark.save`) of an official folder: accuracies of the last epoch, means over seeds.

    Args:
      source: the unpacked folder `NATS-tss-v1_0-*-simple`, or `-full`: a file `NNNNNN.pickle.pbz2` for each cell, read
        one after the other. The single files (`NATS-tss-*.pickle.pbz2`, `NAS-Bench-201-*.pth`) need tens of gigabytes
        of memory and are refused; the folder has the same numbers.
      target: an .npz file.

    Returns:
      The table. Columns that a cell lacks are left out.

    Raises:
      InputError: not such a folder, a cell is missing, or a file isn't understood; naming it.

    The pickles are read by a reader that makes plain containers and arrays and runs nothing else.
    """
    folder, target = Path(source), Path(target)
    if target.suffix != ".npz":
        raise InputError(f"target must be an .npz file; got {str(target)!r}")
    if not is_folder(folder):
        raise InputError(
            f"source: {str(folder)!r} is no folder; unpack NATS-tss-v1_0-*-simple.tar, which holds a file for each cell"
        )
    columns: dict[str, np.ndarray] = defaultdict(lambda: np.full(NUM_CELLS, np.nan))
    for index in range(NUM_CELLS):
        for name, value in _accuracies(_find(folder, index), index):
            columns[name][index] = value
    complete = {name: values for name, values in columns.items() if np.isfinite(values).all()}
    table = Benchmark(complete)
    table.save(target)
    return table


def _find(folder: Path, index: int) -> Path:
    for name in (f"{index:06d}{_EXTENSION}", f"{index}{_EXTENSION}"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"source: {str(folder)!r} lacks the file {index:06d}{_EXTENSION}; a table needs all {NUM_CELLS}")


def _accuracies(path: Path, index: int) -> Iterator[tuple[str, float]]:
    try:
        with bz2.open(path) as file:
            content = _Reader(io.BytesIO(file.read())).load()
        for epochs in _HYPER_PARAMETERS:
            if epochs not in content:
                continue
            results = content[epochs]
            found = cell_index(DenseGenotype.from_text(results["arch_str"]))
            if found != index:
                raise InputError(f"is of cell {found} ({cells()[found].to_text()}), not of {index}")
            for column, (data_set, part) in _SOURCES.items():
                values = [
                    value
                    for seed in results["dataset_seed"].get(data_set, ())
                    if (value := _last(results["all_results"][data_set, seed], part)) is not None
                ]
                if values:
                    yield f"{column}_{epochs}", float(np.mean(values))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = error if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        raise InputError(f"source: {str(path)!r} is not understood: {reason}") from error


def _last(trial: Mapping[str, Any], part: str) -> float | None:
    """Top-1 accuracy in percent of a trial after its last epoch. The keys are `PART@EPOCH`."""
    accuracies = trial.get("eval_acc1es") or {}
    return accuracies.get(f"{part}@{int(trial['epochs']) - 1}")


class _Reader(pickle.Unpickler):
    """Reads containers, numbers and numpy's arrays; everything else in the file becomes None and is never called."""

    _ALLOWED = {
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("builtins", "dict"),
        ("builtins", "list"),
        ("builtins", "set"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """What a global name in the file stands for."""
        if (module, name) in self._ALLOWED:
            return super().find_class(module, name)
        return _Ignored

    def persistent_load(self, identifier: Any) -> None:
        """Tensors, which lie elsewhere."""


class _Ignored:
    """Stands for an object that isn't needed."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass
