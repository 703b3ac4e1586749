"""Where do images and texts come from, how are they split, augmented and put into batches?"""

from jaxdarts.data.augment import augment, cutout, normalise, random_crop, random_flip, take_batch, to_unit
from jaxdarts.data.batches import epoch_order, eval_batches, random_batch_indices, steps_per_epoch, train_batch_indices
from jaxdarts.data.dataset import Dataset, RawData, Request, data_digest, make_dataset
from jaxdarts.data.sources import DATASETS, STATISTICS, default_data_dir, load_dataset
from jaxdarts.data.split import split_indices, split_note
from jaxdarts.data.text import Text, batchify, load_text, text_digest, text_facts

__all__ = [
    "DATASETS",
    "STATISTICS",
    "Dataset",
    "RawData",
    "Request",
    "Text",
    "augment",
    "batchify",
    "cutout",
    "data_digest",
    "default_data_dir",
    "epoch_order",
    "eval_batches",
    "load_dataset",
    "load_text",
    "make_dataset",
    "normalise",
    "random_batch_indices",
    "random_crop",
    "random_flip",
    "split_indices",
    "split_note",
    "steps_per_epoch",
    "take_batch",
    "text_digest",
    "text_facts",
    "to_unit",
    "train_batch_indices",
]
