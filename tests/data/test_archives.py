"""Are the original CIFAR archives read right, and never trusted?"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.data.archives import LAYOUTS
from jaxdarts.data.sources import STATISTICS, load_dataset
from jaxdarts.errors import InputError

NUM = 6  # images in each batch file


def _batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (NUM, 3072), dtype=np.uint8), np.arange(NUM) % 3


def _files(name: str, binary: bool, protocol: int = 2) -> tuple[str, dict[str, bytes]]:
    layout = LAYOUTS[name][1 if binary else 0]
    files = {}
    for seed, file in enumerate((*layout.train_files, layout.test_file)):
        data, labels = _batch(seed)
        if binary:
            coarse = np.full((NUM, layout.label_bytes - 1), 99, np.uint8)
            files[file] = np.concatenate([coarse, labels[:, None].astype(np.uint8), data], axis=1).tobytes()
        else:
            batch = {b"data": data, layout.label_key: labels.tolist(), b"filenames": [b"a.png"] * NUM}
            files[file] = pickle.dumps(batch, protocol)
    if binary:
        files[layout.names_file] = b"ape\nbee\ncat\n"
    else:
        files[layout.names_file] = pickle.dumps({layout.names_key: [b"ape", b"bee", b"cat"]}, protocol)
    return layout.folder, files


def _tar(path: Path, folder: str, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("extracted", [False, True])
def test_every_layout_gives_the_same_images(tmp_path, name, binary, extracted):
    folder, files = _files(name, binary)
    if extracted:
        (tmp_path / folder).mkdir()
        for file, content in files.items():
            (tmp_path / folder / file).write_bytes(content)
    else:
        _tar(tmp_path / LAYOUTS[name][int(binary)].archive, folder, files)
    dataset = load_dataset(name, tmp_path)
    num_batches = len(LAYOUTS[name][0].train_files)
    assert dataset.train_images.shape == (num_batches * NUM, 32, 32, 3)
    expected = _batch(0)[0].reshape(NUM, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(dataset.train_images[:NUM], expected)
    np.testing.assert_array_equal(dataset.test_labels, np.arange(NUM) % 3)
    assert dataset.class_names == ("ape", "bee", "cat")
    assert (dataset.mean, dataset.std) == STATISTICS[name]


def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder, files = _files("cifar10", binary=False)
    files["data_batch_2"] = pickle.dumps({b"data": Evil(), b"labels": []}, 2)
    _tar(tmp_path / "cifar-10-python.tar.gz", folder, files)
    with pytest.raises(InputError, match=r"data_batch_2 is broken \(.*mkdir is not allowed in a data file"):
        load_dataset("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_incomplete_and_broken_archives(tmp_path):
    folder, files = _files("cifar10", binary=True)
    path = tmp_path / "cifar-10-binary.tar.gz"
    _tar(path, folder, {name: content for name, content in files.items() if name != "data_batch_4.bin"})
    with pytest.raises(InputError, match=r"incomplete: it holds no data_batch_4\.bin"):
        load_dataset("cifar10", tmp_path)
    _tar(path, folder, files | {"test_batch.bin": files["test_batch.bin"][:-1]})
    with pytest.raises(InputError, match=r"test_batch\.bin is broken \(.*no multiple of 3073"):
        load_dataset("cifar10", tmp_path)
    _tar(path, folder, files)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(InputError, match="is broken .* delete it and fetch it again"):
        load_dataset("cifar10", tmp_path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="is broken"):
        load_dataset("cifar10", tmp_path)
