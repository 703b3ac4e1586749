"""Which images are learned from, and how are they changed at random?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from jaxdarts.checks import Check, at_least, unit
from jaxdarts.settings import Group, Use

SPLITS = ("file", "shuffled")


@dataclass(frozen=True)
class SearchData(Group):
    """Data."""

    dataset: str = "photos10"
    """Data set: photos10, digits, npz:PATH, folder:PATH, or a tensorflow-datasets name such as cifar10."""
    data_dir: str | None = None
    """Folder in which a data set is looked for."""
    download: bool = False
    """Download and prepare a data set that is missing; nothing is ever downloaded without this."""
    image_size: int | None = 16
    """Images are resized to this many pixels a side, at least 8; None keeps the data's own size."""
    limit: int | None = 1600
    """Use only this many training images, before the split."""
    train_portion: float = 0.5
    """Part of the training images that trains w; the rest trains alpha."""
    split: str = "file"
    """How the two parts are cut: file (in the data's order, as the reference) or shuffled (by the seed)."""
    data_seed: int | None = None
    """The crops of photos10 and the shuffled split follow from this; None: from seed."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = 2
    """Pixels of zero padding before the random crop; 0 turns the crop off."""
    cutout: bool = False
    """Mask a random square of every training image."""
    cutout_length: int = 16
    """Side of cutout's square, in pixels."""
    checks: ClassVar = [
        *at_least(1, "cutout_length"),
        *at_least(0, "crop_padding"),
        *at_least(8, "image_size"),
        *at_least(2, "limit"),
        Check("train_portion", lambda value: 0 < value < 1, "greater than 0 and less than 1"),
        Check("data_seed", lambda value: 0 <= value < 2**32, "between 0 and 4294967295"),
        Check("dataset", bool, "a name such as photos10"),
    ]
    # r-darts-dp masks too, in some of its searches.
    uses: ClassVar = [Use(("cutout_length",), "cutout", lambda s: s.cutout)]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How the parts are cut."""
        return {"split": SPLITS}


@dataclass(frozen=True)
class TrainingData(Group):
    """Data."""

    dataset: str = "photos10"
    """Data set: photos10, digits, npz:PATH, folder:PATH, or a tensorflow-datasets name such as cifar10."""
    data_dir: str | None = None
    """Folder in which a data set is looked for."""
    download: bool = False
    """Download and prepare a data set that is missing; nothing is ever downloaded without this."""
    image_size: int | None = 16
    """Images are resized to this many pixels a side, at least 8; None keeps the data's own size."""
    limit: int | None = None
    """Use only this many training images, and the same part of the test set."""
    test_limit: int | None = None
    """Use this many test images, whatever `limit` is; None: the part that it leaves."""
    valid_portion: float = 0.0
    """Part of the training images that is held out, to choose an epoch by; 0 trains on all, as the references do."""
    split: str = "file"
    """How the held-out part is cut: file (the last of the data's order) or shuffled (by the seed)."""
    flip: bool = True
    """Mirror training images at random."""
    crop_padding: int = 2
    """Pixels of zero padding before the random crop; 0 turns the crop off."""
    cutout: bool = True
    """Mask a random square of every training image."""
    cutout_length: int = 8
    """Side of cutout's square, in pixels."""
    checks: ClassVar = [
        *at_least(1, "cutout_length", "test_limit"),
        *at_least(0, "crop_padding"),
        *at_least(8, "image_size"),
        *at_least(2, "limit"),
        *unit("valid_portion"),
        Check("dataset", bool, "a name such as photos10"),
    ]
    uses: ClassVar = [Use(("cutout_length",), "cutout", lambda s: s.cutout)]

    @classmethod
    def choices(cls) -> Mapping[str, Collection[str]]:
        """How the parts are cut."""
        return {"split": SPLITS}
