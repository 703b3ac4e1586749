"""How do the topics of Python's own help become a small English text to learn from?"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxdarts.data.text_files import END, Streams
from jaxdarts.errors import InputError

UNKNOWN = "<unk>"
NUMBER = "N"

Sentence = tuple[str, ...]

_LEAST_WORDS = 3
"""Of a sentence; shorter ones are headings and bits of code."""
_LEAST_COUNT = 3
"""Of a word in the training part; rarer ones become <unk>."""
_BLOCKS = 40
_VALID, _TEST = 4, 9
"""Which of every ten blocks, counted from 0."""

_PARAGRAPH = re.compile(r"\n\s*\n")
# Letters of any alphabet: the topics show a German word.
_TOKEN = re.compile(r"(?P<word>[^\W\d_]+(?:'[^\W\d_]+)?)|(?P<number>\d+(?:\.\d+)*)|[.!?;]")


class Parts(NamedTuple):
    """Sentences, in the order of the text."""

    train: list[Sentence]
    valid: list[Sentence]
    test: list[Sentence]


def read_pydoc() -> tuple[Streams, tuple[str, ...], tuple[str, ...]]:
    """(ids, the words by id, notes) of the running Python's `pydoc_data.topics`.

    Ids: `<eos>` 0, `<unk>` 1, then the words of the training part that occur there at least three times, sorted. Every
    sentence ends with `<eos>`. Nothing is random. With Python 3.11.7: 43,394, 5,431 and 5,422 tokens, 1,396 words;
    other versions have a text of their own, a little longer or shorter.
    Raises InputError where this Python has no such module, or an empty one. Cost: about 0.2 s.
    """
    parts = cut(_sentences_here())
    words = vocabulary(parts.train)
    ids = {word: index for index, word in enumerate(words)}
    note = f"text: the help topics of Python {platform.python_version()} (pydoc_data); other versions differ a little"
    train, valid, test = (_stream(part, ids) for part in parts)
    return (train, valid, test), words, (note,)


def sentences(topics: Mapping[str, str]) -> list[Sentence]:
    """The different sentences of all topics, these sorted by name, as lower case words.

    A sentence ends at one of `. ! ? ;` or with its paragraph. A number, its points included, is the word `N`; other
    punctuation is dropped, and so are sentences of fewer than three words. Of equal sentences the first is kept: the
    topics repeat whole sections, so that else much of the validation part would be known from training.
    """
    found: dict[Sentence, None] = {}
    for _, text in sorted(topics.items()):
        for paragraph in _PARAGRAPH.split(text.lower()):
            words: list[str] = []
            for token in _TOKEN.finditer(paragraph + "."):
                if token["word"] or token["number"]:
                    words.append(token["word"] or NUMBER)
                    continue
                if len(words) >= _LEAST_WORDS:
                    found.setdefault(tuple(words))
                words = []
    return list(found)


def cut(text: Sequence[Sentence]) -> Parts:
    """Cuts a text into 40 blocks of equally many tokens; of every ten, one each is validation and test part.

    A sentence, with its `<eos>`, belongs to the block in which it begins. Blocks, and not single sentences: neighbours
    speak of one thing, and a part should read as running text.
    """
    total = sum(len(sentence) + 1 for sentence in text)
    parts = Parts([], [], [])
    begin = 0
    for sentence in text:
        block = begin * _BLOCKS // total % 10
        (parts.valid if block == _VALID else parts.test if block == _TEST else parts.train).append(sentence)
        begin += len(sentence) + 1
    return parts


def vocabulary(train: Iterable[Sentence]) -> tuple[str, ...]:
    """`<eos>`, `<unk>`, then the words that occur often enough in the training part, sorted."""
    counts = Counter(word for sentence in train for word in sentence)
    return (END, UNKNOWN, *sorted(word for word, count in counts.items() if count >= _LEAST_COUNT))


def _sentences_here() -> list[Sentence]:
    needs = "data set 'pydoc' is made of the help topics of Python's standard library (pydoc_data.topics)"
    lacks = f"which this Python {platform.python_version()} lacks; give a folder of text files instead: folder:PATH"
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError(f"{needs}, {lacks}") from error
    found = sentences(topics)
    if len(found) < 10 * _BLOCKS:
        raise InputError(f"{needs}, most of {lacks}")
    return found


def _stream(part: Sequence[Sentence], ids: Mapping[str, int]) -> np.ndarray:
    end, unknown = ids[END], ids[UNKNOWN]
    tokens: list[int] = []
    for sentence in part:
        tokens.extend(ids.get(word, unknown) for word in sentence)
        tokens.append(end)
    return np.array(tokens, np.int32)
