"""Does a signal ask for a stop, and a second one enforce it?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxdarts.runs.interrupt import Interrupt, catch_interrupts


def wait_until_requested(interrupt: Interrupt) -> None:
    end = time.monotonic() + 5
    while not interrupt.requested and time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_the_old_handler_comes_back(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with catch_interrupts() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        wait_until_requested(interrupt)
        assert interrupt.requested
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert f"{number.name}: saving after this step" in capsys.readouterr().err


def test_other_threads_are_left_alone() -> None:
    seen = []

    def run() -> None:
        with catch_interrupts() as interrupt:
            seen.append(interrupt.requested)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False] and signal.getsignal(signal.SIGINT) is before


# A long call into C that releases the GIL and returns for no signal, as a compilation is.
BUSY = """
import hashlib
from jaxdarts.runs.interrupt import catch_interrupts
with catch_interrupts() as interrupt:
    ready = 1
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 400_000_000)
"""


@pytest.mark.parametrize("at_once", [None, "2 runs were killed"])
def test_two_signals_end_the_process_even_in_a_long_compilation(at_once: str | None) -> None:
    said = "None" if at_once is None else f"lambda: {at_once!r}"
    command = [sys.executable, "-c", BUSY.replace("ready = 1", f"interrupt.at_once = {said}")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "SIGINT: saving after this step; once more to end at once\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == ("" if at_once is None else f"\nSIGINT: {at_once}\n")
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()
        process.stderr.close()
