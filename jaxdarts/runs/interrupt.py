"""How does Ctrl-C or SIGTERM end a run without losing its state?"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

from jaxdarts.runs.messages import say_error

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether the user has asked the run to stop; to be looked at between steps."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once: Callable[[], str] | None = None
        """Called, in another thread, when the process is about to end at the second signal; returns what to say."""


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Interrupt]:
    """While the block runs, the first SIGINT or SIGTERM sets `requested` and says so; the second ends the process.

    Works at once even while a long compilation keeps Python's own handlers waiting. The handlers from before are back
    after the block. Signals reach the main thread only: in another thread nothing is caught.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    # Python runs a handler only when the main thread is back in Python, but writes the signal's number to this
    # socket at once; another thread reads it.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(receiver, interrupt), daemon=True)
    old_handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    old_fd = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        for number in _SIGNALS:
            signal.signal(number, lambda *_: _request(interrupt))
        yield interrupt
    finally:
        for number, handler in old_handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(old_fd)
        sender.close()  # ends the watcher
        watcher.join()
        receiver.close()


def _request(interrupt: Interrupt) -> None:
    interrupt.requested = True


def _watch(receiver: socket.socket, interrupt: Interrupt) -> None:
    received = 0
    while content := receiver.recv(16):
        for number in content:
            if number not in _SIGNALS:
                continue
            received += 1
            name = signal.Signals(number).name
            if received > 1:
                if interrupt.at_once is not None:
                    say_error(f"\n{name}: {interrupt.at_once()}")
                os._exit(128 + number)
            _request(interrupt)
            say_error(f"\n{name}: saving after this step; once more to end at once")
