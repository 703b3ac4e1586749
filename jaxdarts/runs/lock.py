"""Who holds a folder, and how is that asked without getting in anybody's way?"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import time
import warnings
from pathlib import Path

from jaxdarts.errors import InputError, RunError, one_line_errors

LOCK_FILE = "lock"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def lock_folder(path: Path, argument: str = "run_dir") -> int | None:
    """Locks a folder until the descriptor is closed or the process ends; None on a file system without locks.

    Raises:
      InputError: another process holds it; `argument` is what the message calls the folder.
      RunError: the lock cannot be written.
    """
    # The kernel drops the lock when the process ends, also after kill -9, so a lock file left behind locks nothing.
    with one_line_errors("write", path / LOCK_FILE):
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(lock)
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        return lock
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise InputError(
            f"{argument}: {str(path)!r} is in use by process {owner}; choose another --{argument.replace('_', '-')}"
        ) from None
    except OSError as error:
        os.close(lock)
        if error.errno in _WITHOUT_LOCKS:
            warnings.warn(f"{str(path)!r} is on a file system without locks; start no second run there", stacklevel=3)
            return None
        raise RunError(f"cannot lock {str(path)!r}: {error.strerror}") from error


def _take(lock: int) -> None:
    """Takes the lock. Raises BlockingIOError if a process holds it; one that only asks does not count as that."""
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # possible beside those that ask, for a moment
            fcntl.flock(lock, fcntl.LOCK_UN)
            time.sleep(random.uniform(0, 0.01))


def is_in_use(folder: Path) -> bool:
    """Whether a process holds the folder. It may be locked at the same time by somebody else: nobody is refused."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # there is no such run yet
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(lock)
