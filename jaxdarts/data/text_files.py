"""How are the three text files of a folder read, and which words do they hold?"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxdarts.errors import InputError, shorten
from jaxdarts.paths import is_file, is_folder

END = "<eos>"
NAMES = (
    ("train.txt", "valid.txt", "test.txt"),
    ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
)
"""Of the training, validation and test part: plain, as in the Penn Treebank, as in WikiText."""

Streams = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of the training, validation and test part: int32 [tokens]."""


def read_text_files(
    source: str, folder: Path, vocabulary: Sequence[str] | None = None
) -> tuple[Streams, tuple[str, ...], tuple[str, ...]]:
    """(ids, the words by id, notes) of a folder with files of one style of NAMES.

    Files are UTF-8, one sentence a line, words between white space. Nothing is normalised and nothing dropped. Every
    line ends with the word `<eos>`, also an empty one. Without `vocabulary` the ids follow the first appearance in the
    training, validation and test part, as in DARTS (rnn/data.py:27-58); with it they are its places, and it must hold
    every word.
    Raises InputError for a folder or file that is missing, a file without words or with one only, bytes that are not
    UTF-8, and a word that `vocabulary` lacks (each with file, and line where there is one), or a `vocabulary` that is
    none. Cost: one pass over the files, a few seconds for ten million words, 4 bytes of memory a token.
    """
    files = find_text_files(source, folder)
    ids = {} if vocabulary is None else _fixed(source, vocabulary)
    streams, notes = [], [f"text: {', '.join(file.name for file in files)} of {folder}"]
    for file in files:
        tokens, own_ends = _tokens(source, file, ids, vocabulary is not None)
        streams.append(tokens)
        if own_ends:
            notes.append(f"{file.name} holds {END} itself, {own_ends} times, beside the one after every line")
    train, valid, test = streams
    return (train, valid, test), tuple(ids), tuple(notes)


def find_text_files(source: str, folder: Path) -> list[Path]:
    """The training, validation and test file: the first style of which all three are there.

    Raises InputError for a folder that is missing or without files of such names, and for one with a part of them.
    """
    if not is_folder(folder):
        raise InputError(f"{source}: no such folder {folder}")
    partial: str | None = None
    for names in NAMES:
        files = [folder / name for name in names]
        missing = [file.name for file in files if not is_file(file)]
        if not missing:
            return files
        if len(missing) < len(files) and partial is None:
            partial = f"{source}: {folder} holds no {' and no '.join(missing)}; {', '.join(names)} are needed"
    styles = ", or ".join(", ".join(names) for names in NAMES)
    raise InputError(partial or f"{source}: {folder} holds no text files; they are named {styles}")


def _fixed(source: str, vocabulary: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for word in vocabulary:
        if word in ids:
            raise InputError(f"{source}: vocabulary holds the word {shorten(repr(word))} twice")
        ids[word] = len(ids)
    if END not in ids:
        raise InputError(f"{source}: vocabulary lacks {END!r}, the word at the end of every line")
    return ids


def _tokens(source: str, file: Path, ids: dict[str, int], fixed: bool) -> tuple[np.ndarray, int]:
    """int32[tokens] of a file, and how often it holds `<eos>` itself. New words get the next ids, unless `fixed`."""
    tokens, lines = array("i"), 0
    for line in _lines(source, file):
        lines += 1
        words = line.split()
        if fixed:
            unknown = next((word for word in words if word not in ids), None)
            if unknown is not None:
                raise InputError(
                    f"{source}: {file}, line {lines}: unknown word {shorten(repr(unknown))}; "
                    f"it is none of the {len(ids)} words of the vocabulary"
                )
        tokens.extend([ids.setdefault(word, len(ids)) for word in (*words, END)])
    found = np.array(tokens, np.int32)
    counts = np.bincount(found, minlength=1)
    different = [word for word, number in ids.items() if number < len(counts) and counts[number] and word != END]
    if not different:
        raise InputError(f"{source}: {file} holds no words")
    if len(different) == 1:
        raise InputError(
            f"{source}: {file} holds only the word {shorten(repr(different[0]))}; at least 2 different are needed"
        )
    return found, int(counts[ids[END]]) - lines


def _lines(source: str, file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, with or without a byte order mark; they end as a text file's do on any system."""
    try:
        with file.open("rb") as opened:
            for number, raw in enumerate(opened, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{source}: {file}, line {number}: not UTF-8 text: {error.reason} at byte {error.start}"
                    ) from error
                yield from line.removesuffix("\n").removesuffix("\r").split("\r")
    except OSError as error:
        raise InputError(f"{source}: {file} cannot be read: {error.strerror or error}") from error
