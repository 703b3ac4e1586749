"""Does one process hold a folder, and does asking for it refuse nobody?"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

from jaxdarts.errors import InputError
from jaxdarts.runs import lock
from jaxdarts.runs.lock import is_in_use, lock_folder


def test_one_holds_it_until_it_lets_go(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path) and not os.listdir(tmp_path)
    held = lock_folder(tmp_path)
    assert held is not None and is_in_use(tmp_path)
    with pytest.raises(InputError, match=f"sweep_dir: .* is in use by process {os.getpid()}; choose another --sweep-"):
        lock_folder(tmp_path, "sweep_dir")
    os.close(held)
    assert not is_in_use(tmp_path)
    (tmp_path / "lock").write_text("1\n")  # left by a killed process; its number is another's now
    assert not is_in_use(tmp_path)


def test_who_starts_while_it_is_asked_for_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = os.open(tmp_path / "lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)  # as within is_in_use
    assert not is_in_use(tmp_path)  # nor does one who asks take another for a holder
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            os.close(asking)

    monkeypatch.setattr(lock.time, "sleep", sleep)
    held = lock_folder(tmp_path)
    assert held is not None and len(waits) == 3 and max(waits) <= 0.01
    os.close(held)


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    barrier, held, refused = threading.Barrier(8), [], []
    (tmp_path / "lock").touch()

    def start(number: int) -> None:
        barrier.wait()
        if number % 2:
            is_in_use(tmp_path)
            return
        try:
            held.append(lock_folder(tmp_path))
        except InputError:
            refused.append(number)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 3
    os.close(held[0])
