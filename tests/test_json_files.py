"""Are files whole or absent, and do values come back from them as JSON can hold them?"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdarts import json_files as files
from jaxdarts.errors import InputError
from jaxdarts.json_files import (
    append_line,
    as_json,
    is_temporary,
    keep_lines,
    read_json,
    read_lines,
    remove_temporary,
    to_text,
    write_atomically,
)


def test_values_become_what_json_can_hold(tmp_path: Path) -> None:
    value = {
        "alpha": {"normal": np.eye(2, dtype=np.float32)},
        "loss": np.float32(0.5),
        "jax": (jnp.float32(0.25), jnp.arange(2), jnp.bfloat16(2)),
        3: np.int64(1),
        "flags": np.array([True]),
        "not finite": [math.nan, np.float32(np.inf), -math.inf, np.array([np.nan, 1.0]), (1.0, None)],
    }
    expected = {
        "alpha": {"normal": [[1.0, 0.0], [0.0, 1.0]]},
        "loss": 0.5,
        "jax": [0.25, [0, 1], 2.0],
        "3": 1,
        "flags": [True],
        "not finite": [None, None, None, [None, 1.0], [1.0, None]],
    }
    assert as_json(value) == expected == as_json(expected)
    write_atomically(tmp_path / "file.json", to_text(value))
    append_line(tmp_path / "lines", value)
    assert read_json(tmp_path / "file.json", "run_dir") == expected
    assert read_lines(tmp_path / "lines") == [expected]
    for name in ("file.json", "lines"):
        assert "NaN" not in (tmp_path / name).read_text() and "Infinity" not in (tmp_path / name).read_text()


def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for content, message in {
        b"{": "Expecting property name",
        b"\xff": "codec can't decode",
        b"[" * 100_000: "recursion",
    }.items():
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^run_dir: cannot read '.*file.json': .*{message}") as caught:
            read_json(path, "run_dir")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read '.*none.json': No such file or directory$"):
        read_json(tmp_path / "none.json", "run_dir")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_folder_is_flushed_as_well_and_may_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []

    def fsync(descriptor: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if flushed[-1]:
            raise OSError(22, "Invalid argument")  # as some network file systems

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_atomically(tmp_path / "file", b"ab")
    assert (tmp_path / "file").read_text() == "ab" and flushed == [False, True]
    write_atomically(tmp_path / "file", "caf\udce9 für")
    assert (tmp_path / "file").read_text() == "caf\\udce9 für"


def test_a_write_follows_no_link_and_keeps_to_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 16)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f".jaxdarts-{'0' * 16}.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "precious"
    monkeypatch.undo()
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "victim").read_text() == "precious" and not (tmp_path / "file").is_symlink()
    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "shared", "for the group")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640


def test_temporary_names_cannot_be_guessed_and_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(files.os, "replace", lambda old, new: names.append(Path(old).name))
    for _ in range(3):
        write_atomically(tmp_path / "file", "content")
    assert len(set(names)) == 3 and all(map(is_temporary, names)) and sorted(os.listdir(tmp_path)) == sorted(names)
    assert not any(map(is_temporary, (".tmp", ".report.html.tmp", ".jaxdarts-notes.tmp", "jaxdarts.tmp")))
    remove_temporary(tmp_path)
    assert not os.listdir(tmp_path)


def test_any_torn_last_line_is_left_out_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    first, second = b'{"epoch": 0, "x": "\xc3\xa9"}\n', b'{"epoch": 1, "x": "\xc3\xa9"}\n'
    for end in range(len(second) + 1):
        path.write_bytes(first + second[:end])
        whole = [0, 1] if end >= len(second) - 1 else [0]  # all but the newline is whole
        assert [record["epoch"] for record in read_lines(path)] == whole
        append_line(path, {"epoch": 9})
        assert [record["epoch"] for record in read_lines(path)] == [*whole, 9]
    path.write_bytes(first + b"\0" * 100)  # a block that was lost with the power
    append_line(path, {"epoch": 9})
    assert path.read_bytes() == first + b'{"epoch": 9}\n'


def test_a_broken_earlier_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n[1]\n{"epoch": 2}\n')
    with pytest.raises(InputError, match=r"^metrics: line 2 of '.*metrics.jsonl' is not a JSON object$"):
        read_lines(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"^metrics: cannot read '.*metrics.jsonl': Is a directory$"):
        read_lines(path)


def test_lines_that_are_kept_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    keep_lines(path, 3)
    assert not path.exists()
    lines = ['{"epoch":0,  "x": 1e-1}\n', '{"epoch":1}\n', '{"epoch":2}\n']
    path.write_text("".join(lines) + '{"epo')
    keep_lines(path, 2)
    assert path.read_text() == "".join(lines[:2])
    before = path.stat().st_ino
    keep_lines(path, 2)
    assert path.stat().st_ino == before  # nothing to write
    keep_lines(path, 0)
    assert path.read_text() == ""
