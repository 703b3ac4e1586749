"""Are texts cut, numbered and laid out as they should be, and useless ones refused by name?"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jaxdarts.data import Text, batchify, load_text, text_digest, text_facts
from jaxdarts.data.pydoc import cut, sentences, vocabulary
from jaxdarts.data.text_files import NAMES
from jaxdarts.errors import InputError

END, UNKNOWN = 0, 1


@pytest.fixture(scope="module")
def pydoc() -> Text:
    return load_text("pydoc")


def parts_of(text: Text) -> list[np.ndarray]:
    return [text.train, text.valid, text.test]


def split(tokens: np.ndarray, end: int = END) -> list[tuple[int, ...]]:
    """The sentences of a stream, which ends with one."""
    assert tokens[-1] == end
    ends = np.flatnonzero(tokens == end)
    return [tuple(piece[piece != end].tolist()) for piece in np.split(tokens, ends[:-1] + 1)]


def write(folder: Path, *contents: str | bytes, names: Sequence[str] = NAMES[0]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, *contents: str | bytes) -> Text:
    return load_text("folder", write(folder, *contents))


# The embedded text


def test_pydoc_has_the_known_size(pydoc: Text) -> None:
    """Counted by an independent program with three versions of Python; others have another text of the same kind."""
    tokens = [len(part) for part in parts_of(pydoc)]
    counted = ([43_394, 5_431, 5_422], 1_396)
    known = {
        (3, 11, 7): counted,
        (3, 12, 1): ([45_291, 5_648, 5_661], 1_442),
        (3, 13, 0): ([46_504, 5_805, 5_790], 1_475),
    }
    assert (tokens, len(pydoc.words)) == known.get(sys.version_info[:3], (tokens, len(pydoc.words)))
    np.testing.assert_allclose(tokens, counted[0], rtol=0.15)
    np.testing.assert_allclose(len(pydoc.words), counted[1], rtol=0.1)
    assert all(part.dtype == np.int32 and part.ndim == 1 for part in parts_of(pydoc))


def test_pydoc_is_numbered_by_the_sorted_words(pydoc: Text) -> None:
    assert pydoc.words[:2] == ("<eos>", "<unk>") and list(pydoc.words[2:]) == sorted(set(pydoc.words[2:]))
    counts = np.bincount(pydoc.train, minlength=len(pydoc.words))
    assert len(counts) == len(pydoc.words) and counts[2:].min() == 3
    assert all(part.min() == END and part.max() < len(pydoc.words) for part in parts_of(pydoc))


def test_no_validation_or_test_sentence_is_in_training(pydoc: Text) -> None:
    """Up to unknown words, which may hide a difference. The topics themselves repeat every fifth sentence or so."""
    train, valid, test = ({sentence for sentence in split(part) if UNKNOWN not in sentence} for part in parts_of(pydoc))
    assert len(train) > 1000 and len(valid) > 80 and len(test) > 80
    assert not train & valid and not train & test and not valid & test
    for part in parts_of(pydoc):
        known = [sentence for sentence in split(part) if UNKNOWN not in sentence]
        assert len(known) == len(set(known))
        assert min(map(len, split(part))) == 3


def test_a_sentence_is_what_the_rules_say() -> None:
    first = """Heading here

    It isn't (really) 3.11.7 or x2!  Don't stop;
    two words. über_die Straße -- it ISN'T
    over

    it ends here

    IT ENDS: here?"""
    assert sentences({"b": "It isn't really N or x N.", "a": first}) == [
        ("it", "isn't", "really", "N", "or", "x", "N"),
        ("über", "die", "straße", "it", "isn't", "over"),
        ("it", "ends", "here"),
        ("it", "isn't", "really", "n", "or", "x", "n"),
    ]


def test_blocks_have_equally_many_tokens() -> None:
    """80 sentences of four tokens: two a block, of which those of blocks 4, 14, ... and 9, 19, ... are held out."""
    text = [("a", "b", str(number)) for number in range(80)]
    parts = cut(text)
    assert [int(sentence[2]) for sentence in parts.valid] == [8, 9, 28, 29, 48, 49, 68, 69]
    assert [int(sentence[2]) for sentence in parts.test] == [18, 19, 38, 39, 58, 59, 78, 79]
    assert parts.train == [sentence for sentence in text if sentence not in parts.valid + parts.test]
    # Tokens are counted, not sentences: of 400 the first sentence fills four blocks, and belongs to the first of them.
    long = cut([("w",) * 39, *[("a", "b", str(number)) for number in range(90)]])
    assert len(long.train[0]) == 39 and [int(sentence[2]) for sentence in long.valid[:4]] == [0, 1, 2, 25]


def test_rare_words_are_unknown() -> None:
    train = [("b", "b", "N", "a"), ("a", "c", "c", "b"), ("a", "N", "N")]
    assert vocabulary(train) == ("<eos>", "<unk>", "N", "a", "b")


def test_pydoc_depends_on_the_topics_and_not_on_their_order(pydoc: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("pydoc_data.topics")
    monkeypatch.setattr(module, "topics", dict(reversed(module.topics.items())))
    assert text_digest(load_text("pydoc")) == text_digest(pydoc)
    name, first = min(module.topics.items())
    monkeypatch.setattr(module, "topics", {**module.topics, name: f"This is quite another beginning.\n\n{first}"})
    assert text_digest(load_text("pydoc")) != text_digest(pydoc)


def test_a_python_without_the_topics_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match=r"'pydoc' .*Python 3\.[\d.]+ lacks; give a folder .* instead: folder:PATH$"):
        load_text("pydoc")
    monkeypatch.undo()
    monkeypatch.setattr(pytest.importorskip("pydoc_data.topics"), "topics", {"assert": "Only one sentence is left."})
    with pytest.raises(InputError, match=r"most of which this Python .* lacks"):
        load_text("pydoc")


# Digest and facts


def test_the_digest_is_of_what_can_be_learned_from(pydoc: Text) -> None:
    digest = text_digest(pydoc)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert text_digest(load_text("pydoc")) == digest
    assert text_digest(pydoc._replace(name="other", notes=("other",))) == digest
    big = pydoc._replace(train=pydoc.train.astype(">i4"))
    assert text_digest(big) == digest, "the order of a number's bytes is the machine's matter"
    swapped = pydoc.train.copy()
    swapped[:2] = swapped[1::-1]
    together = np.concatenate([pydoc.train, pydoc.valid])
    others = [
        pydoc._replace(train=swapped),
        pydoc._replace(test=pydoc.test[:-1]),
        pydoc._replace(train=together[: len(pydoc.train) + 1], valid=together[len(pydoc.train) + 1 :]),
        pydoc._replace(words=(*pydoc.words[:-1], "another")),
    ]
    assert len({digest, *map(text_digest, others)}) == 1 + len(others)


def test_facts_are_json(pydoc: Text, tmp_path: Path) -> None:
    facts = text_facts(pydoc)
    assert json.loads(json.dumps(facts)) == facts == {
        "vocabulary_size": len(pydoc.words),
        "tokens": {"train": len(pydoc.train), "valid": len(pydoc.valid), "test": len(pydoc.test)},
        "data_digest": text_digest(pydoc),
        "pydoc_python": platform.python_version(),
    }  # fmt: skip
    assert "pydoc_python" not in text_facts(read(tmp_path / "pydoc", "a b", "a b", "b a"))
    assert platform.python_version() in " ".join(pydoc.notes)


# Folders


def test_words_are_numbered_as_they_first_appear(tmp_path: Path) -> None:
    """By hand after the reference (rnn/data.py:27-58): a word a line's end, the empty line's too; nothing dropped."""
    folder = write(tmp_path, "the cat\n\nThe cat , 3.5 <unk>\n", "the dog\nthe dog", "\n a\tcat \n")
    text = load_text(f"folder:{folder}")
    assert text.words == ("the", "cat", "<eos>", "The", ",", "3.5", "<unk>", "dog", "a")
    assert text.train.tolist() == [0, 1, 2, 2, 3, 1, 4, 5, 6, 2]
    assert text.valid.tolist() == [0, 7, 2, 0, 7, 2]
    assert text.test.tolist() == [2, 8, 1, 2]
    assert all(part.dtype == np.int32 for part in parts_of(text))
    assert text.name == str(folder) and text.notes == (f"text: train.txt, valid.txt, test.txt of {folder}",)
    again = [
        load_text("folder", folder),
        load_text("folder", str(folder)),
        load_text(f"folder:{folder}", tmp_path / "elsewhere"),
    ]
    assert {text_digest(one) for one in again} == {text_digest(text)}


def test_lines_end_as_in_any_editor(tmp_path: Path) -> None:
    plain = read(tmp_path / "a", "é b\n\nc d\n", "b c\n", "c b\n")
    windows = read(tmp_path / "b", "\ufeffé b\r\n\r\nc d", "b c", "c b")
    old = read(tmp_path / "c", "é b\r\rc d\r", "b c\r", "c b\r")
    assert plain.words == ("é", "b", "<eos>", "c", "d")
    assert text_digest(plain) == text_digest(windows) == text_digest(old)
    # Other marks of a new line or page are white space in a line, as for the reference.
    paged = read(tmp_path / "d", "é b\n\nc\x0cd\n", "b\u2028c", "c\x85b")
    assert text_digest(paged) == text_digest(plain)


def test_the_first_whole_style_of_names_counts(tmp_path: Path) -> None:
    for names, word in reversed(list(zip(NAMES, ("plain", "ptb", "wiki"), strict=True))):
        write(tmp_path, f"{word} a", "a b", "a b", names=names)
        assert load_text(f"folder:{tmp_path}").words[0] == word
    (tmp_path / "valid.txt").unlink()
    assert load_text(f"folder:{tmp_path}").words[0] == "ptb"
    (tmp_path / "ptb.test.txt").unlink()
    (tmp_path / "wiki.test.tokens").unlink()
    with pytest.raises(InputError, match=r"holds no valid\.txt; train\.txt, valid\.txt, test\.txt are needed"):
        load_text(f"folder:{tmp_path}")


def test_ends_of_lines_in_the_text_itself_are_told(tmp_path: Path) -> None:
    text = read(tmp_path, "a b <eos>\na <eos>\n", "a b", "a b")
    assert text.train.tolist() == [0, 1, 2, 2, 0, 2, 2]
    assert text.notes[1:] == ("train.txt holds <eos> itself, 2 times, beside the one after every line",)


def test_a_given_vocabulary_must_hold_every_word(tmp_path: Path) -> None:
    words = ("<eos>", "b", "rare", "a")
    folder = write(tmp_path, "a b\n", "b\na b\n", "a a\nb a\n")
    text = load_text(f"folder:{folder}", vocabulary=words)
    assert text.words == words
    assert [part.tolist() for part in parts_of(text)] == [[3, 1, 0], [1, 0, 3, 1, 0], [3, 3, 0, 1, 3, 0]]
    write(folder, "a b\n", "b\na\n\na b c d\n", "a b\n")
    with pytest.raises(InputError, match=r"valid\.txt, line 4: unknown word 'c'; it is none of the 4 words of"):
        load_text(f"folder:{folder}", vocabulary=words)
    for wrong, match in [(("<eos>", "a", "a"), "holds the word 'a' twice"), (("a", "b"), "vocabulary lacks '<eos>'")]:
        with pytest.raises(InputError, match=match):
            load_text(f"folder:{folder}", vocabulary=wrong)
    with pytest.raises(InputError, match="'pydoc' makes its own vocabulary"):
        load_text("pydoc", vocabulary=words)


def test_unknown_and_incomplete_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown dataset 'pydocs'; choose from .*did you mean 'pydoc'"):
        load_text("pydocs")
    with pytest.raises(InputError, match="'pydoc' takes no argument, but was given '3.12'"):
        load_text("pydoc:3.12")
    for name in ("folder", "folder:"):
        with pytest.raises(InputError, match=rf"'{name}' needs a folder: folder:PATH, or data_dir"):
            load_text(name)
    with pytest.raises(InputError, match="no such folder .*nowhere"):
        load_text(f"folder:{tmp_path}/nowhere")
    styles = r"train\.txt, valid\.txt, test\.txt, or ptb\.train\.txt, .*, or wiki\.train\.tokens, .*wiki\.test\.tokens$"
    with pytest.raises(InputError, match=f"holds no text files; they are named {styles}"):
        load_text("folder", tmp_path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "holds no words"),
        (b"\n \n\t\n", "holds no words"),
        (b"<eos>\n", "holds no words"),
        (b"word", "holds only the word 'word'; at least 2 different are needed"),
        (b"word word\nword\n", "holds only the word 'word'"),
        (b"fine\nna\xefve\n", r"line 2: not UTF-8 text: .* at byte 2"),
        ("a b".encode("utf-16"), r"line 1: not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("part", range(3))
def test_a_useless_file_is_named(content: bytes, match: str, part: int, tmp_path: Path) -> None:
    contents: list[str | bytes] = ["some words\n", "some words\n", "some words\n"]
    contents[part] = content
    with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path / NAMES[0][part]))}.*{match}") as caught:
        read(tmp_path, *contents)
    assert "\n" not in str(caught.value)


def test_a_file_that_the_system_keeps_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, "a b", "a b", "a b")

    def refuse(self: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"train\.txt cannot be read: Permission denied"):
        load_text(f"folder:{folder}")


# Rows


def test_columns_are_contiguous_pieces() -> None:
    """1003 tokens side by side in 4 columns as the reference lays them (rnn/utils.py:15-22): the last 3 are dropped."""
    rows = batchify(np.arange(1003), 4)
    assert rows.shape == (250, 4) and rows.dtype == np.int32 and rows.flags.c_contiguous
    assert rows[:2].tolist() == [[0, 250, 500, 750], [1, 251, 501, 751]]
    assert rows[-1].tolist() == [249, 499, 749, 999]
    np.testing.assert_array_equal(np.diff(rows, axis=0), 1)
    assert batchify(np.arange(5), 1).tolist() == [[0], [1], [2], [3], [4]]


def test_too_few_rows_are_refused() -> None:
    assert batchify(np.arange(12), 4).shape == (3, 4)
    match = "batch_size must be at most 3, not 4: the validation part has 11 tokens, which make 2 rows, and at least 3"
    with pytest.raises(InputError, match=match):
        batchify(np.arange(11), 4, "the validation part")
    with pytest.raises(InputError, match="the text has 2 tokens; at least 3 are needed, whatever the batch_size"):
        batchify(np.arange(2), 1)
    with pytest.raises(InputError, match="batch_size must be at least 1, not 0"):
        batchify(np.arange(12), 0)
