"""What is a text here, by which name is it read, and how is it laid out for training?"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdarts.data.pydoc import read_pydoc
from jaxdarts.data.text_files import read_text_files
from jaxdarts.errors import InputError, unknown_choice

LEAST_ROWS = 3
"""Of a batchified text: the first step of an epoch begins while two rows follow (rnn/train.py:159-229 of DARTS)."""


class Text(NamedTuple):
    """A text in memory as three streams of word ids, with `<eos>` after every sentence or line."""

    name: str  # pydoc, or the folder's whole path
    train: np.ndarray  # int32 [tokens], each in 0..len(words)-1
    valid: np.ndarray  # as train
    test: np.ndarray  # as train
    words: tuple[str, ...]  # by id
    notes: tuple[str, ...] = ()  # for people: what was read


def load_text(dataset: str, data_dir: str | Path | None = None, vocabulary: Sequence[str] | None = None) -> Text:
    """A text by name, read into memory and checked.

    Args:
      dataset: pydoc, the help topics of the running Python (see `read_pydoc`); folder:PATH, or folder with `data_dir`,
        for text files of one's own (see `read_text_files`).
      data_dir: the folder, where `dataset` is "folder"; else it is not used.
      vocabulary: of text files, the words by id, which they must not leave; else the files' own words.

    Raises InputError, one line, for an unknown name, a text that is missing or cannot be used, and an unknown word.
    """
    kind, _, path = dataset.partition(":")
    if dataset == "pydoc":
        if vocabulary is not None:
            raise InputError("data set 'pydoc' makes its own vocabulary; give none, or use folder:PATH")
        streams, words, notes = read_pydoc()
        return Text("pydoc", *streams, words, notes)
    if kind != "folder":
        if kind == "pydoc":
            raise InputError(f"data set 'pydoc' takes no argument, but was given {path!r}")
        raise unknown_choice("dataset", dataset, ["pydoc", "folder:PATH"])
    if not path and data_dir is None:
        raise InputError(f"data set {dataset!r} needs a folder: folder:PATH, or data_dir (--data-dir PATH)")
    folder = Path(path or str(data_dir)).expanduser().absolute()
    streams, words, notes = read_text_files(f"data set {dataset!r}", folder, vocabulary)
    return Text(str(folder), *streams, words, notes)


def text_digest(text: Text) -> str:
    """SHA-256, as hexadecimal text, of all that can be learned from: the ids of every part, and the words.

    Equal for the same data whatever their name and notes. Cost: a second for 100 million tokens at most.
    """
    digest = hashlib.sha256(json.dumps(text.words).encode())
    for tokens in (text.train, text.valid, text.test):
        digest.update(f"{len(tokens)}".encode())
        digest.update(np.ascontiguousarray(tokens, "<i4").data)
    return digest.hexdigest()


def text_facts(text: Text) -> dict[str, Any]:
    """What a run's config.json records of its text, as JSON. pydoc's differs between versions of Python: hence that."""
    facts = {
        "vocabulary_size": len(text.words),
        "tokens": {"train": len(text.train), "valid": len(text.valid), "test": len(text.test)},
        "data_digest": text_digest(text),
    }
    return facts | ({"pydoc_python": platform.python_version()} if text.name == "pydoc" else {})


def batchify(tokens: np.ndarray, batch_size: int, part: str = "the text") -> np.ndarray:
    """int32 [rows, batch_size]: column b is the b-th of `batch_size` contiguous pieces of int [tokens].

    What does not fill the last row is dropped (rnn/utils.py:15-22 of DARTS). `part` is what a message calls the text.
    Raises InputError for fewer than three rows.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if len(tokens) < LEAST_ROWS:
        raise InputError(f"{part} has {len(tokens)} tokens; at least {LEAST_ROWS} are needed, whatever the batch_size")
    rows = len(tokens) // batch_size
    if rows < LEAST_ROWS:
        raise InputError(
            f"batch_size must be at most {len(tokens) // LEAST_ROWS}, not {batch_size}: {part} has {len(tokens)} "
            f"tokens, which make {rows} rows, and at least {LEAST_ROWS} are needed"
        )
    return np.ascontiguousarray(tokens[: rows * batch_size].reshape(batch_size, rows).T, np.int32)
