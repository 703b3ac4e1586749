"""Does a run go on when nobody can hear it?"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxdarts.runs.messages import Messages, say
from jaxdarts.runs.progress import RunProgress, print_banner

TALK = """
import sys
from jaxdarts.runs.allocator import restart_with_large_pages
restart_with_large_pages()
from jaxdarts.errors import InputError
from jaxdarts.runs.exit_codes import exit_code
from jaxdarts.runs.messages import say
from jaxdarts.runs.progress import RunProgress, print_banner

def talk():
    if sys.argv[2:]:
        raise InputError("bad f\\u00fcr")
    print_banner("search", {"folder": "f\\u00fcr"})
    with RunProgress(2, 1) as progress:
        progress.advance(1, 0)
        progress.epoch(0, {"loss": "1"})
    say("done")
    with open(sys.argv[1], "w") as file:
        file.write("done")

sys.exit(exit_code(talk))
"""
TOLD = "warning: cannot write messages (No space left on device); going on without them\n"


@pytest.mark.parametrize(
    ("redirection", "errors"),
    [
        (">&-", ""),
        ("2>&-", None),
        (">&- 2>&-", None),
        ("<&- >&- 2>&-", None),
        (">/dev/full", TOLD),
        (">/dev/full 2>/dev/full", None),
        ("2>/dev/full", None),
        ("| true", None),
        ("| head -c 3 >/dev/null", None),
    ],
)
def test_a_run_does_not_die_of_its_messages(tmp_path: Path, redirection: str, errors: str | None) -> None:
    if "/dev/full" in redirection and not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    for arguments, code in (("", 0), ("bad", 2)):
        line = f'set -o pipefail; "$0" -c "$1" "$2" {arguments} {redirection}'
        done = subprocess.run(
            ["bash", "-c", line, sys.executable, TALK, str(tmp_path / "file")], stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == code, done.stderr
        if errors is not None:
            assert done.stderr == (errors if code == 0 else "error: bad für\n")
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
        assert (tmp_path / "file").read_text() == "done"  # and nothing that was printed


def test_help_into_a_full_disk_is_one_line() -> None:
    command = 'exec "$0" -m jaxdarts.search --help >/dev/full'
    done = subprocess.run(["bash", "-c", command, sys.executable], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: cannot write: No space left on device\n")


def test_what_a_terminal_cannot_spell_is_escaped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", TALK, str(tmp_path / "file")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == r"  folder  f\xfcr"
    done = subprocess.run([*command, "bad"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: bad f\\xfcr\n")


class Broken(io.StringIO):
    """A stream that has an end."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_of_ones_own_may_break_too(capsys: pytest.CaptureFixture[str]) -> None:
    messages = Messages(Broken())
    print_banner("search", {}, messages)
    with RunProgress(2, 1, stream=messages) as progress:
        progress.epoch(0, {})
    say("done", messages)
    assert capsys.readouterr().err == TOLD


def test_a_stream_that_was_closed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    say("a")
    say("b")
    assert not Messages(closed).isatty()
    assert capsys.readouterr().err.count("warning: cannot write messages") == 1
