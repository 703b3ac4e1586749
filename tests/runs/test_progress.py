"""Is what a person sees plain lines where there is no terminal, with the time left?"""

from __future__ import annotations

import io

import pytest

from jaxdarts.runs.progress import RunProgress, format_seconds, print_banner


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_plain_line_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    with RunProgress(num_steps=8, num_epochs=2, stream=stream) as progress:
        assert progress.seconds_left is None
        for step in range(1, 9):
            now[0] += 100.0 if step == 1 else 2.0  # the first step compiles
            progress.advance(step, (step - 1) // 4)
            if step == 2:
                assert progress.seconds_left == pytest.approx(12.0)
            if step % 4 == 0:
                progress.epoch(step // 4 - 1, {"loss": "0.50", "accuracy": "71.0 %"})
    assert (
        stream.getvalue() == "epoch 1/2  loss 0.50  accuracy 71.0 %  8 s left\nepoch 2/2  loss 0.50  accuracy 71.0 %\n"
    )


def test_a_continued_run_counts_only_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = RunProgress(num_steps=100, num_epochs=10, first_step=90, stream=io.StringIO())
    for step in (91, 92):
        now[0] += 3.0
        progress.advance(step, 9)
    assert progress.seconds_left == pytest.approx(24.0)


def test_a_run_that_goes_back_has_more_steps_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = RunProgress(num_steps=100, num_epochs=10, stream=io.StringIO())
    for step in (1, 2, 3):
        now[0] += 3.0
        progress.advance(step, 0)
    assert progress.seconds_left == pytest.approx(3.0 * 97)
    progress.rewind(1)
    assert progress.seconds_left == pytest.approx(3.0 * 99)
    now[0] += 3.0
    progress.advance(2, 0)
    assert progress.seconds_left == pytest.approx(3.0 * 98) and progress.steps_here == 3


def test_a_run_may_become_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = RunProgress(num_steps=2, num_epochs=1, stream=stream)
    for step in (1, 2):
        now[0] += 3.0
        progress.advance(step, 0)
    assert progress.seconds_left == 0
    progress.resize(6, 3)
    assert progress.seconds_left == pytest.approx(3.0 * 4)
    progress.epoch(0, {})
    assert stream.getvalue() == "epoch 1/3  12 s left\n"


def test_a_terminal_gets_a_bar_and_the_lines() -> None:
    stream = Terminal()
    with RunProgress(num_steps=2, num_epochs=1, stream=stream) as progress:
        progress.advance(1, 0)
        progress.message("[not markup]")
        progress.advance(2, 0)
        progress.epoch(0, {"loss": "1.00"})
    assert "[not markup]" in stream.getvalue() and "epoch 1/1  loss 1.00" in stream.getvalue()


def test_banner_and_durations() -> None:
    stream = io.StringIO()
    print_banner("search", {"space": "s1", "device": "cpu"}, stream)
    assert stream.getvalue() == "search\n  space   s1\n  device  cpu\n"
    assert [format_seconds(value) for value in (9.4, 200, 7500)] == ["9 s", "3 min 20 s", "2 h 5 min"]
