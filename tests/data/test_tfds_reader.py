"""Is a tensorflow-datasets folder read without TensorFlow, in both formats, and is a damaged one refused?"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxdarts.data.sources import load_dataset
from jaxdarts.data.tfds_reader import find_prepared
from jaxdarts.errors import InputError

NAMES = ["ape", "bee", "cat"]
NUM = {"train": 12, "test": 6}


def _image(split: str, index: int) -> np.ndarray:
    return np.random.default_rng((len(split), index)).integers(0, 256, (9, 10, 3), dtype=np.uint8)


def _examples(split: str):
    for index in range(NUM[split]):
        file = io.BytesIO()
        Image.fromarray(_image(split, index)).save(file, "png")
        file.seek(0)
        yield index, {"id": f"{split}_{index}", "image": file, "label": index % 3}


@pytest.fixture(scope="module")
def array_record(tmp_path_factory) -> Path:
    """Written by the library itself."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    with tfds.core.registered.skip_registration():

        class Tiny(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.2.0")

            def _info(self):
                features = {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(9, 10, 3)),
                    "label": tfds.features.ClassLabel(names=NAMES),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    description="tiny",
                    supervised_keys=("image", "label"),
                    features=tfds.features.FeaturesDict(features),
                )

            def _split_generators(self, dl_manager):
                return {split: _examples(split) for split in NUM}

            def _generate_examples(self):
                raise NotImplementedError

    Tiny(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture
def tfrecord(array_record, tmp_path) -> Path:
    """The same examples in the format that only TensorFlow writes: length, checksum, payload, checksum."""
    from array_record.python.array_record_module import ArrayRecordReader

    root = tmp_path / "tfrecord"
    folder = root / "tiny" / "1.2.0"
    shutil.copytree(array_record / "tiny" / "1.2.0", folder)
    _edit(folder, lambda info: info.update(fileFormat="tfrecord"))
    for file in folder.glob("*.array_record-*"):
        reader = ArrayRecordReader(str(file))
        with open(folder / file.name.replace("array_record", "tfrecord"), "wb") as out:
            for payload in reader.read(0, reader.num_records()):
                out.write(struct.pack("<Q", len(payload)) + b"sum1" + payload + b"sum2")
        reader.close()
        file.unlink()
    return root


def _edit(folder: Path, change) -> None:
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


@pytest.fixture(params=["array_record", "tfrecord"])
def prepared(request, array_record, tmp_path) -> Path:
    """A copy that a test may damage."""
    if request.param == "tfrecord":
        return request.getfixturevalue("tfrecord")
    shutil.copytree(array_record, tmp_path / "copy")
    return tmp_path / "copy"


def test_both_formats_give_the_images(prepared):
    dataset = load_dataset("tiny", prepared)
    assert dataset.train_images.shape == (12, 9, 10, 3) and dataset.class_names == tuple(NAMES)
    expected = {_image("train", index).tobytes(): index % 3 for index in range(NUM["train"])}
    found = {
        image.tobytes(): label for image, label in zip(dataset.train_images, dataset.train_labels.tolist(), strict=True)
    }
    assert found == expected
    assert dataset.test_images.shape == (6, 9, 10, 3)
    assert "tensorflow" not in sys.modules or importlib.util.find_spec("tensorflow")


def test_limit_and_size(prepared):
    dataset = load_dataset("tfds:tiny:1.2.0", prepared, limit=6, image_size=8)
    assert dataset.train_images.shape == (6, 8, 8, 3) and dataset.test_images.shape == (3, 8, 8, 3)
    assert len(load_dataset("tfds:tiny:1.2.0", prepared, test_limit=2).test_images) == 2


def test_a_limit_is_drawn_over_the_classes_where_the_first_examples_lack_one(prepared):
    whole = load_dataset("tiny", prepared)
    first = next(count for count in range(3, 13) if len(set(whole.train_labels[:count])) == 3)
    dataset = load_dataset("tiny", prepared, limit=first)
    np.testing.assert_array_equal(dataset.train_images, whole.train_images[:first])
    assert not any("training" in note or note.startswith(f"{first} of") for note in dataset.notes)
    names = [*NAMES, "dog"]  # a class without examples: nothing to draw
    folder = prepared / "tiny" / "1.2.0"
    (folder / "label.labels.txt").write_text("\n".join(names) + "\n")
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "4"
    (folder / "features.json").write_text(json.dumps(features))
    dataset = load_dataset("tiny", prepared, limit=first)
    np.testing.assert_array_equal(dataset.train_images, whole.train_images[:first])
    assert "the training part has no image of 1 of 4 classes, the first is 'dog'" in dataset.notes
    with pytest.raises(InputError, match="limit must be at least 3"):
        load_dataset("tiny", prepared, limit=2)


def test_a_drawn_limit_takes_pictures_with_their_labels(prepared, monkeypatch):
    whole = load_dataset("tiny", prepared)
    kept = np.array([1, 4, 10])
    monkeypatch.setattr("jaxdarts.data.tfds_reader.limited_indices", lambda *_, **__: (kept, "drawn"))
    monkeypatch.setattr("jaxdarts.data.tfds_reader._lacks_classes", lambda *_: True)
    dataset = load_dataset("tiny", prepared, limit=3, test_limit=6)
    np.testing.assert_array_equal(dataset.train_images, whole.train_images[kept])
    np.testing.assert_array_equal(dataset.train_labels, whole.train_labels[kept])
    assert "drawn" in dataset.notes


def test_missing_damaged_and_short_shards(prepared):
    shard = next((prepared / "tiny" / "1.2.0").glob("tiny-train*"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="tiny-train.* (is damaged after|holds) .*prepare the data set again"):
        load_dataset("tiny", prepared)
    shard.write_bytes(b"")
    with pytest.raises(InputError, match="tiny-train.* (is damaged after 0|holds 0) examples"):
        load_dataset("tiny", prepared)
    shard.unlink()
    with pytest.raises(InputError, match="tiny-train.* is missing; delete"):
        load_dataset("tiny", prepared)


def test_a_damaged_picture_is_named(tfrecord):
    shard = next((tfrecord / "tiny" / "1.2.0").glob("tiny-train*"))
    shard.write_bytes(shard.read_bytes().replace(b"IHDR", b"XXXX", 1))
    with pytest.raises(InputError, match="example 0 of 'train' in .* is damaged"):
        load_dataset("tiny", tfrecord)


def test_parquet_and_damaged_descriptions_are_refused(prepared):
    folder = prepared / "tiny" / "1.2.0"
    _edit(folder, lambda info: info.update(fileFormat="parquet"))
    with pytest.raises(InputError, match="stored as parquet, .* prepare it again .*array_record"):
        load_dataset("tiny", prepared)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        load_dataset("tiny", prepared)


def test_other_kinds_of_data_are_refused(prepared):
    folder = prepared / "tiny" / "1.2.0"
    _edit(folder, lambda info: info.pop("supervisedKeys"))
    assert load_dataset("tiny", prepared).num_classes == 3  # one image and one label: still clear
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["image"]
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(InputError, match=r"no image classification set: .*found id \(Text\), label \(ClassLabel\)"):
        load_dataset("tiny", prepared)


def test_versions_and_configurations(prepared):
    shutil.copytree(prepared / "tiny" / "1.2.0", prepared / "tiny" / "1.10.0")
    (prepared / "tiny" / "incomplete.ABC_2.0.0").mkdir()
    assert find_prepared("tiny", prepared).name == "1.10.0"
    assert find_prepared("tiny:1.2.0", prepared).name == "1.2.0"
    assert find_prepared("tiny:3.0.0", prepared) is None
    for config in ("big", "small"):
        shutil.copytree(prepared / "tiny" / "1.2.0", prepared / "other" / config / "1.2.0")
    assert find_prepared("other/big", prepared).parent.name == "big"
    with pytest.raises(InputError, match="several configurations in .*; choose from other/big, other/small"):
        load_dataset("other", prepared)


def test_download_needs_the_extra(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorflow" else found(name))
    with pytest.raises(InputError, match=r"needs TensorFlow: pip install 'jaxdarts\[tfds-prepare\]'"):
        load_dataset("mnist", tmp_path, download=True)
    with pytest.raises(InputError, match=r"needs TensorFlow: pip install 'jaxdarts\[tfds-prepare\]'"):
        load_dataset("cifar10", tmp_path, download=True)
