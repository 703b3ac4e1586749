"""How are data sets read that already are arrays: an .npz file, scikit-learn's digits?"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxdarts.data.dataset import RawData, Request, one_line
from jaxdarts.errors import InputError

NPZ_NAMES = ("x_train", "y_train", "x_test", "y_test")


def read_npz(request: Request) -> RawData:
    """`npz:PATH`: arrays x_train, y_train and optionally x_test, y_test.

    Images: uint8 or float [N, H, W, C] or [N, H, W]. Labels: any integers from 0; the classes are the sorted distinct
    training labels, renumbered 0, 1, ... and named after the original numbers.
    """
    path = Path(request.argument).expanduser()
    if not path.is_file():
        raise InputError(f"data set {request.name!r}: no such file {path}")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"data set {request.name!r}: {path} is one array, not an .npz file")
        with archive:
            missing = [name for name in NPZ_NAMES[:2] if name not in archive.files]
            if missing:
                raise InputError(
                    f"data set {request.name!r}: {path} holds no {' and no '.join(missing)}, "
                    f"only {', '.join(archive.files) or 'nothing'}"
                )
            arrays = {name: archive[name] for name in NPZ_NAMES if name in archive.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"data set {request.name!r}: {path} cannot be read as .npz: {one_line(error)}") from error
    return RawData(arrays["x_train"], arrays["y_train"], arrays.get("x_test"), arrays.get("y_test"), None)


def read_digits(request: Request) -> RawData:
    """`digits`: 1797 handwritten digits, float32 0..1 [8, 8, 1], from scikit-learn; the last 20% are the test set."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("data set 'digits' needs scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    images, labels = (digits.images / 16).astype(np.float32), digits.target
    num_train = len(images) * 4 // 5
    names = tuple(str(digit) for digit in range(10))
    return RawData(images[:num_train], labels[:num_train], images[num_train:], labels[num_train:], names)
